"""Find samples of finished runs by verdict and text, without holding more than a line about each in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evalkit.errors import ConfigError, did_you_mean
from evalkit.reading.aligned import Aligned, aligned
from evalkit.reading.finished import Run
from evalkit.reading.samples import ERROR, MISSING, OTHER, RIGHT, WRONG, is_flipped, texts, verdict
from evalkit.runs.folder import ESCAPED
from evalkit.runs.samples import OFFSET, Row, light_rows, raw_rows, row_at

T = TypeVar("T", str, bytes)
FLIPPED = "flipped"
VERDICTS = {"right": RIGHT, "wrong": WRONG, "error": ERROR}
WORDS = {**{letter: word for word, letter in VERDICTS.items()}, OTHER: "", MISSING: "missing"}
"""How a verdict is told; a value that is neither right nor wrong has no word."""


@dataclass(frozen=True, slots=True)
class Found:
    """A document under a filter: the verdict of each run as one letter, and where its row begins in each."""

    doc_id: int
    filter: str
    verdicts: str
    offsets: tuple[int | None, ...]


def find(
    runs: Sequence[Run], task: str, *, only: str | None = None, search: str | None = None, doc_id: int | None = None
) -> Iterator[Found]:
    """The samples of a task in document order. Raises ConfigError, RunError.

    `only` is "right", "wrong" or "error" in the first run, or "flipped": one run has it right and another wrong.
    `search` is in a prompt, answer, target or error of any run, in any case.
    """
    _check(runs, only)
    hits = None if search is None else [_hits(run.sample_files.get(task), search) for run in runs]
    better = [run.higher_is_better.get(task, {}) for run in runs]
    for rows in aligned(runs, task, light_rows):
        verdicts = "".join(verdict(row, known) for row, known in zip(rows, better, strict=True))
        if (doc_id is None or _first(rows)["doc_id"] == doc_id) and _is_wanted(verdicts, only):
            offsets = tuple(None if row is None else int(row[OFFSET]) for row in rows)
            if hits is None or any(offset in found for offset, found in zip(offsets, hits, strict=True)):
                yield Found(_first(rows)["doc_id"], _filter(rows), verdicts, offsets)


def whole(runs: Sequence[Run], task: str, found: Found) -> Aligned:
    """All that the runs' files say of a sample that was found."""
    files = [run.sample_files.get(task) for run in runs]
    pairs = zip(files, found.offsets, strict=True)
    return tuple(None if file is None or offset is None else row_at(file, offset) for file, offset in pairs)


def chosen_task(run: Run, task: str | None) -> str:
    """The task of this name, or the run's only one. Raises ConfigError."""
    known = list(run.sample_files)
    if task is None:
        if len(known) == 1:
            return known[0]
        raise ConfigError(f"run {run.label} has {len(known)} tasks. Choose one with: --samples {'|'.join(known[:5])}")
    if task not in known:
        raise ConfigError(
            f"run {run.label} has no samples of task {task!r}.{did_you_mean(task, known)} See: evalkit show {run.label}"
        )
    return task


def _check(runs: Sequence[Run], only: str | None) -> None:
    if only is not None and only not in (*VERDICTS, FLIPPED):
        raise ConfigError(f"--only is right, wrong, error or flipped, not {only!r}")
    if only == FLIPPED and len(runs) < 2:
        raise ConfigError("samples flip between two runs. Name the other one with --against RUN")


def _is_wanted(verdicts: str, only: str | None) -> bool:
    if only is None:
        return True
    return is_flipped(verdicts) if only == FLIPPED else verdicts[0] == VERDICTS[only]


def _hits(path: Path | None, search: str) -> set[int]:
    """The offsets of rows that hold a text. Only lines that may hold it are parsed."""
    if path is None:
        return set()
    word = search.lower()
    # Rows are written with and without escapes. Bytes tell upper from lower case only within ASCII.
    escaped = [json.dumps(word, ensure_ascii=plain)[1:-1].lower() for plain in (False, True)]
    as_bytes = [found.encode(errors=ESCAPED) for found in escaped] if word.isascii() else []
    found = set()
    for offset, line in raw_rows(path):
        if _holds(line.lower(), as_bytes) if as_bytes else _holds(line.decode().lower(), escaped):
            row = json.loads(line)
            if any(word in text.lower() for text in texts(row)):
                found.add(offset)
    return found


def _holds(line: T, words: Sequence[T]) -> bool:
    return any(word in line for word in words)


def _first(rows: Aligned) -> Row:
    return next(row for row in rows if row is not None)


def _filter(rows: Aligned) -> str:
    return next((str(row["filter"]) for row in rows if row and not row.get("error")), "none")
