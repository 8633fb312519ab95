"""Which splits of which data sets tasks read."""

from __future__ import annotations

from collections.abc import Iterable

from evalkit.datasets.fetch import Needed
from evalkit.tasks.base import Task


def needed(tasks: Iterable[Task]) -> list[Needed]:
    """The splits that tasks read, each once; those that come with a package are left out."""
    found: dict[tuple[str, str | None, str], Needed] = {}
    for task in tasks:
        # The evaluated split may be that of the examples, too.
        splits = {task.split: True, **dict.fromkeys(task.example_splits, False)} | {task.split: True}
        for split, is_evaluated in splits.items():
            key = (task.dataset.path, task.dataset.config, split)
            if not task.dataset.files and (is_evaluated or key not in found):
                found[key] = Needed(task.dataset, split, is_evaluated)
    return list(found.values())
