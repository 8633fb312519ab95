"""Compare finished runs document by document; the first one is the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalkit.runs.comparable import Scored, check_documents, check_tasks
from evalkit.runs.compare_group import group_comparison
from evalkit.runs.compare_row import Row
from evalkit.runs.compare_task import Measured, Pair
from evalkit.runs.samples import TaskSamples
from evalkit.statistics.paired import holm


def compare_runs(
    runs: Sequence[tuple[str, Path]], *, any_prompts: bool = False, strict: bool = False
) -> tuple[list[Row], list[str]]:
    """A row for each other run, task or group, metric and filter, run by run; and what was left out.

    With `any_prompts` prompts may differ. If `strict`, everything that the baseline scored must be there to compare.
    Raises RunError.
    """
    baseline, *others = [Scored(name, path) for name, path in runs]
    remarks = [remark for other in others for remark in check_tasks(baseline, other, strict=strict)]
    measured: list[dict[str, dict[str, Measured]]] = [{} for _ in others]
    for task in baseline.tasks:
        with_task = [number for number, other in enumerate(others) if task in other.tasks]
        # Each task's samples are read once for the baseline, and forgotten before the next task's.
        before = baseline.samples(task) if with_task else TaskSamples()
        for number in with_task:
            other, after = others[number], others[number].samples(task)
            check_documents(task, (baseline, before), (other, after), any_prompts=any_prompts)
            pair = Pair(task, baseline, other, before, after)
            measured[number][task] = {found.row.key: found for found in pair.measured()}
            remarks += pair.left_out(strict=strict)
    rows: list[Row] = []
    for other, found in zip(others, measured, strict=True):
        groups, left_out = group_comparison(baseline, other, found)
        rows += _marked([item.row for by_key in found.values() for item in by_key.values()], groups)
        remarks += left_out
    return corrected(rows), remarks


def corrected(rows: Sequence[Row]) -> list[Row]:
    """`rows` with Holm's correction, over all runs: whoever picks the best of many runs must pay for the choice.

    There are two families: groups and tasks that stand alone make the claims; tasks within groups show where a
    difference comes from, and do not make the claims weaker by their number.
    """
    found = list(rows)
    for detail in (False, True):
        family = [index for index, row in enumerate(rows) if row.detail == detail and row.p_value is not None]
        for index, value in zip(family, holm([rows[index].p_value or 0.0 for index in family]), strict=True):
            found[index] = replace(rows[index], corrected=value)
    return found


def _marked(tasks: Sequence[Row], groups: Sequence[Row]) -> list[Row]:
    """All rows of a run; tasks within one of the groups, and groups within another, are marked as details."""
    leaves: dict[str, set[str]] = {}
    for group in groups:
        leaves.setdefault(group.task, set()).update(part.task for part in group.parts)
    within: set[str] = set().union(*leaves.values())
    inner = {name for name, own in leaves.items() if any(own < others for others in leaves.values())}
    marked = [replace(row, detail=row.task in within) for row in tasks]
    return [*marked, *(replace(row, detail=row.task in inner) for row in groups)]
