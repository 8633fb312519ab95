"""Read what a report is made of from run folders: run.json, results.json and the rows of sample files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from evalkit.errors import RunError
from evalkit.runs.folder import RunFolder
from evalkit.runs.samples import check_samples

Row = dict[str, Any]
Aligned = tuple[Row | None, ...]
"""The rows of one document and filter, one a run; None where a run has no such row."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run; `label` tells it from the others of the report."""

    label: str
    path: Path
    manifest: dict[str, Any]
    results: dict[str, Any]

    @property
    def sample_files(self) -> dict[str, Path]:
        """The sample file of every task, by task."""
        found = sorted(self.path.glob("samples_*.jsonl"))
        files = {file.name.removeprefix("samples_").removesuffix(".jsonl"): file for file in found}
        known = [task for task in self.results.get("versions", {}) if task in files]
        return {task: files[task] for task in dict.fromkeys([*known, *files])}

    @property
    def higher_is_better(self) -> dict[str, dict[str, bool]]:
        """By task and metric."""
        found: dict[str, dict[str, bool]] = self.results.get("higher_is_better", {})
        return found


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Finished runs. Raises RunError where one is not finished, damaged, or named twice."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise RunError("a run is named twice. Name each run once")
    names = [path.name for path in resolved]
    labels = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return [open_run(path, label) for path, label in zip(paths, labels, strict=True)]


def open_run(path: Path, label: str) -> Run:
    """A finished run. Raises RunError."""
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    results = folder.results()
    if not isinstance(manifest.get("spec"), dict):
        raise RunError(f"run {path} lacks its spec, perhaps written by another program. Start the run again")
    check_samples(path, results, results.get("versions", ()))
    return Run(label, path, manifest, results)


def tasks_of(runs: Sequence[Run]) -> list[str]:
    """Tasks that have samples in any of the runs."""
    return list(dict.fromkeys(task for run in runs for task in run.sample_files))


def aligned(runs: Sequence[Run], task: str) -> Iterator[Aligned]:
    """The rows of a task side by side. Rows of one document that differ in its content are kept apart."""
    streams = [_documents(run.sample_files.get(task)) for run in runs]
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


def _documents(file: Path | None) -> Iterator[tuple[int, list[Row]]]:
    """Rows by document, which stand in the order of their numbers."""
    for doc_id, rows in groupby(_rows(file), key=lambda row: int(row["doc_id"])):
        yield doc_id, list(rows)


def _rows(file: Path | None) -> Iterator[Row]:
    if file is None:
        return
    with file.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                int(row["doc_id"])
            except (ValueError, TypeError, KeyError) as error:
                raise RunError(
                    f"line {number} of {file} is damaged. Make it again with: evalkit resume {file.parent}"
                ) from error
            yield row
