"""The golden check of a task: right answers must score as right, and wrong ones as wrong. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.runs.documents import PlannedDoc
from evalkit.runs.plan import PlannedTask
from evalkit.tasks.base import checked

Key = tuple[str, str]
"""A metric and a filter."""


@dataclass(frozen=True, slots=True)
class Golden:
    """What a metric makes of right and of wrong answers; `missed` are documents whose right answers gain nothing."""

    metric: str
    filter: str
    right: float
    wrong: float
    missed: tuple[int, ...]


def golden_check(planned: PlannedTask) -> list[Golden]:
    """A row for each metric and filter; none where nobody can say what a right answer is."""
    docs = [item for item in planned.docs if not item.error]
    right = [_values(planned, item, right=True) for item in docs]
    wrong = [_values(planned, item, right=False) for item in docs]
    keys = dict.fromkeys(key for values in right for key in values)
    metrics = {metric.name: metric for metric in planned.metrics}
    found = []
    for name, filter_name in keys:
        key, metric = (name, filter_name), metrics[name]
        scores = [(item.doc_id, a[key], b[key]) for item, a, b in zip(docs, right, wrong, strict=True) if key in a]
        missed = tuple(doc_id for doc_id, a, b in scores if _is_missed(a, b))
        best, worst = (metric.aggregate([score[side] for score in scores]) for side in (1, 2))
        found.append(Golden(name, filter_name, best, worst, missed))
    return found


def _values(planned: PlannedTask, item: PlannedDoc, *, right: bool) -> Mapping[Key, Any]:
    task = planned.task
    outputs = checked(task, item.doc_id, item.doc, lambda doc: task.golden(doc, planned.metrics, right=right))
    if outputs is None:
        return {}
    scored = task.scored(item.doc, outputs, planned.metrics)
    pairs = {(metric.name, name): metric.score(value) for name, value in scored.items() for metric in planned.metrics}
    return {key: value for key, value in pairs.items() if value is not None}


def _is_missed(right: Any, wrong: Any) -> bool:
    """Whether a right answer is worth no more than a wrong one. Values that only add up to a number cannot say."""
    if not isinstance(right, int | float) or not isinstance(wrong, int | float):
        return False
    return right <= wrong
