"""`evalkit rerun`: start a new run of what another was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evalkit.cli.arguments import add_arguments
from evalkit.cli.output import JSON, stdout_reserved
from evalkit.cli.progress import progress_bar
from evalkit.cli.run import report
from evalkit.cli.runs import RunName
from evalkit.runs.folder import RunFolder, find_run


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rerun")(rerun)


def rerun(
    run: RunName,
    output: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder of the new run [default: runs/<time>-<tasks>]")
    ] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An option of the engine to replace, such as a secret.")
    ] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An option of the model to replace. Repeatable.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Run again what a run was asked, from its run.json alone, into a new folder."""
    from evalkit import runner
    from evalkit.runs.again import asked_of

    path = find_run(run)
    given: dict[str, Any] = {"engine": asked_of(RunFolder.open(path).manifest(), str(path))["engine"]}
    add_arguments(given, engine_arg or [], model_arg or [])
    arguments = {name: given.get(name, {}) for name in ("engine_args", "model_args")}
    with stdout_reserved() as stdout, progress_bar() as on_progress:
        target = str(output) if output else None
        report(runner.rerun(path, output=target, **arguments, on_progress=on_progress), as_json, stdout)
