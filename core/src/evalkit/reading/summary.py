"""The tables of a report: scores with intervals, groups, and what a run cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalkit.costs import Cost
from evalkit.reading.finished import Run
from evalkit.results import RunResult

NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task in one run. `interval` is 95 %; `is_rough`: made from the standard error alone."""

    run: int
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    is_rough: bool
    higher_is_better: bool | None
    documents: int | None


def scores(runs: Sequence[Run]) -> list[Score]:
    """The scores of all runs; runs stand together within a metric."""
    found = [score for index, run in enumerate(runs) for score in _scores(index, run)]
    order = {key: number for number, key in enumerate(dict.fromkeys((s.task, s.metric, s.filter) for s in found))}
    return sorted(found, key=lambda score: (order[score.task, score.metric, score.filter], score.run))


def _scores(index: int, run: Run) -> Iterator[Score]:
    better = run.higher_is_better
    sizes = run.results.get("n-samples", {})
    for task, row in run.results["results"].items():
        for key, value in row.items():
            metric, _, filter_name = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = row.get(f"{metric}_stderr,{filter_name}")
            stderr = float(error) if isinstance(error, (int, float)) else None
            given = _given_interval(run, task, key)
            yield Score(
                index,
                task,
                metric,
                filter_name,
                float(value),
                stderr,
                given or _rough_interval(float(value), stderr),
                given is None,
                better.get(task, {}).get(metric),
                sizes.get(task, {}).get("effective"),
            )


def _given_interval(run: Run, task: str, key: str) -> tuple[float, float] | None:
    found = run.results.get("intervals", {}).get(task, {}).get(key)
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(end, (int, float)) for end in found):
        return None
    return float(found[0]), float(found[1])


def _rough_interval(value: float, stderr: float | None) -> tuple[float, float] | None:
    """Where the run holds no interval: the normal approximation."""
    return None if stderr is None else (value - NORMAL_95 * stderr, value + NORMAL_95 * stderr)


@dataclass(frozen=True, slots=True)
class Part:
    """A group, or a task below it: its scores, by run."""

    name: str
    is_group: bool
    values: tuple[float | None, ...]


def groups(runs: Sequence[Run]) -> list[tuple[str, list[Part]]]:
    """For each group, the metric that is shown, and the group with the tasks below it."""
    members: dict[str, list[str]] = {}
    for run in runs:
        members |= run.results.get("group_subtasks", {})
    found = []
    for group, tasks in members.items():
        if key := _shared_key(runs, group, tasks):
            parts = [
                Part(group, True, _values(runs, group, key)),
                *(Part(t, False, _values(runs, t, key)) for t in tasks),
            ]
            found.append((label(key), parts))
    return found


def _shared_key(runs: Sequence[Run], group: str, tasks: Sequence[str]) -> str | None:
    """The group's own first metric, or the first that all of its tasks have; None for a mere collection of tasks."""
    shared = [key for key in _keys(runs, tasks[0]) if all(key in _keys(runs, task) for task in tasks)] if tasks else []
    return next(iter([*_keys(runs, group), *shared]), None)


def label(key: str) -> str:
    """ "acc" for "acc,none", "exact_match (strict)" for "exact_match,strict"."""
    metric, _, filter_name = key.partition(",")
    return metric if filter_name in ("", "none") else f"{metric} ({filter_name})"


def _keys(runs: Sequence[Run], task: str) -> list[str]:
    rows = (run.results["results"].get(task, {}) for run in runs)
    return [key for row in rows for key in row if not key.partition(",")[0].endswith("_stderr")]


def _values(runs: Sequence[Run], task: str, key: str) -> tuple[float | None, ...]:
    found = (run.results["results"].get(task, {}).get(key) for run in runs)
    return tuple(value if isinstance(value, (int, float)) else None for value in found)


def cost(run: Run) -> Cost:
    """Tokens, seconds and joules of a run."""
    return RunResult.from_dict({**run.results, "run_dir": run.label}).cost
