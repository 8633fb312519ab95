"""Streams of an asynchronous library, read by code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from evalkit.pump import Arrival, Pump


@pytest.fixture
def pump() -> Iterator[Pump[int]]:
    found: Pump[int] = Pump()
    yield found
    found.close()


async def count(last: int, steps: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(last):
        await asyncio.sleep(0)
        if steps is not None:
            steps.append(number)
        yield number


async def broken() -> AsyncIterator[int]:
    raise ValueError("at once")
    yield 0


def drained(pump: Pump[int]) -> list[Arrival[int]]:
    found = []
    while len(pump):
        found += pump.arrivals()
    return found


def test_each_stream_arrives_in_order_and_ends_once(pump: Pump[int]) -> None:
    """Items keep the order of their stream, and one last arrival says that it has ended."""
    for key in range(5):
        pump.start(key, count(key))
    found = drained(pump)
    for key in range(5):
        own = [arrival for arrival in found if arrival.key == key]
        assert [arrival.item for arrival in own] == [*range(key), None]
        assert [arrival.is_last for arrival in own] == [False] * key + [True]


def test_streams_run_side_by_side(pump: Pump[int]) -> None:
    """A short stream does not wait for a long one."""
    pump.start("long", count(50))
    pump.start("short", count(1))
    ends = [arrival.key for arrival in drained(pump) if arrival.is_last]
    assert ends == ["short", "long"]


def test_a_stream_that_fails_at_once_is_told(pump: Pump[int]) -> None:
    """Its error arrives, though it was over before anybody waited; so does what is beside it."""
    pump.start("broken", broken())
    found = drained(pump)
    assert [str(arrival.error) for arrival in found] == ["at once"]
    pump.start("broken", broken())
    pump.start("fine", count(2))
    assert len(drained(pump)) == 4


def test_nothing_arrives_of_a_stopped_stream(pump: Pump[int]) -> None:
    """A stopped stream is cancelled where it stands; stopping it again, or an unknown one, is allowed."""
    steps: list[int] = []
    pump.start("gone", count(1000, steps))
    pump.start("here", count(30))
    before = pump.arrivals()
    pump.stop("gone")
    pump.stop("gone")
    after = drained(pump)
    assert {arrival.key for arrival in after} == {"here"}
    assert len([arrival for arrival in before + after if arrival.key == "here"]) == 31
    assert len(steps) < 10


def test_waiting_has_an_end(pump: Pump[int]) -> None:
    """Where nothing comes in time, nothing has arrived."""

    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    pump.start("never", never())
    assert pump.arrivals(0.01) == []
    assert len(pump) == 1


def test_a_given_loop_stays_open() -> None:
    """A loop that belongs to a library is left to it; closing twice is allowed."""
    loop = asyncio.new_event_loop()
    pump: Pump[int] = Pump(loop)
    pump.start("cut", count(10))
    pump.close()
    pump.close()
    assert not loop.is_closed()
    loop.close()
