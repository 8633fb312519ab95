"""`evalkit runs` and `resume`: list run folders, and complete one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json, print_table, stdout_reserved
from evalkit.cli.progress import progress_bar
from evalkit.cli.run import report
from evalkit.errors import RunError
from evalkit.runs.folder import RunFolder, find_run, list_runs, runs_root

RunName = Annotated[
    str, typer.Argument(metavar="RUN", autocompletion=complete.run_names, help="Folder, name, or 'latest'.")
]


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("runs")(runs)
    app.command("resume")(resume)


def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to look [default: EVALKIT_RUNS_DIR, else ./runs]")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """List runs, oldest first."""
    rows = [_summary_or_damage(path) for path in list_runs(folder or runs_root())]
    if as_json:
        return print_json(rows)
    if not rows:
        return typer.echo(f"no runs in {folder or runs_root()}. Start one with: evalkit run TASK ...", err=True)
    columns = ("run", "state", "answers", "engine", "model", "tasks")
    print_table(columns, [tuple(row[column] for column in columns) for row in rows])


def _summary_or_damage(path: Path) -> dict[str, Any]:
    """One line about a run, whatever its run.json holds: a damaged one must not hide the others."""
    try:
        return summary(path)
    except RunError as error:
        typer.echo(f"warning: {error}", err=True)
        blank = dict.fromkeys(("answers", "engine", "model", "tasks", "created"), "")
        return {"run": path.name, "path": str(path), "state": "damaged", **blank}


def summary(path: Path) -> dict[str, Any]:
    """One line about a run."""
    folder = RunFolder(path)
    manifest = folder.manifest()
    state = manifest.get("status", "")
    if state == "running" and not folder.locked:
        state = "interrupted"
    spec = manifest.get("spec", {})
    return {
        "run": path.name,
        "path": str(path),
        "state": state,
        "answers": f"{answers(folder)}/{manifest.get('requests', '?')}",
        "engine": spec.get("engine", ""),
        "model": spec.get("model", ""),
        "tasks": ", ".join(spec.get("tasks", ())),
        "created": manifest.get("created", ""),
    }


def answers(folder: RunFolder) -> int:
    """Answers in the journal; looking does not change the folder."""
    from evalkit.runs.journal import count_answers

    return count_answers(folder.journal_path)


def resume(run: RunName, as_json: bool = JSON) -> None:
    """Complete a run that was stopped, without asking anything twice."""
    from evalkit import runner

    path = find_run(run)
    with stdout_reserved() as stdout, progress_bar() as on_progress:
        report(runner.resume(path, on_progress=on_progress), as_json, stdout)
