"""A group's number is its documents' mean, with the harness's pooled standard error."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.tasks.groups import pooled_stderr, weighted_mean
from evalkit.tasks.metrics import mean_stderr

TASKS = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=20), min_size=1, max_size=5)


@given(TASKS)
def test_the_weighted_mean_is_that_of_all_documents(tasks: list[list[float]]) -> None:
    """Weighting tasks by their documents gives what one task of all documents would have."""
    means, sizes = [statistics.fmean(task) for task in tasks], [len(task) for task in tasks]
    assert weighted_mean(means, sizes) == pytest.approx(statistics.fmean(v for task in tasks for v in task))


@given(TASKS)
def test_the_pooled_error_follows_the_harness(tasks: list[list[float]]) -> None:
    """sqrt((sum (n - 1) se^2 n / (sum n - k)) / sum n), se being each task's own standard error."""
    sizes = [len(task) for task in tasks]
    errors = [mean_stderr(task) or 0.0 for task in tasks]
    numerator = sum((n - 1) * se**2 * n for n, se in zip(sizes, errors, strict=True))
    expected = math.sqrt(numerator / (sum(sizes) - len(sizes)) / sum(sizes))
    assert pooled_stderr(errors, sizes) == pytest.approx(expected)


def test_the_pooled_error_by_hand() -> None:
    """Two tasks of 3 and 5 documents with errors 0.1 and 0.2."""
    expected = math.sqrt(((2 * 0.01 * 3) + (4 * 0.04 * 5)) / (8 - 2) / 8)
    assert pooled_stderr([0.1, 0.2], [3, 5]) == pytest.approx(expected)


def test_a_group_of_one_task_has_its_error() -> None:
    """Nothing is pooled where there is one task."""
    assert pooled_stderr([0.25], [7]) == pytest.approx(0.25)


def test_tasks_of_one_document_have_no_pooled_error() -> None:
    """Without a degree of freedom there is no error, and no division by zero."""
    assert pooled_stderr([0.0, 0.0], [1, 1]) is None
