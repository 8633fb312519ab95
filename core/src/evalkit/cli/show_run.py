"""A run in the terminal: scores, groups, calibration, speed and cost, and how to repeat it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evalkit.cli.output import print_json, print_table
from evalkit.cli.runs import summary
from evalkit.cli.tables import number
from evalkit.errors import RunError
from evalkit.runs.folder import RESULTS, RunFolder

if TYPE_CHECKING:
    from evalkit.reading.finished import Run
    from evalkit.reading.plots import Calibration
    from evalkit.reading.summary import Score

NEEDED = 4
"""Columns of scores that are shown on a narrow terminal too: up to the interval."""
AXIS = 24
"""Characters of the line from 0 to 1 that intervals are drawn on."""


def show_run(path: Path, as_json: bool) -> None:
    """Print what a run says of itself, finished or not."""
    from evalkit.reading.finished import open_run

    folder = RunFolder.open(path)
    row = summary(path)
    run = open_run(path, str(path), with_samples=False) if (path / RESULTS).is_file() else None
    if as_json:
        return print_json(
            {**row, "spec": folder.manifest().get("spec"), "results": None, **(_facts(run) if run else {})}
        )
    print_table(("field", "value"), list(row.items()))
    if run is None:
        return typer.echo(f"not finished; continue with: evalkit resume {path}")
    _print(run)


def _facts(run: Run) -> dict[str, Any]:
    from evalkit.reading.settings import command, environment

    found = [
        {"task": plot.task, "documents": plot.total, "error": plot.error, "points": plot.points}
        for plot in calibrations(run)
    ]
    settings = {"command": command(run.manifest["spec"]), "environment": environment(run)}
    return {"results": run.results, "calibration": found, **settings}


def _print(run: Run) -> None:
    from evalkit.reading.settings import command, environment
    from evalkit.reading.summary import cost, groups, scores

    for warning in run.results.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)
    _section("Scores")
    _print_scores(scores([run]))
    for metric, parts in groups([run]):
        _section(f"{parts[0].name}, {metric}")
        rows = [
            (part.name if part.is_group else f"  {part.name}", "" if value is None else number(value))
            for part in parts
            for value in part.values
        ]
        print_table(("task", "value"), rows)
    if found := calibrations(run):
        _section("Calibration: confidence in the likeliest choice, and how often it was right")
        columns = ("task", "documents", "error", "confidence: right")
        print_table(columns, [(plot.task, plot.total, f"{plot.error:.3f}", _points(plot)) for plot in found])
    _section("Speed and cost")
    spent = cost(run)
    print_table(("", "value"), list(cost_rows(spent)))
    if spent.counters:
        typer.echo(f"joules are of the whole of {', '.join(spent.counters)}, whatever else ran there")
    _section("Settings")
    print_table(("", "value"), list(environment(run).items()))
    typer.echo(f"repeat: {command(run.manifest['spec'])}")
    typer.echo(f"run: {run.path}")


def cost_rows(cost: Any) -> Iterator[tuple[str, str]]:
    """What is known of a cost, a line each."""
    from evalkit.costs import LABELS

    for name, field, digits in LABELS:
        if (value := getattr(cost, field)) is not None:
            yield name, f"{value:,.{digits}f}"


def calibrations(run: Run) -> list[Calibration]:
    """Those that say something. Sample files that are missing or damaged leave the rest of the run to be shown."""
    from evalkit.reading.plots import Plots
    from evalkit.reading.samples import verdict
    from evalkit.runs.samples import light_rows

    plots = Plots()
    try:
        for task, path in run.sample_files.items():
            better = run.higher_is_better.get(task, {})
            for row in light_rows(path):
                plots.add(task, 0, row, verdict(row, better))
    except RunError as error:
        typer.echo(f"warning: {error}", err=True)
        return []
    return plots.telling_calibrations()


def _points(plot: Calibration) -> str:
    return "  ".join(f"{confidence:.2f}: {right:.2f}" for confidence, right, _ in plot.points)


def _print_scores(scores: Sequence[Score]) -> None:
    from evalkit.reading.summary import label

    rows: list[tuple[Any, ...]] = [
        (
            score.task,
            label(f"{score.metric},{score.filter}"),
            number(score.value),
            ("≈ " if score.is_rough else "") + " to ".join(map(number, score.interval)) if score.interval else "",
            "" if score.stderr is None else f"± {number(score.stderr)}",
            "" if score.documents is None else score.documents,
            interval_line(score.value, score.interval),
        )
        for score in scores
    ]
    columns: tuple[str, ...] = ("task", "metric", "value", "95 %", "stderr", "documents", f"0{'1':>{AXIS - 1}}")
    while len(columns) > NEEDED and not _fits([columns, *rows]):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_table(columns, rows)


def interval_line(value: float, interval: tuple[float, float] | None) -> str:
    """A value and its interval on a line from 0 to 1; nothing where they do not lie there."""
    if interval is None or not 0 <= value <= 1 or interval[1] - interval[0] > 1:
        return ""
    low, high = (round(min(max(end, 0.0), 1.0) * (AXIS - 1)) for end in interval)
    line = ["─" if low <= place <= high else "·" for place in range(AXIS)]
    line[round(value * (AXIS - 1))] = "●"
    return "".join(line)


def _fits(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a table is no wider than the terminal, where numbers would be cut."""
    if not sys.stdout.isatty():
        return True
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    return sum(widths) + 3 * (len(widths) - 1) < shutil.get_terminal_size().columns


def _section(title: str) -> None:
    typer.echo(f"\n{title}")
