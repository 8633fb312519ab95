"""Two systems on several tasks: the difference of a weighted sum of task means, each task being a stratum."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.statistics.contributions import is_share
from evalkit.statistics.intervals import LEVEL, cluster_sums, normal_quantile
from evalkit.statistics.paired import Floats, Paired, around, changes, mcnemar, permutation
from evalkit.statistics.power import smallest_difference


@dataclass(frozen=True, slots=True)
class Stratum:
    """A task in both systems: what each document contributes, the task's weight, its clusters where it has any."""

    before: Floats
    after: Floats
    weight: float
    clusters: Sequence[Hashable] | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """The documents' parts of the whole difference (their sum is the task's), and which of them belong together."""

    gains: Floats
    units: Sequence[Hashable]

    @property
    def size(self) -> int:
        return len(set(self.units))

    def variance(self) -> float:
        """Of the sum of gains: Liang and Zeger's, which without clusters is the plain one."""
        sums = cluster_sums(self.gains - self.gains.mean(), self.units)
        return float((sums**2).sum()) * len(sums) / (len(sums) - 1)


def compare_strata(strata: Sequence[Stratum]) -> Paired:
    """The weighted difference. Signs flip within tasks, and only the spread within tasks makes its error."""
    total = sum(stratum.weight for stratum in strata)
    parts = [_part(stratum, index, total) for index, stratum in enumerate(strata)]
    difference = float(sum(part.gains.sum() for part in parts))
    variances, freedoms = _variances(parts)
    if _are_pooled_shares(strata):
        return _shares(strata, difference, sum(variances))
    signed = np.concatenate([cluster_sums(part.gains, part.units) for part in parts])
    error, p_value = sum(variances) ** 0.5, permutation(signed)
    return around(difference, error, _satterthwaite(variances, freedoms), p_value)


def _part(stratum: Stratum, index: int, total: float) -> _Part:
    gains = changes(stratum.before, stratum.after)
    units = range(len(gains)) if stratum.clusters is None else stratum.clusters
    return _Part(gains * (stratum.weight / total / len(gains)), [(index, unit) for unit in units])


def _variances(parts: Sequence[_Part]) -> tuple[list[float], list[int]]:
    """The variance of each task's part, and its degrees of freedom.

    Tasks of a single document have no spread of their own: together, or with the smallest other task, they make a
    stratum (Cochran 1977, 5A.12, "collapsed strata"), which errs on the large side.
    """
    ordered = sorted(parts, key=lambda part: part.size)
    single = sum(part.size < 2 for part in ordered)
    taken = max(single, 2) if single else 0
    merged = ordered[taken:]
    if taken:
        some = ordered[:taken]
        merged.append(_Part(np.concatenate([part.gains for part in some]), [unit for p in some for unit in p.units]))
    usable = [part for part in merged if part.size > 1]
    return [part.variance() for part in usable], [part.size - 1 for part in usable]


def _satterthwaite(variances: Sequence[float], freedoms: Sequence[int]) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946)."""
    below = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return sum(variances) ** 2 / below if below else 1.0


def _are_pooled_shares(strata: Sequence[Stratum]) -> bool:
    """Whether the whole is one share: of right answers, each document counting the same."""
    shares = all(is_share(stratum.before.tolist()) and is_share(stratum.after.tolist()) for stratum in strata)
    sizes = {stratum.weight / len(stratum.before) for stratum in strata}
    return shares and max(sizes) - min(sizes) < 1e-9 * max(sizes) and all(s.clusters is None for s in strata)


def _shares(strata: Sequence[Stratum], difference: float, variance: float) -> Paired:
    """McNemar's exact test holds for all tasks together: in each, both directions are equally likely by chance.

    The interval is Bonett and Price's with the spread within tasks in place of that of all documents.
    """
    before, after = (np.concatenate([getattr(s, side) for s in strata]) for side in ("before", "after"))
    worse, better, count = int((after < before).sum()), int((after > before).sum()), len(before)
    # One change of either kind is added, each of them about 1 from the mean.
    adjusted = (variance * count**2 + 2) / (count + 2) ** 2
    centre, half = (better - worse) / (count + 2), normal_quantile((1 + LEVEL) / 2) * adjusted**0.5
    interval = (max(centre - half, -1.0), min(centre + half, 1.0))
    p_value = float(mcnemar(worse, better))
    return Paired(difference, interval, p_value, "McNemar", smallest_difference(adjusted, 1))
