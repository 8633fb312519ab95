"""`evalkit export`: a finished run in the formats of other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json
from evalkit.cli.runs import RunName
from evalkit.runs.folder import find_run


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    run: RunName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; a folder for several tasks of inspect.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            autocompletion=complete.export_formats,
            help="parquet, csv, jsonl, inspect or model-card [default: what the name of FILE says]",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", autocompletion=complete.tasks, help="Only this task [default: all]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
    as_json: bool = JSON,
) -> None:
    """Write the samples or scores of a finished run for other tools."""
    from evalkit import exports

    done = exports.export(find_run(run), file, to=to, task=task, force=force)
    if as_json:
        return print_json(dataclasses.asdict(done))
    typer.echo(f"{done.file}: {done.rows} rows, {done.bytes:,} bytes")
