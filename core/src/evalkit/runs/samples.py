"""Read the values of a finished run's sample files: line by line, and of each line only what is behind its texts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.errors import RunError

HEAD = re.compile(rb'\{"doc_id": (\d+), ')
# Inside a JSON text each quote has a backslash before it: this can only begin the row's own field.
TAIL = b'"filter": "'
BUFFER = 1 << 20
PREFIX, SUFFIX = "samples_", ".jsonl"


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


def sample_path(run: Path, task: str) -> Path:
    """Where a run keeps a task's samples."""
    return run / f"{PREFIX}{task}{SUFFIX}"


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
    try:
        for row in _rows(path):
            doc_id = int(row["doc_id"])
            found.documents.setdefault(doc_id, Document(row.get("doc_hash"), row.get("prompt_hash")))
            if "cluster" in row:
                found.clusters[doc_id] = json.dumps(row["cluster"])
            for name in row["metrics"]:
                found.values.setdefault(f"{name},{row['filter']}", {})[doc_id] = row[name]
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing. Make it again with: evalkit resume {path.parent}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}). Make it again with: evalkit resume {path.parent}"
        ) from error
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb", buffering=BUFFER) as lines:
        for line in lines:
            yield _without_texts(line) or json.loads(line)


def _without_texts(line: bytes) -> dict[str, Any] | None:
    """The fields of a row but document, prompts and answers, which are most of it; None for rows of another form."""
    head, tail = HEAD.match(line), line.rfind(TAIL)
    if head is None or tail < 0:
        return None
    try:
        row = json.loads(b"{" + line[tail:])
    except ValueError:
        return None
    return {**row, "doc_id": int(head[1])} if "metrics" in row and "doc_hash" in row else None
