"""Group spans into batches by a token budget, and make batches smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from evalkit.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")


def plan_batches(
    widths: Sequence[int], *, max_tokens: Callable[[], int], max_rows: int | None = None
) -> Iterator[list[int]]:
    """Indices of each batch: consecutive items whose padded size (rows x longest) stays within `max_tokens()`.

    Pass the widths in sorted order, so that a batch pads little. One item wider than the budget makes a
    batch of its own. The budget is asked again for every batch: it shrinks when memory runs out.
    """
    batch: list[int] = []
    longest = 0
    for index, width in enumerate(widths):
        widest = max(longest, width)
        full = (len(batch) + 1) * widest > max_tokens() or (max_rows is not None and len(batch) >= max_rows)
        if batch and full:
            yield batch
            batch, widest = [], width
        batch.append(index)
        longest = widest
    if batch:
        yield batch


def run_with_backoff(items: list[T], run: Callable[[list[T]], list[R]]) -> Iterator[tuple[T, R]]:
    """Run a batch; where it exhausts memory, run its halves. Yields `(item, result)` as halves finish.

    Raises OutOfMemoryError only for an item that does not fit alone.
    """
    try:
        results = run(items)
    except OutOfMemoryError:
        if len(items) == 1:
            raise
        # The failed attempt's traceback holds its tensors: leave the handler before the next attempt.
        results = None
    if results is not None:
        yield from zip(items, results, strict=True)
        return
    middle = len(items) // 2
    yield from run_with_backoff(items[:middle], run)
    yield from run_with_backoff(items[middle:], run)
