"""From tallies of tasks to what results.json says: rows of tasks and groups, intervals, sizes, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.runs.journal import Journal
from evalkit.runs.plan import Plan
from evalkit.runs.score import Tally, group_intervals, group_rows

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """`results` as in RunResult; `details` are the keys that stand beside it in results.json."""

    results: Rows
    details: dict[str, Any]


def summarize(plan: Plan, tallies: Mapping[str, Tally]) -> Summary:
    """The numbers of all tasks and of the groups that were asked for."""
    rows = {name: tally.row() for name, tally in tallies.items()}
    sizes = {name: len(tally.planned.docs) - tally.failed for name, tally in tallies.items()}
    results = {**rows, **group_rows(plan, rows, sizes)}
    return Summary(results, {**_details(plan, sizes), **_statistics(plan, tallies, results, sizes)})


def warnings(tallies: Mapping[str, Tally], journal: Journal) -> list[str]:
    """What a reader of the scores should know, a sentence each."""
    found = []
    for name, tally in tallies.items():
        found += [f"{name}: {warning}" for warning in tally.planned.warnings]
        found += [f"{name}: {count} samples {kind}" for kind, count in tally.notes.items()]
        if tally.unusable:
            found.append(f"{name}: {tally.unusable} documents not scored because they cannot be used ({tally.fault})")
        if requests := tally.failed - tally.unusable:
            found.append(f"{name}: {requests} documents not scored because a request failed ({tally.error})")
    if journal.damaged:
        found.append(f"{journal.damaged} damaged journal records were asked again")
    return found


def _details(plan: Plan, sizes: Mapping[str, int]) -> dict[str, Any]:
    planned = plan.tasks
    return {
        "n-samples": {n: {"original": p.available, "effective": sizes[n]} for n, p in planned.items()},
        "higher_is_better": {n: {m.name: m.higher_is_better for m in p.metrics} for n, p in planned.items()},
        "group_subtasks": {name: list(leaves) for name, (_, leaves) in plan.groups.items()},
        "group_weighted": {name: group.weighted for name, (group, _) in plan.groups.items()},
    }


def _statistics(
    plan: Plan, tallies: Mapping[str, Tally], results: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """What stands beside the scores: intervals, and errors where documents come in clusters."""
    found = {name: tally.intervals(results[name]) for name, tally in tallies.items()}
    of_tasks = {name: intervals for name, (intervals, _) in found.items()}
    errors = {name: errors for name, (_, errors) in found.items() if errors}
    intervals = {**of_tasks, **group_intervals(plan, results, of_tasks, sizes)}
    listed = {name: {key: list(interval) for key, interval in row.items()} for name, row in intervals.items()}
    return {"intervals": listed, **({"clustered_stderr": errors} if errors else {})}
