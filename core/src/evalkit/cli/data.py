"""`evalkit data get` and `evalkit data verify`: documents for machines without network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json, print_table
from evalkit.errors import ConfigError

EXIT_FAULTY = 1
DATA_DIR = Annotated[
    Path | None, typer.Option(metavar="D", help="The mirror [default: EVALKIT_DATA_DIR]", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Fetch documents into a mirror, and check one.")
    group.command("get")(get)
    group.command("verify")(verify)
    app.add_typer(group, name="data")


def get(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", autocompletion=complete.tasks, help="Tasks or groups.")
    ],
    data_dir: DATA_DIR = None,
) -> None:
    """Fetch what tasks need into a mirror, which runs read with --data-dir; status 1 where something is missing."""
    from evalkit.datasets.fetch import fetch
    from evalkit.runs.plan import load_tasks
    from evalkit.tasks.splits import needed

    folder = _folder(data_dir)
    failed = []
    for item in fetch(needed(load_tasks(tasks)), folder):
        name = f"{item.needed.dataset.label}, {item.needed.split}"
        typer.echo(f"{name}: {item.outcome}")
        failed += [name] if item.error else []
    typer.echo(f"Use it with: --data-dir {folder}")
    if failed:
        typer.echo(f"error: {len(failed)} missing, for the reasons above: {'; '.join(failed)}", err=True)
        raise typer.Exit(EXIT_FAULTY)


def verify(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK...", autocompletion=complete.tasks, help="Only what these need [default: all]"),
    ] = None,
    data_dir: DATA_DIR = None,
    as_json: bool = JSON,
) -> None:
    """Check that a mirror's files are there, unchanged and complete; status 1 where they are not."""
    from evalkit.datasets.fetch import check, check_all
    from evalkit.datasets.manifest import Manifest
    from evalkit.runs.plan import load_tasks
    from evalkit.tasks.splits import needed

    folder = _folder(data_dir)
    manifest = Manifest.read(folder)
    found = [check(item, manifest) for item in needed(load_tasks(tasks))] if tasks else check_all(manifest)
    if not found:
        raise ConfigError(
            f"{folder} has no manifest to check against. Name tasks, or fetch data with: evalkit data get"
        )
    rows = [(item.path, item.rows, item.fault or "ok") for item in found]
    if as_json:
        print_json([{"path": path, "rows": count, "state": state} for path, count, state in rows])
    else:
        print_table(("file", "rows", "state"), rows)
    if any(item.fault for item in found):
        raise typer.Exit(EXIT_FAULTY)


def _folder(data_dir: Path | None) -> Path:
    chosen = data_dir or os.environ.get("EVALKIT_DATA_DIR")
    if not chosen:
        raise ConfigError("a mirror is needed: give its folder with --data-dir, or set EVALKIT_DATA_DIR")
    return Path(chosen)
