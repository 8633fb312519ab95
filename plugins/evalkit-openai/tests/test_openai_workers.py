"""Jobs run beside each other, and those that are given up leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio
import pytest

from evalkit_openai.workers import Workers


async def nothing() -> None:
    """The job that is done at once."""


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers(nothing)
    yield found
    found.close()


def test_what_must_not_stop_half_way_is_finished(workers: Workers) -> None:
    """A job that is given up within a shielded part, as httpcore shields closing connections, ends that part only."""
    began, done = threading.Event(), []

    async def close_all() -> None:
        with anyio.CancelScope(shield=True):
            for number in range(5):
                began.set()
                await anyio.sleep(0.01)
                done.append(number)
        await anyio.sleep(0.01)
        done.append("and more")

    answers = workers.stream([("ready", nothing), ("closing", close_all)], 2)
    assert next(answers) == ("ready", None)
    assert began.wait(10)
    answers.close()
    workers.close()
    assert done == [0, 1, 2, 3, 4]


def test_the_last_thing_comes_after_all_jobs() -> None:
    """Whoever was never given up is so at the close, and what closes the connections follows."""
    seen = []

    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("job")

    async def last() -> None:
        seen.append("last")

    workers = Workers(last)
    answers = workers.stream([("ready", nothing), ("forever", forever)], 2)
    assert next(answers) == ("ready", None)
    workers.close()
    workers.close()
    assert seen == ["job", "last"]
    answers.close()


def test_what_a_job_raises_is_raised_here(workers: Workers) -> None:
    """An exception ends the stream, and only this stream."""

    async def wrong() -> None:
        raise ValueError("so it is")

    with pytest.raises(ValueError, match="so it is"):
        list(workers.stream([("wrong", wrong), ("right", nothing)], 1))
    assert list(workers.stream([("right", nothing)], 1)) == [("right", None)]
