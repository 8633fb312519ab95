"""The samples of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from evalkit.reading.finished import Run
from evalkit.runs.samples import Row, sample_rows

Aligned = tuple[Row | None, ...]
"""The rows of one document and filter, one a run; None where a run has no such row."""


def aligned(runs: Sequence[Run], task: str, rows: Callable[[Path], Iterable[Row]] = sample_rows) -> Iterator[Aligned]:
    """The rows of a task side by side, read by `rows`. Rows of one document that differ in its content are kept apart.

    Raises RunError where a sample file is damaged.
    """
    files = [run.sample_files.get(task) for run in runs]
    streams = [_documents(() if file is None else rows(file)) for file in files]
    heads = [next(stream, None) for stream in streams]
    while present := [head for head in heads if head is not None]:
        doc_id = min(head[0] for head in present)
        mine = [head[1] if head and head[0] == doc_id else [] for head in heads]
        yield from _side_by_side(mine)
        for index, head in enumerate(heads):
            if head and head[0] == doc_id:
                heads[index] = next(streams[index], None)


def _side_by_side(documents: Sequence[Sequence[Row]]) -> Iterator[Aligned]:
    keys = dict.fromkeys(_key(row) for rows in documents for row in rows if not row.get("error"))
    failed = dict.fromkeys(_key(row) for rows in documents for row in rows if row.get("error"))
    # A failed document has one row, whatever the filters: it stands beside each row of the same document.
    keys |= {key: None for key in failed if key[1] not in {digest for _, digest in keys}}
    for filter_name, digest in keys:
        yield tuple(_matching(rows, filter_name, digest) for rows in documents)


def _key(row: Row) -> tuple[str, str]:
    return str(row.get("filter", "none")), str(row.get("doc_hash"))


def _matching(rows: Sequence[Row], filter_name: str, digest: str) -> Row | None:
    same = [row for row in rows if _key(row)[1] == digest]
    return next((row for row in same if row.get("error") or _key(row)[0] == filter_name), None)


def _documents(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Rows by document, which stand in the order of their numbers."""
    for doc_id, found in groupby(rows, key=itemgetter("doc_id")):
        yield doc_id, list(found)
