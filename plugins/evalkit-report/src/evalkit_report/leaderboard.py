"""The runs of a folder beside each other: one row a run, one column a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.costs import Cost
from evalkit.errors import RunError
from evalkit.reading.finished import Run, open_run
from evalkit.reading.summary import Score, cost, label, scores
from evalkit.runs.folder import MANIFEST, RESULTS, RunFolder, list_runs

SPEED = (
    ("Tokens in", "in_rate", "a second", 0),
    ("Tokens out", "out_rate", "a second", 0),
    ("Inference", "inference", "seconds", 1),
    ("Joules", "joules_per_1000", "for 1,000 tokens", 1),
)
"""Columns of speed and cost: a heading, the field of Cost, its unit and decimals."""


@dataclass(frozen=True, slots=True)
class Column:
    """A task and its first metric."""

    task: str
    metric: str
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A run; `cells` follow the columns, None where the run lacks the task."""

    name: str
    model: str
    engine: str
    created: str
    state: str
    is_finished: bool
    cells: tuple[Score | None, ...] = ()
    cost: Cost | None = None


def run_paths(root: Path) -> dict[str, Path]:
    """The runs below `root` by their path in it. What leads out of the folder is left out."""
    inside = root.resolve()
    found = {}
    for path in list_runs(root):
        files = [path, *(entry for entry in path.iterdir() if entry.name in (MANIFEST, RESULTS) or _is_samples(entry))]
        if all(file.resolve().is_relative_to(inside) for file in files):
            found[path.resolve().relative_to(inside).as_posix()] = path
    return found


def leaderboard(root: Path) -> tuple[list[Column], list[Entry]]:
    """The columns, and the runs, youngest first. A damaged run is shown as such."""
    opened = [(name, path, _opened(name, path)) for name, path in reversed(run_paths(root).items())]
    by_run = {name: _first_metrics(run) for name, _, run in opened if run is not None}
    keys = {(s.task, s.metric, s.filter): s for cells in by_run.values() for s in cells.values()}
    columns = [Column(s.task, label(f"{s.metric},{s.filter}"), s.higher_is_better) for s in keys.values()]
    return columns, [_entry(name, path, run, by_run.get(name, {}), list(keys)) for name, path, run in opened]


Key = tuple[str, str, str]


def _first_metrics(run: Run) -> dict[Key, Score]:
    """The first metric of every task."""
    first: dict[str, Score] = {}
    for score in scores([run]):
        first.setdefault(score.task, score)
    return {(s.task, s.metric, s.filter): s for s in first.values()}


def _opened(name: str, path: Path) -> Run | None:
    try:
        return open_run(path, name, with_samples=False)
    except RunError:
        return None


def _entry(name: str, path: Path, run: Run | None, found: dict[Key, Score], keys: Sequence[Key]) -> Entry:
    try:
        manifest = run.manifest if run else RunFolder.open(path).manifest()
    except RunError:
        return Entry(name, "", "", "", "damaged", False, (None,) * len(keys))
    spec = manifest.get("spec", {})
    state = manifest.get("status", "") if run else "not finished"
    cells = tuple(found.get(key) for key in keys)
    facts = (spec.get("model", ""), spec.get("engine", ""), manifest.get("created", ""), state)
    return Entry(name, *facts, run is not None, cells, cost(run) if run else None)


def _is_samples(path: Path) -> bool:
    return path.name.startswith("samples_") and path.suffix == ".jsonl"
