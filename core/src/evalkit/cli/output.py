"""Print JSON and tables, and keep stdout for them alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import typer

from evalkit.runs.folder import ESCAPED

MANY_ROWS = 1000
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""ASCII's and Latin-1's, escape among them."""
JSON = typer.Option(False, "--json", help="Print one JSON document on stdout and nothing else there.")


def print_json(value: Any, stream: IO[str] | None = None) -> None:
    """Print `value` as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str), file=stream or sys.stdout, flush=True)


def printable(text: str) -> str:
    """`text` with control characters spelt out: what a model wrote must not steer the terminal."""
    return text.encode(errors=ESCAPED).decode().translate(CONTROLS)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    stream: IO[str] | None = None,
    *,
    folding: str | None = None,
    tight: bool = False,
) -> None:
    """Print rows under plain headings; the last column wraps on a terminal, or `folding`, and is never cut elsewhere.

    Cells may be rich's Text: its style shows on a terminal. `tight` leaves less between columns.
    """
    if len(rows) > MANY_ROWS:
        return _print_many(columns, rows, stream or sys.stdout)
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=tight)
    for column in columns:
        table.add_column(column, no_wrap=column != (folding or columns[-1]), overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    Console(file=stream, width=None if stream.isatty() else 500, highlight=False).print(table)


def _print_many(columns: Sequence[str], rows: Sequence[Sequence[Any]], stream: IO[str]) -> None:
    """The same without wrapping: laying out 15,000 rows would take seconds."""
    from rich.cells import cell_len

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    lines = []
    for row in (columns, (rule,), *cells):
        padded = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=False))
        lines.append("   ".join(padded).rstrip() + "\n")
    stream.write("".join(lines))


@contextmanager
def stdout_reserved() -> Iterator[IO[str]]:
    """Yield the real stdout, while whatever libraries print to it (C code included) goes to stderr."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed, or replaced by an object without a descriptor
        yield sys.stdout
        return
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as real:
            yield real
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
