"""From outputs to samples, from samples to numbers, from tasks to groups."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import DocumentError, EvalkitError, one_line
from evalkit.requests import Output
from evalkit.results import Sample
from evalkit.runs.documents import PlannedDoc
from evalkit.runs.plan import Asked, Plan, PlannedTask
from evalkit.statistics.intervals import Interval, combined
from evalkit.statistics.metrics import clustered_interval, metric_interval
from evalkit.tasks.groups import Group, plain_stderr, pooled_stderr, weighted_mean

NO_STDERR = "N/A"


def samples(
    planned: PlannedTask, requests: Sequence[tuple[Asked, ...]], outputs: Mapping[str, Output]
) -> Iterator[Sample]:
    """One sample a document and filter, in document order.

    A document with a failed request has no values, and neither has one whose answers the task cannot judge.
    """
    for item, asked in zip(planned.docs, requests, strict=True):
        answers = tuple(outputs[key] for key, _ in asked)
        yield from _judged(planned, item, asked, answers)


def _judged(
    planned: PlannedTask, item: PlannedDoc, asked: Sequence[Asked], answers: tuple[Output, ...]
) -> list[Sample]:
    """A document's samples; one without values where the task's own code fails."""
    error = item.error or next((answer.error for answer in answers if answer.error), None)
    if error is not None:
        return [_unscored(planned, item, asked, answers, error)]
    try:
        return _scored(planned, item, asked, answers)
    except DocumentError as failure:
        error = str(failure)
    except (EvalkitError, OSError, MemoryError):  # no document's fault
        raise
    except Exception as failure:  # a task is somebody else's code: whatever it raises is its report
        task = planned.task
        error = (
            f"task {task.name!r}: the answers to document {item.doc_id} of split {task.split!r} cannot be judged "
            f"({type(failure).__name__}: {one_line(failure)}). Check that the data is {task.dataset.label}"
        )
    return [_unscored(planned, item, asked, answers, error)]


def _scored(
    planned: PlannedTask, item: PlannedDoc, asked: Sequence[Asked], answers: tuple[Output, ...]
) -> list[Sample]:
    task, doc = planned.task, item.doc
    shared = (task.name, item.doc_id, doc, task.target(doc), tuple(request for _, request in asked), answers)
    more: dict[str, Any] = {"remarks": task.remarks(answers), "cluster": task.cluster(doc) if task.cluster else None}
    found = []
    for name, scored in task.scored(doc, answers, planned.metrics).items():
        scores = {metric.name: metric.score(scored) for metric in planned.metrics}
        values = {metric: value for metric, value in scores.items() if value is not None}
        found.append(Sample(*shared, filter=name, filtered=scored.filtered, values=values, **more))
    return found


def _unscored(
    planned: PlannedTask, item: PlannedDoc, asked: Sequence[Asked], answers: tuple[Output, ...], error: str
) -> Sample:
    requests = tuple(request for _, request in asked)
    target = None
    if not item.error:
        with contextlib.suppress(Exception):  # the error says more
            target = planned.task.target(item.doc)
    shared = (planned.task.name, item.doc_id, item.doc, target, requests, answers)
    return Sample(*shared, filter="none", filtered=None, values={}, error=error)


@dataclass(slots=True)
class Tally:
    """Collects a task's values and makes its row of results."""

    planned: PlannedTask
    values: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    failed: int = 0
    """Documents without a score."""
    unusable: int = 0
    """Those of them that could not be asked about, or not be judged."""
    error: str | None = None
    """Why the first request failed."""
    fault: str | None = None
    """What is wrong with the first unusable document."""
    notes: dict[str, int] = field(default_factory=dict)
    clusters: dict[tuple[str, str], list[Hashable]] = field(default_factory=dict)
    """The cluster of each value."""
    _noted: set[tuple[int, str]] = field(default_factory=set)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        if sample.error is not None:
            self._fail(sample)
        for note in sample.notes:
            # "truncated: 2311 tokens, ..." differs from sample to sample; the summary counts the kind.
            # Each filter makes a sample of its own: a document counts once.
            kind = note.partition(":")[0]
            if (sample.doc_id, kind) not in self._noted:
                self._noted.add((sample.doc_id, kind))
                self.notes[kind] = self.notes.get(kind, 0) + 1
        for name, value in sample.values.items():
            self.values.setdefault((name, sample.filter), []).append(value)
            self.clusters.setdefault((name, sample.filter), []).append(sample.cluster)

    def _fail(self, sample: Sample) -> None:
        self.failed += 1
        if any(output.error for output in sample.outputs):
            self.error = self.error or sample.error
        else:
            self.unusable += 1
            self.fault = self.fault or sample.error

    def row(self) -> dict[str, Any]:
        """Each metric and its standard error under lm-evaluation-harness's keys."""
        row: dict[str, Any] = {}
        metrics = {metric.name: metric for metric in self.planned.metrics}
        for (name, filter_name), values in self.values.items():
            error = metrics[name].stderr(values)
            row[f"{name},{filter_name}"] = metrics[name].aggregate(values)
            row[f"{name}_stderr,{filter_name}"] = NO_STDERR if error is None else error
        return row

    def intervals(self, row: Mapping[str, Any]) -> tuple[dict[str, Interval], dict[str, float]]:
        """By the keys of `row`: 95 % intervals; and the clustered standard errors, where the task declares clusters."""
        intervals: dict[str, Interval] = {}
        errors: dict[str, float] = {}
        metrics = {metric.name: metric for metric in self.planned.metrics}
        for (name, filter_name), values in self.values.items():
            key, metric = f"{name},{filter_name}", metrics[name]
            if self.planned.task.cluster:
                if found := clustered_interval(metric, row[key], values, self.clusters[name, filter_name]):
                    errors[key], intervals[key] = found
                continue
            error = row[_stderr_key(key)]
            if interval := metric_interval(metric, row[key], None if error == NO_STDERR else error, values):
                intervals[key] = interval
        return intervals, errors


