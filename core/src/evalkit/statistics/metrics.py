"""The 95 % interval of a task's metric: which method fits which kind of metric."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from evalkit.statistics.bootstrap import bootstrap
from evalkit.statistics.contributions import ROUNDING, Aggregate, contributions, is_mean, is_share
from evalkit.statistics.intervals import Interval, clustered_error, on_log_scale, student, wilson
from evalkit.tasks.metrics import Metric, target_perplexity, weighted_perplexity

PERPLEXITIES: tuple[Aggregate, ...] = (target_perplexity, weighted_perplexity)


def metric_interval(metric: Metric, value: float, error: float | None, values: Sequence[Any]) -> Interval | None:
    """The interval of `value`, the aggregate of independent documents, with its standard error where there is one.

    Wilson for shares, Student's t for other means and whatever has a standard error (for perplexities on the scale of
    logarithms), the bootstrap for the rest. None where nothing can be said: a single document, equal values, an
    infinite perplexity.
    """
    if not math.isfinite(value):
        return None
    if is_mean(value, values) and is_share(values):
        low, high = wilson(sum(values), len(values))
        return float(low), float(high)
    if error is not None:
        return _around(metric, value, error, len(values) - 1, values)
    return _resampled(metric, value, values) if len(values) > 1 else None


def clustered_interval(
    metric: Metric, value: float, values: Sequence[Any], clusters: Sequence[Hashable]
) -> tuple[float, Interval] | None:
    """Standard error and interval where documents of a cluster are alike. None with fewer than two clusters."""
    parts = contributions(metric.aggregate, value, values) if math.isfinite(value) else None
    found = None if parts is None else clustered_error(parts, clusters)
    if found is None:
        return None
    error, count = found
    interval = _around(metric, value, error, count - 1, values)
    return None if interval is None else (error, interval)


def _around(metric: Metric, value: float, error: float, freedom: int, values: Sequence[Any]) -> Interval | None:
    # Without any spread nothing says how far other documents might be: an interval of no width would claim to know.
    if freedom < 1 or not math.isfinite(error) or error <= ROUNDING * abs(value):
        return None
    if metric.aggregate in PERPLEXITIES:
        low, high = on_log_scale(value, error, freedom)
        return (low, high) if math.isfinite(high) else None
    low, high = student(value, error, freedom)
    if is_mean(value, values) and min(values) >= 0 and max(values) <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return float(low), float(high)


def _resampled(metric: Metric, value: float, values: Sequence[Any]) -> Interval | None:
    try:
        return bootstrap(metric.aggregate, value, values)
    except Exception:
        # An aggregate from elsewhere may refuse a resample (one class only, say). The score itself stands.
        return None
