"""`evalkit show`: a run in the terminal, and its samples."""

from __future__ import annotations

from typing import Annotated

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON
from evalkit.cli.runs import RunName
from evalkit.runs.folder import find_run

PAGE = 20


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(
    run: RunName,
    samples: Annotated[
        str | None, typer.Option(metavar="TASK", help="List the samples of a task [default: the run's only one]")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete.verdicts,
            help="Samples that are right, wrong or error, or flipped against another run.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", autocompletion=complete.run_names, help="Another run, beside this one."),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Samples with this in prompt, answer, target or error.")
    ] = None,
    doc: Annotated[int | None, typer.Option(metavar="N", min=0, help="One document in full.")] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"Samples on a page [default: {PAGE}]", show_default=False)
    ] = None,
    skip: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Samples before the page [default: 0]", show_default=False)
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Show a run's results, or how far it is; with --samples what it was asked and answered."""
    from evalkit.cli.show_run import show_run
    from evalkit.cli.show_samples import Asked, show_samples

    path = find_run(run)
    if all(value is None for value in (samples, only, against, search, doc, limit, skip)):
        return show_run(path, as_json)
    paths = [path, *([find_run(against)] if against else [])]
    show_samples(paths, Asked(run, samples, only, against, search, doc, limit or PAGE, skip or 0), as_json)
