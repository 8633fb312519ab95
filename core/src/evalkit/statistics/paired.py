"""Two systems on the same documents: the difference, its interval, and how likely chance alone makes one as large."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.statistics.intervals import LEVEL, Interval, cluster_sums, clustered_error, normal_quantile, student
from evalkit.statistics.power import smallest_difference

DRAWS = 9_999
ALL_SIGNS = 13
"""Differences of which all combinations of signs are tried: no more than there would be draws."""
EXACT_SIGNS = 1_000
"""Differences whose signs are drawn one by one; the smaller rest is a sum of many, which is normal."""
SEED = 1234
SAME = 1e-12
"""Relative differences up to this are those of rounding."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean difference; `interval` and `detectable` are None where nothing can be said: all differences are equal."""

    difference: float
    interval: Interval | None
    p_value: float
    test: str
    detectable: float | None


def compare_shares(before: Floats, after: Floats) -> Paired:
    """Right or wrong on each document: McNemar's exact test, the interval of Bonett and Price (2012)."""
    worse, better, count = int((after < before).sum()), int((after > before).sum()), len(before)
    variance = adjusted_variance(worse, better, count)
    low, high = bonett_price(worse, better, count)
    return Paired(
        difference=(better - worse) / count,
        interval=(float(low), float(high)),
        p_value=float(mcnemar(worse, better)),
        test="McNemar",
        detectable=smallest_difference(float(variance), count),
    )


def compare_means(before: Floats, after: Floats, clusters: Sequence[Hashable] | None = None) -> Paired:
    """Any values: Student's paired interval, and a test that flips the signs of differences (of whole clusters)."""
    gains = changes(before, after)
    found = clustered_error(gains, range(len(gains)) if clusters is None else clusters)
    signed = gains if clusters is None else cluster_sums(gains, clusters)
    error, units = found or (0.0, 1)
    return around(float(gains.mean()), error, units - 1, permutation(signed))


def around(difference: float, error: float, freedom: float, p_value: float) -> Paired:
    """The result of a sign-flip test with Student's interval; without an error there is none."""
    if error <= SAME * abs(difference):
        return Paired(difference, None, p_value, "permutation", None)
    low, high = student(difference, error, freedom)
    return Paired(difference, (float(low), float(high)), p_value, "permutation", smallest_difference(error**2, 1))


def changes(before: Floats, after: Floats) -> Floats:
    """`after` less `before` with exact zeros where only rounding differs; infinities may be equal, too."""
    with np.errstate(invalid="ignore"):
        gains = after - before
        same = np.abs(gains) <= SAME * np.maximum(np.abs(before), np.abs(after))
    finite = np.isfinite(before) & np.isfinite(after)
    return np.where((before == after) | (same & finite), 0.0, gains)


def mcnemar(worse: Any, better: Any) -> Any:
    """Exact two-sided p-value: among the documents that changed, both directions are equally likely by chance."""
    from scipy.special import bdtr

    worse, better = np.asarray(worse), np.asarray(better)
    return np.minimum(1.0, 2 * bdtr(np.minimum(worse, better), worse + better, 0.5))


def adjusted_variance(worse: Any, better: Any, count: Any) -> Any:
    """Variance of one document's change, with one change of either kind added: never zero."""
    lost, won = (worse + 1) / (count + 2), (better + 1) / (count + 2)
    return lost + won - (won - lost) ** 2


def bonett_price(worse: Any, better: Any, count: Any) -> tuple[Any, Any]:
    """The adjusted Wald interval for a difference of paired shares."""
    centre = (better - worse) / (count + 2)
    half = normal_quantile((1 + LEVEL) / 2) * np.sqrt(adjusted_variance(worse, better, count) / (count + 2))
    return np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)


def permutation(gains: Floats, *, draws: int = DRAWS, seed: int = SEED) -> float:
    """Two-sided p-value of a sum of differences under random signs; the same for the same values.

    By chance, either system might have been the better one on any document, so that each sign is a coin.
    """
    sizes = np.sort(np.abs(gains[gains != 0]))[::-1]
    if not len(sizes):
        return 1.0
    if len(sizes) <= ALL_SIGNS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(sizes))))
        return float(_as_large(signs @ sizes, gains, sizes).mean())
    generator = np.random.default_rng(seed)
    largest, rest = sizes[:EXACT_SIGNS], sizes[EXACT_SIGNS:]
    sums = _signed_sums(largest, draws, generator)
    if len(rest):
        sums = sums + generator.normal(0.0, float(np.sqrt((rest**2).sum())), draws)
    return float((1 + _as_large(sums, gains, sizes).sum()) / (draws + 1))


def _as_large(sums: Floats, gains: Floats, sizes: Floats) -> NDArray[np.bool_]:
    # Equal sums differ in their last digits by the order of addition.
    return np.asarray(np.abs(sums) >= abs(gains.sum()) - SAME * sizes.sum())


def _signed_sums(sizes: Floats, draws: int, generator: np.random.Generator) -> Floats:
    bits = generator.integers(0, 256, size=(draws, -(-len(sizes) // 8)), dtype=np.uint8)
    chosen = np.unpackbits(bits, axis=1, count=len(sizes))
    return np.asarray(2 * (chosen @ sizes) - sizes.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): claims below 5 % are all true with 95 % certainty."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
