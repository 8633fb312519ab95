"""A group of tasks in two runs: its number from all documents of its tasks, weighted as the group weighs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalkit.runs.comparable import Scored
from evalkit.runs.compare_row import Row
from evalkit.runs.compare_task import Measured
from evalkit.statistics.stratified import Stratum, compare_strata
from evalkit.tasks.groups import weighted_mean

ByTask = Mapping[str, Mapping[str, Measured]]
"""By task, by "metric,filter"."""


def group_comparison(baseline: Scored, other: Scored, measured: ByTask) -> tuple[list[Row], list[str]]:
    """A row for each metric of each group of the baseline whose tasks both runs have; and what was left out."""
    rows, remarks = [], []
    for name, tasks in baseline.groups.items():
        if reason := _unlike(name, baseline, other, measured):
            remarks.append(f"{name} not compared: {reason}")
            continue
        for key in baseline.metrics_of(name):
            leaves = [measured[task][key] for task in tasks if key in measured.get(task, {})]
            if leaves:
                rows.append(_row(name, other.name, leaves, weighted=baseline.weighted[name]))
    return rows, remarks


def _unlike(name: str, baseline: Scored, other: Scored, measured: ByTask) -> str | None:
    """Why a group cannot be compared. The other run need not have been asked for it by its name."""
    tasks = baseline.groups[name]
    if name not in baseline.weighted:
        return f"{baseline.name}, of an older evalkit, does not say how it weighs its tasks"
    if name in other.groups and set(other.groups[name]) != set(tasks):
        return f"it has other tasks in {other.name}"
    if other.weighted.get(name, baseline.weighted[name]) != baseline.weighted[name]:
        return f"{other.name} weighs its tasks in another way"
    for key in baseline.metrics_of(name):
        for task in tasks:
            if key in baseline.results["results"].get(task, {}) and key not in measured.get(task, {}):
                return f"{task} has no {key} in both runs"
    return None


def _row(name: str, run: str, leaves: Sequence[Measured], *, weighted: bool) -> Row:
    rows = [leaf.row for leaf in leaves]
    weights = [row.documents if weighted else 1 for row in rows]
    before, after = (weighted_mean([getattr(row, side) for row in rows], weights) for side in ("baseline", "value"))
    strata = [
        Stratum(*leaf.parts, weight, leaf.clusters)
        for leaf, weight in zip(leaves, weights, strict=True)
        if leaf.parts is not None
    ]
    paired = compare_strata(strata) if len(strata) == len(leaves) else None
    return Row(
        run=run,
        task=name,
        metric=rows[0].metric,
        filter=rows[0].filter,
        higher_is_better=rows[0].higher_is_better,
        documents=sum(row.documents for row in rows),
        baseline=before,
        value=after,
        difference=after - before,
        interval=paired.interval if paired else None,
        p_value=paired.p_value if paired else None,
        test=paired.test if paired else None,
        detectable=paired.detectable if paired else None,
        parts=tuple(rows),
    )
