"""`evalkit compare`: is one run really better than another?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json, print_table
from evalkit.cli.tables import number
from evalkit.errors import ConfigError
from evalkit.runs.folder import find_run

if TYPE_CHECKING:
    from rich.text import Text

    from evalkit.reading.flips import Flip
    from evalkit.runs.compare_row import Row

EXIT_WORSE = 1
MARKS = {"better": " ▲", "worse": " ▼", None: ""}
STYLES = {"better": "green", "worse": "red", None: ""}
COLUMNS = ("task", "metric", "baseline", "value", "difference", "p (Holm)", "flips")
MORE_COLUMNS = ("p", "test", "detectable", "documents")
LINE = 86
"""Characters of a text that are shown of an example."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", autocompletion=complete.run_names, help="Finished runs; the first is the baseline."
        ),
    ],
    fail_if_worse: Annotated[
        float | None,
        typer.Option(metavar="X", help="Exit with status 1 where a metric is worse than the baseline by more than X."),
    ] = None,
    any_prompts: Annotated[
        bool, typer.Option("--any-prompts", help="Compare although prompts differ, by a chat template, say.")
    ] = False,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Documents to show of those that became worse, and better.")
    ] = 3,
    wide: Annotated[
        bool, typer.Option("--wide", help="More columns: plain p, test, detectable difference, documents.")
    ] = False,
    as_json: bool = JSON,
) -> None:
    """Compare runs document by document: differences, their intervals and p-values."""
    from evalkit.runs.compare import compare_runs

    if len(runs) < 2:
        raise ConfigError("a comparison needs two runs or more. See: evalkit runs")
    if fail_if_worse is not None and not 0 <= fail_if_worse < math.inf:
        raise ConfigError(f"--fail-if-worse is a difference of 0 or more, not {fail_if_worse}")
    found = [(name, find_run(name)) for name in runs]
    rows, remarks = compare_runs(found, any_prompts=any_prompts, strict=fail_if_worse is not None)
    # A difference that is no number (an infinite perplexity) is not known to be small enough.
    failed = [row for row in rows if fail_if_worse is not None and not row.loss <= fail_if_worse]
    shown = [(row, _examples(row, dict(found), runs[0], examples)) for row in rows]
    for remark in remarks:
        typer.echo(f"warning: {remark}", err=True)
    if as_json:
        print_json({"baseline": runs[0], "rows": [_document(*pair) for pair in shown], "remarks": remarks})
    else:
        _print(runs[0], shown, wide=wide)
    for row in failed:
        typer.echo(f"{row.run}: {row.task} {_label(row)} is worse by {number(row.loss)}", err=True)
    if failed:
        raise typer.Exit(EXIT_WORSE)


def _examples(row: Row, paths: dict[str, Path], baseline: str, count: int) -> list[Flip]:
    """Those of a claim; tasks within a group have theirs among the group's."""
    from evalkit.reading.flips import flips

    return flips(row, paths[baseline], paths[row.run], count) if count and not row.detail else []


def _document(row: Row, examples: Sequence[Flip]) -> dict[str, Any]:
    return {**row.to_dict(), "examples": [dataclasses.asdict(flip) for flip in examples]}


def _print(baseline: str, shown: Sequence[tuple[Row, list[Flip]]], *, wide: bool) -> None:
    for index, (run, pairs) in enumerate(groupby(shown, key=lambda pair: pair[0].run)):
        typer.echo(f"{'' if index == 0 else chr(10)}{run}, compared with {baseline}:\n")
        of_run = list(pairs)
        rows = sorted((row for row, _ in of_run), key=lambda row: row.detail)
        columns = (*COLUMNS, *MORE_COLUMNS) if wide else COLUMNS
        print_table(columns, [_cells(row, wide=wide) for row in rows], folding="task", tight=True)
        if any(row.verdict for row in rows):
            typer.echo("▲ better, ▼ worse: more than chance makes (p (Holm) below 0.05)")
        for row, examples in of_run:
            for flip in examples:
                _print_flip(row, flip, baseline)


def _cells(row: Row, *, wide: bool) -> tuple[str | Text, ...]:
    from rich.text import Text

    interval = f" [{row.interval[0]:+.4f}, {row.interval[1]:+.4f}]" if row.interval else ""
    cells = (
        f"  {row.task}" if row.detail else row.task,
        _label(row),
        number(row.baseline),
        number(row.value),
        Text(f"{row.difference:+.4f}{interval}{MARKS[row.verdict]}", STYLES[row.verdict]),
        _probability(row.corrected),
        f"+{row.won} -{row.lost}" if row.won or row.lost or row.test else "",
    )
    more = (
        _probability(row.p_value),
        row.test or "",
        "" if row.detectable is None else number(row.detectable),
        str(row.documents),
    )
    return (*cells, *more) if wide else cells


def _print_flip(row: Row, flip: Flip, baseline: str) -> None:
    typer.echo(f"\n{flip.task}, {_label(row)}: {flip.change} on document {flip.doc_id}")
    lines = (("question", flip.question), ("right", flip.target), (baseline, flip.baseline), (row.run, flip.answer))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"  {name:{width}}  {text if len(text) <= LINE else text[: LINE - 1] + '…'}")


def _label(row: Row) -> str:
    return row.metric if row.filter == "none" else f"{row.metric} ({row.filter})"


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
