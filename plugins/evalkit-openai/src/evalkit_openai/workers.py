"""Coroutines in flight for code that is not asynchronous: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")
CLOSING_SECONDS = 0.01
CLOSE_SECONDS = 5.0

Job = Callable[[], Coroutine[Any, Any, V]]


class Workers:
    """Runs jobs, a bounded number at once. What waits for them can be interrupted at any time."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="evalkit-openai", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, V]) -> V:
        """The result of one coroutine."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stream(self, jobs: Iterable[tuple[K, Job[V]]], limit: int) -> Iterator[tuple[K, V]]:
        """Yield `(key, result)` as jobs end, with `limit` in flight: a job that ends is replaced at once.

        The first exception is raised here, and the jobs in flight are given up; so they are when the caller stops.
        """
        waiting = iter(jobs)
        ended: SimpleQueue[Future[V]] = SimpleQueue()
        running: dict[Future[V], K] = {}

        def refill() -> None:
            for key, job in islice(waiting, limit - len(running)):
                future = asyncio.run_coroutine_threadsafe(job(), self._loop)
                running[future] = key
                future.add_done_callback(ended.put)

        try:
            refill()
            while running:
                future = ended.get()
                key, result = running.pop(future), future.result()
                # Before the caller looks at the result, which may take it a while.
                refill()
                yield key, result
        finally:
            for future in running:
                future.cancel()

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Give up what is in flight, await `last`, and end the thread. May be called more than once."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._finish(last), self._loop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _finish(self, last: Callable[[], Awaitable[None]]) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        try:
            await last()
            # Transports close in the loop's next turns.
            await asyncio.sleep(CLOSING_SECONDS)
        finally:
            self._loop.call_soon(self._loop.stop)
