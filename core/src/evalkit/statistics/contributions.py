"""What each document contributes to a metric: numbers whose mean is the metric and whose spread gives its error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.tasks.metrics import bits_per_unit, target_perplexity, weighted_perplexity

Aggregate = Callable[[Sequence[Any]], float]
JACKKNIFE_WORK = 500_000
"""Values read at most by leaving documents out one after the other: about a second of Python."""
ROUNDING = 1e-9


def is_mean(value: float, values: Sequence[Any]) -> bool:
    """Whether `value`, which some aggregate made of `values`, is their mean."""
    if not all(isinstance(item, (int, float)) for item in values):
        return False
    return math.isclose(value, math.fsum(values) / len(values), rel_tol=ROUNDING, abs_tol=ROUNDING)


def is_share(values: Sequence[Any]) -> bool:
    """Whether every value is 0 or 1."""
    return all(item in (0, 1) for item in values)


def contributions(aggregate: Aggregate, value: float, values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Each document's contribution to `value`, the aggregate of `values`; None where nobody can know it in time.

    Aggregates that are no means are linearised (influence functions); the mean of the result is `value`.
    """
    if is_mean(value, values):
        return np.asarray(values, float)
    if aggregate is target_perplexity:
        logprobs = np.asarray(values, float)
        return np.asarray(value + value * (logprobs.mean() - logprobs))
    if aggregate in (weighted_perplexity, bits_per_unit):
        rest = _ratio_residuals(values)
        return value + (value * rest if aggregate is weighted_perplexity else rest / math.log(2))
    return _left_out(aggregate, value, values)


def costs(aggregate: Aggregate, values: Sequence[Any]) -> NDArray[np.float64] | None:
    """For perplexities, what each document alone costs (negative log-probability); None for other aggregates.

    Which of two answers to a document is better is told by these: contributions depend on all documents.
    """
    if aggregate is target_perplexity:
        return -np.asarray(values, float)
    if aggregate in (weighted_perplexity, bits_per_unit):
        return -np.asarray(values, float)[:, 0]
    return None


def _ratio_residuals(pairs: Sequence[tuple[float, int]]) -> NDArray[np.float64]:
    logprobs, units = np.asarray(pairs, float).T
    return np.asarray((-logprobs + logprobs.sum() / units.sum() * units) / units.mean())


def _left_out(aggregate: Aggregate, value: float, values: Sequence[Any]) -> NDArray[np.float64] | None:
    """The jackknife. Equal values have equal influence, so that each distinct one is left out once."""
    keys = [_hashable(item) for item in values]
    distinct = Counter(keys)
    if len(values) < 2 or len(distinct) * len(values) > JACKKNIFE_WORK:
        return None
    influence = {}
    for key in distinct:
        at = keys.index(key)
        try:
            without = aggregate([*values[:at], *values[at + 1 :]])
        except Exception:
            # An aggregate from elsewhere may refuse what is left (one class only, say). The score itself stands.
            return None
        influence[key] = (len(values) - 1) * (value - without)
    found = np.array([influence[key] for key in keys])
    return np.asarray(value + found - found.mean())


def _hashable(value: Any) -> Any:
    """`value` with its lists made tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
