"""Batches hold every span once and stay within the budget; running out of memory only makes them smaller."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import OutOfMemoryError
from evalkit.scoring import plan_batches, run_with_backoff

WIDTHS = st.lists(st.integers(0, 50), max_size=40)
ROWS = st.none() | st.integers(1, 6)


@given(WIDTHS, st.integers(1, 200), ROWS)
def test_each_item_is_in_one_batch(widths: list[int], budget: int, rows: int | None) -> None:
    """All indices come once and in order, in batches that are not empty."""
    batches = list(plan_batches(widths, max_tokens=lambda: budget, max_rows=rows))
    assert [index for batch in batches for index in batch] == list(range(len(widths)))
    assert all(batches)


@given(WIDTHS, st.integers(1, 200), ROWS)
def test_batches_respect_the_budget(widths: list[int], budget: int, rows: int | None) -> None:
    """Rows times the longest stay within the budget, but for an item that exceeds it alone."""
    for batch in plan_batches(widths, max_tokens=lambda: budget, max_rows=rows):
        assert len(batch) == 1 or len(batch) * max(widths[i] for i in batch) <= budget
        assert rows is None or len(batch) <= rows


@given(WIDTHS, st.integers(1, 200), ROWS)
def test_batches_are_as_large_as_allowed(widths: list[int], budget: int, rows: int | None) -> None:
    """A batch ends only where its next item would break the budget or the number of rows."""
    batches = list(plan_batches(widths, max_tokens=lambda: budget, max_rows=rows))
    for batch, following in itertools.pairwise(batches):
        grown = [*batch, following[0]]
        assert len(grown) * max(widths[i] for i in grown) > budget or (rows is not None and len(grown) > rows)


def test_the_budget_is_asked_again_for_every_batch() -> None:
    """A budget that shrinks while batches run holds for all later batches."""
    budgets = [8]
    sizes = []
    for batch in plan_batches([1] * 20, max_tokens=lambda: budgets[-1]):
        sizes.append(len(batch))
        budgets.append(2)
    assert sizes == [8, 2, 2, 2, 2, 2, 2]


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_backoff_gives_every_result_in_order(items: list[int], fits: int) -> None:
    """Whatever fits at once, each item comes back once with its own result."""

    def run(part: list[int]) -> list[int]:
        if len(part) > fits:
            raise OutOfMemoryError
        return [item * 2 for item in part]

    assert list(run_with_backoff(items, run)) == [(item, item * 2) for item in items]


def test_backoff_halves_until_it_fits() -> None:
    """The attempts are halves of what failed, never single items at once."""
    attempts = []

    def run(part: list[int]) -> list[int]:
        attempts.append(len(part))
        if len(part) > 3:
            raise OutOfMemoryError
        return part

    assert len(list(run_with_backoff(list(range(8)), run))) == 8
    assert attempts == [8, 4, 2, 2, 4, 2, 2]


def test_backoff_leaves_the_failed_attempt_behind() -> None:
    """The next attempt runs outside the handler of the one before: its traceback would keep tensors alive."""

    def run(part: list[int]) -> list[int]:
        assert sys.exc_info()[0] is None
        if len(part) > 1:
            raise OutOfMemoryError
        return part

    assert [item for item, _ in run_with_backoff([1, 2, 3], run)] == [1, 2, 3]


@given(st.integers(0, 12), st.integers(0, 12))
def test_an_item_that_never_fits_raises(before: int, after: int) -> None:
    """Memory that one item alone exhausts is an error, after the results of all items before it."""
    items = ["small"] * before + ["huge"] + ["small"] * after

    def run(part: list[str]) -> list[str]:
        if "huge" in part:
            raise OutOfMemoryError
        return part

    done: list[str] = []
    with pytest.raises(OutOfMemoryError):
        done.extend(item for item, _ in run_with_backoff(items, run))
    assert done == ["small"] * before
