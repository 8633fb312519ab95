"""`evalkit compare`: is one run really better than another?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json, print_table
from evalkit.cli.tables import number
from evalkit.errors import ConfigError
from evalkit.runs.folder import find_run

if TYPE_CHECKING:
    from evalkit.runs.compare_row import Row

EXIT_WORSE = 1
SHOWN_IDS = 5
COLUMNS = (
    "run",
    "task",
    "metric",
    "baseline",
    "value",
    "difference",
    "95 %",
    "p",
    "p (Holm)",
    "worse",
    "better",
    "detectable",
    "documents",
)


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
    for remark in remarks:
        typer.echo(f"warning: {remark}", err=True)
    if as_json:
        print_json({"baseline": runs[0], "rows": [row.to_dict() for row in rows], "remarks": remarks})
    else:
        _print(rows)
    for row in failed:
        typer.echo(f"{row.run}: {row.task} {_label(row)} is worse by {number(row.loss)}", err=True)
    if failed:
        raise typer.Exit(EXIT_WORSE)


def _print(rows: list[Row]) -> None:
    print_table(COLUMNS, [_cells(row) for row in rows])
    for row in rows:
        for word, ids in (("worse", row.worse), ("better", row.better)):
            if ids:
                shown = ", ".join(map(str, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
                typer.echo(f"{row.run}, {row.task}, {_label(row)}: {word} on documents {shown}")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.run,
        row.task,
        _label(row),
        number(row.baseline),
        number(row.value),
        f"{row.difference:+.4f}",
        " to ".join(f"{limit:+.4f}" for limit in row.interval or ()),
        _probability(row.p_value),
        _probability(row.corrected),
        str(len(row.worse)) if row.test else "",
        str(len(row.better)) if row.test else "",
        "" if row.detectable is None else number(row.detectable),
        str(row.documents),
    )


def _label(row: Row) -> str:
    return row.metric if row.filter == "none" else f"{row.metric} ({row.filter})"


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