def group_rows(
    plan: Plan, rows: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """A row for each group that names metrics: leaf tasks weighted by their documents."""
    found = {}
    for name, (group, leaves) in plan.groups.items():
        row: dict[str, Any] = {}
        for key in _group_keys(group.metrics, [rows[leaf] for leaf in leaves]):
            with_key = [leaf for leaf in leaves if key in rows[leaf]]
            counts = [sizes[leaf] for leaf in with_key]
            row[key] = weighted_mean(
                [rows[leaf][key] for leaf in with_key], counts if group.weighted else [1] * len(counts)
            )
            errors = [rows[leaf][_stderr_key(key)] for leaf in with_key]
            row[_stderr_key(key)] = NO_STDERR if NO_STDERR in errors else _group_error(group, errors, counts)
        if row:
            found[name] = row
    return found


def group_intervals(
    plan: Plan,
    results: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Mapping[str, Interval]],
    sizes: Mapping[str, int],
) -> dict[str, dict[str, Interval]]:
    """Intervals of the groups' rows, where every leaf task has one."""
    found: dict[str, dict[str, Interval]] = {}
    for name, (group, leaves) in plan.groups.items():
        for key in (key for key in results.get(name, {}) if "_stderr," not in key):
            with_key = [leaf for leaf in leaves if key in results[leaf]]
            if all(key in intervals[leaf] for leaf in with_key):
                weights = [sizes[leaf] if group.weighted else 1 for leaf in with_key]
                parts = [
                    (weight / sum(weights), results[leaf][key], intervals[leaf][key])
                    for leaf, weight in zip(with_key, weights, strict=True)
                ]
                found.setdefault(name, {})[key] = combined(results[name][key], parts)
    return found


def _group_error(group: Group, errors: Sequence[float], sizes: Sequence[int]) -> float | str:
    error = pooled_stderr(errors, sizes) if group.weighted else plain_stderr(errors)
    return NO_STDERR if error is None else error


def _group_keys(metrics: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key in metrics or key.partition(",")[0] in metrics]


def _stderr_key(key: str) -> str:
    name, _, filter_name = key.partition(",")
    return f"{name}_stderr,{filter_name}"
