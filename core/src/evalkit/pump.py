"""Answers of an asynchronous library for code that is not asynchronous: what arrives first is given first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Arrival(Generic[T]):
    """An item of the stream `key`; without one the stream has ended, by `error` where there is one."""

    key: Any
    item: T | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.item is None


class Pump(Generic[T]):
    """Runs asynchronous streams side by side on a loop, which runs only while something is waited for.

    Use it from one thread at a time. A loop that is given belongs to somebody else, and stays open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._owns_loop = loop is None
        self._arrived: deque[Arrival[T]] = deque()
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._running)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """The result of one coroutine."""
        return self._loop.run_until_complete(coroutine)

    def start(self, key: Any, stream: AsyncIterator[T]) -> None:
        """Begin to read a stream, whose items must not be None."""
        self._running[key] = self._loop.create_task(self._read(key, stream))

    def stop(self, key: Any) -> None:
        """Stop reading a stream; nothing more of it arrives."""
        task = self._running.pop(key, None)
        if task is None:
            return
        task.cancel()
        self.run(_ended(task))
        self._arrived = deque(arrival for arrival in self._arrived if arrival.key != key)

    def arrivals(self, wait: float | None = None) -> list[Arrival[T]]:
        """What has arrived; where nothing has, the next thing, if it comes within `wait` seconds."""
        if self._running and not self._arrived:
            self.run(self._rung(wait))
        arrived = list(self._arrived)
        self._arrived.clear()
        for arrival in arrived:
            if arrival.is_last:
                self._running.pop(arrival.key, None)
        return arrived

    def close(self) -> None:
        """Stop all streams. May be called more than once."""
        if self._loop.is_closed():
            return
        for key in list(self._running):
            self.stop(key)
        if self._owns_loop:
            self.run(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _read(self, key: Any, stream: AsyncIterator[T]) -> None:
        last: Arrival[T] = Arrival(key)
        try:
            async for item in stream:
                self._give(Arrival(key, item))
        except Exception as error:
            last = Arrival(key, error=error)
        self._give(last)

    def _give(self, arrival: Arrival[T]) -> None:
        self._arrived.append(arrival)
        self._bell.set()

    async def _rung(self, wait: float | None) -> None:
        # Streams that were just begun may have ended before this runs.
        if not self._arrived:
            self._bell.clear()
            try:
                await asyncio.wait_for(self._bell.wait(), wait)
            except TimeoutError:
                return
        # What is ready at the same time is given together.
        await asyncio.sleep(0)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
