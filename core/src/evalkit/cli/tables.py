"""Results as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import typer

from evalkit.cli.output import print_table
from evalkit.results import RunResult


def print_result(result: RunResult, stream: IO[str] | None = None) -> None:
    """Scores with their errors and intervals, then what the run cost and where it is."""
    rows = metric_rows(result.results, result.details.get("intervals", {}))
    print_table(("task", "metric", "value", "stderr", "95 %"), rows, stream)
    for line in _cost(result):
        typer.echo(line, file=stream)
    typer.echo(f"run: {result.run_dir}", file=stream)


def metric_rows(
    results: dict[str, dict[str, Any]], intervals: dict[str, dict[str, list[float]]]
) -> list[tuple[str, str, str, str, str]]:
    """A row for every metric of every task."""
    rows = []
    for task, row in results.items():
        for key, value in row.items():
            name, _, filter_name = key.partition(",")
            if name.endswith("_stderr"):
                continue
            error = row.get(f"{name}_stderr,{filter_name}")
            label = name if filter_name == "none" else f"{name} ({filter_name})"
            shown = f"± {number(error)}" if isinstance(error, float) else ""
            limits = " to ".join(map(number, intervals.get(task, {}).get(key, ())))
            rows.append((task, label, number(value), shown, limits))
    return rows


def number(value: float) -> str:
    """Four decimals, or four digits where the number is so large that decimals say nothing."""
    return f"{value:.4f}" if abs(value) < 100_000 else f"{value:.4g}"


def _cost(result: RunResult) -> Iterator[str]:
    cost = result.cost
    text = f"{cost.total:.1f} s (model {cost.load:.1f} s, inference {cost.inference:.1f} s)"
    if cost.requested is not None:
        text += f"; tokens: {cost.requested:,} requested, {cost.unique:,} unique, {cost.computed:,} computed"
    if result.from_cache:
        text += f"; {result.from_cache:,} answers from the cache"
    yield text
    rates = (("in", cost.tokens_in, cost.in_rate), ("out", cost.tokens_out, cost.out_rate))
    parts = [f"{tokens:,} {way}, {rate:,.0f} a second" for way, tokens, rate in rates if tokens and rate is not None]
    if cost.joules is not None:
        parts.append(f"{cost.joules:,.0f} joules")
    if cost.joules_per_1000 is not None:
        parts.append(f"{cost.joules_per_1000:,.1f} for 1,000 tokens")
    if parts:
        yield f"tokens {'; '.join(parts)}"
