"""Read sample files, line by line: whole rows, or of each row only what is behind its texts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from evalkit.errors import RunError

Row = dict[str, Any]
T = TypeVar("T")
HEAD = re.compile(rb'\{"doc_id": (\d+), ')
# Inside a JSON text each quote has a backslash before it: these can only begin the row's own fields.
TAIL = b'"filter": "'
FILTERED = b'"filtered_resps": '
SCORED = (b"true]]], ", b"false]]], ")
NEEDED = ("doc_id", "filter", "metrics")
BUFFER = 1 << 20
PREFIX, SUFFIX = "samples_", ".jsonl"
OFFSET = "@"
"""Where in its file a light row begins, in bytes; no metric is named so."""


class Document(NamedTuple):
    """What must be the same for two answers to be comparable."""

    doc_hash: str | None
    prompt_hash: str | None


@dataclass(slots=True)
class TaskSamples:
    """A task's documents by id, and by "metric,filter" the value of each document that was scored."""

    documents: dict[int, Document] = field(default_factory=dict)
    values: dict[str, dict[int, Any]] = field(default_factory=dict)
    clusters: dict[int, Any] = field(default_factory=dict)


def sample_name(task: str) -> str:
    """The name of a task's sample file."""
    return f"{PREFIX}{task}{SUFFIX}"


def sample_path(run: Path, task: str) -> Path:
    """Where a run keeps a task's samples."""
    return run / sample_name(task)


def sample_files(run: Path) -> dict[str, Path]:
    """The sample files of a run by task, in the order of their names."""
    found = sorted(run.glob(f"{PREFIX}*{SUFFIX}"))
    return {path.name.removeprefix(PREFIX).removesuffix(SUFFIX): path for path in found}


def sample_rows(path: Path) -> Iterator[Row]:
    """Every row of a sample file, one in memory at a time. Raises RunError where it is missing or damaged."""
    return _parsed(path, lambda line, _: _whole(line, (*NEEDED, "arguments", "resps")))


def light_rows(path: Path, *, choices: bool = True) -> Iterator[Row]:
    """The rows without document, prompts and answers, which are most of them, and with their OFFSET. Raises RunError.

    The log-probabilities of `choices` are there, as `filtered_resps`.
    """

    def light(line: bytes, offset: int) -> Row:
        row = _without_texts(line, choices) or _whole(line, NEEDED)
        row[OFFSET] = offset
        return row

    return _parsed(path, light)


def raw_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """The offset of every row and its JSON, unread: to search in before it is parsed. Raises RunError."""
    return _parsed(path, lambda line, offset: (offset, line))


def row_at(path: Path, offset: int) -> Row:
    """The whole row that begins at an OFFSET."""
    with path.open("rb") as file:
        file.seek(offset)
        return _whole(file.readline(), NEEDED)


def describe_files(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """By name, what results.json keeps of sample files: their sizes and the hashes of their bytes."""
    return {name: {"bytes": path.stat().st_size, "sha256": _hash(path)} for name, path in files.items()}


def check_samples(run: Path, results: Mapping[str, Any], tasks: Iterable[str], *, every_byte: bool = False) -> None:
    """Raise RunError where a task's sample file is missing or cut; with `every_byte` also where it is changed.

    Runs of older versions do not say how their files were: there only missing ones are noticed.
    """
    known = results.get("sample_files", {})
    for path in (sample_path(run, task) for task in tasks):
        expected = known.get(path.name, {})
        again = f"Make it again with: evalkit resume {run}"
        if not path.is_file():
            raise RunError(f"{path} is missing. {again}")
        size = path.stat().st_size
        # A larger one was edited, which is its owner's business.
        if size < expected.get("bytes", 0):
            raise RunError(f"{path} is damaged ({size} of {expected['bytes']} bytes are left). {again}")
        if every_byte and expected and _hash(path) != expected["sha256"]:
            raise RunError(f"{path} was changed. {again}")


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_samples(path: Path) -> TaskSamples:
    """The values in a sample file. Raises RunError where it is missing or damaged."""
    found = TaskSamples()
    for row in light_rows(path, choices=False):
        doc_id = row["doc_id"]
        found.documents.setdefault(doc_id, Document(row.get("doc_hash"), row.get("prompt_hash")))
        if "cluster" in row:
            found.clusters[doc_id] = json.dumps(row["cluster"])
        for name in row["metrics"]:
            found.values.setdefault(f"{name},{row['filter']}", {})[doc_id] = row[name]
    return found


def _parsed(path: Path, parse: Callable[[bytes, int], T]) -> Iterator[T]:
    """What `parse` makes of every line and its offset."""
    offset = number = 0
    try:
        with path.open("rb", buffering=BUFFER) as lines:
            for line in lines:
                number += 1
                yield parse(line, offset)
                offset += len(line)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing. Make it again with: evalkit resume {path.parent}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}"
        again = f"Make it again with: evalkit resume {path.parent}"
        raise RunError(f"{path}, line {number} is damaged ({cause}). {again}") from error


def _whole(line: bytes, needed: tuple[str, ...]) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict) or not set(needed) <= set(row) or any(name not in row for name in row["metrics"]):
        raise ValueError("no sample")
    return {**row, "doc_id": int(row["doc_id"])}


def _without_texts(line: bytes, choices: bool = True) -> Row | None:
    """The fields of a row behind its texts; None for rows of another form."""
    head, tail = HEAD.match(line), line.rfind(TAIL)
    if head is None or tail < 0:
        return None
    try:
        # As text: of bytes the parser would first guess the encoding.
        row: Row = json.loads("{" + line[_begin(line, tail) if choices else tail :].decode())
    except ValueError:
        return None
    if not isinstance(row.get("metrics"), list) or "doc_hash" not in row:
        return None
    row["doc_id"] = int(head[1])
    return row


def _begin(line: bytes, tail: int) -> int:
    """Where to read a row from: `filtered_resps` where the responses before it are log-probabilities, else `tail`."""
    start = line.rfind(FILTERED, 0, tail)
    value = line[start + len(FILTERED) : tail]
    if start < 0 or not line.endswith(SCORED, 0, start) or not value.startswith(b"[") or b'"' in value:
        return tail
    return start
