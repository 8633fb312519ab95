"""A task in two runs: each of its metrics, document by document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evalkit.errors import EvalkitError, RunError
from evalkit.plugins import get_plugins
from evalkit.runs.comparable import Scored
from evalkit.runs.compare_row import Row
from evalkit.runs.samples import TaskSamples
from evalkit.statistics.contributions import contributions, costs, is_mean, is_share
from evalkit.statistics.paired import Floats, changes, compare_means, compare_shares
from evalkit.tasks.base import Task
from evalkit.tasks.metrics import Metric, find_metric, mean

Parts = tuple[Floats, Floats]
"""What each shared document contributes to the baseline's value and to the other run's."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A row with what it was made of, for the groups that the task is in."""

    row: Row
    parts: Parts | None = None
    clusters: list[str | None] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A task in two runs."""

    task: str
    baseline: Scored
    other: Scored
    before: TaskSamples
    after: TaskSamples

    def measured(self) -> list[Measured]:
        """Each metric under each filter that some document has in both runs."""
        return [found for key in self.before.values if (found := self._measure(key))]

    def left_out(self, *, strict: bool) -> list[str]:
        """What could not be compared. Raises RunError if `strict` for a metric without any documents."""
        missing = [key for key in self.before.values if not self._shared(key)]
        if strict and missing:
            raise RunError(
                f"task {self.task} has no {missing[0]} in {self.other.name} to compare. "
                f"Ask what failed again with: evalkit resume {self.other.path}"
            )
        found = [f"{self.task}: {key} not compared: not in {self.other.name}" for key in missing]
        fewest = min((len(self._shared(key)) for key in self.before.values if key not in missing), default=0)
        left = len(self.before.documents) - fewest
        if fewest and left:
            reason = f"they have no score in both runs ({self.other.name})"
            found.append(f"{self.task}: {left} documents not compared because {reason}")
        return found

    def _shared(self, key: str) -> list[int]:
        """The documents that have a value in both runs."""
        after = self.after.values.get(key, {})
        return [doc_id for doc_id in self.before.values[key] if doc_id in after]

    def _measure(self, key: str) -> Measured | None:
        shared = self._shared(key)
        name, _, filter_name = key.rpartition(",")
        higher = self.baseline.results.get("higher_is_better", {}).get(self.task, {}).get(name, True)
        base = (self.other.name, self.task, name, filter_name, higher, len(shared))
        reported = [run.results["results"].get(self.task, {}).get(key) for run in (self.baseline, self.other)]
        if not shared or not all(isinstance(value, (int, float)) for value in reported):
            return None
        metric = _metric(self.task, name, reported, [list(run.values[key].values()) for run in self._sides])
        if metric is None:
            # How documents make the number is not known here: both numbers are, as the runs reported them.
            return Measured(Row(*base, reported[0], reported[1], reported[1] - reported[0]))
        old, new = ([side.values[key][i] for i in shared] for side in self._sides)
        was, now = metric.aggregate(old), metric.aggregate(new)
        # A document that has no cluster is in one with the others that have none, as in its run's own intervals.
        clusters = [self.before.clusters.get(i) for i in shared] if self.before.clusters else None
        parts = _contributed(metric, was, old), _contributed(metric, now, new)
        row = _flips(Row(*base, was, now, now - was), shared, metric, (old, new), parts)
        if parts[0] is None or parts[1] is None:
            return Measured(row)
        return Measured(_tested(row, (parts[0], parts[1]), clusters), (parts[0], parts[1]), clusters)

    @property
    def _sides(self) -> tuple[TaskSamples, TaskSamples]:
        return self.before, self.after


def _metric(task: str, name: str, reported: Sequence[float], values: Sequence[Sequence[Any]]) -> Metric | None:
    """How a metric's values make its number: by their mean, if that gives what was reported, else as its task says."""
    if all(is_mean(value, items) for value, items in zip(reported, values, strict=True)):
        return Metric(name, lambda scored: None, mean)
    from evalkit.runs.plan import load_task

    try:
        found = load_task(task)
        metrics = [find_metric(metric) for metric in found.metrics] if isinstance(found, Task) else []
    except EvalkitError:
        # The plugin of the task may not be installed where runs are compared.
        metrics = list(get_plugins().metrics)
    return next((metric for metric in metrics if metric.name == name), None)


def _contributed(metric: Metric, value: float, values: Sequence[Any]) -> Floats | None:
    return contributions(metric.aggregate, value, values) if math.isfinite(value) else None


def _tested(row: Row, parts: Parts, clusters: Sequence[str | None] | None) -> Row:
    """`row` with its statistics."""
    shares = clusters is None and all(is_share(part.tolist()) for part in parts)
    paired = compare_shares(*parts) if shares else compare_means(*parts, clusters)
    return replace(
        row, interval=paired.interval, p_value=paired.p_value, test=paired.test, detectable=paired.detectable
    )


def _flips(
    row: Row,
    shared: Sequence[int],
    metric: Metric,
    values: tuple[Sequence[Any], Sequence[Any]],
    parts: tuple[Floats | None, Floats | None],
) -> Row:
    """`row` with the documents that the other run answers worse, and better."""
    old, new = (costs(metric.aggregate, items) for items in values)
    old, new = parts if old is None else (old, new)
    if old is None or new is None:
        return row
    gains = changes(old, new) if row.higher_is_better else changes(new, old)
    worse, better = np.flatnonzero(gains < 0).tolist(), np.flatnonzero(gains > 0).tolist()
    return replace(row, worse=tuple(shared[i] for i in worse), better=tuple(shared[i] for i in better))
