"""Coroutines in flight for code that is not asynchronous: an event loop in a thread of its own.

Jobs are given up by anyio's cancel scopes, never by asyncio's `Task.cancel`: httpcore shields what must not be left
half done, such as closing connections that it has taken out of its pool, from the first only.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

from anyio import CancelScope, create_task_group

K = TypeVar("K")
V = TypeVar("V")
CLOSE_SECONDS = 5.0

Job = Callable[[], Coroutine[Any, Any, V]]
Work = Callable[..., Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that are given up together, seen from another thread than their loop's."""

    loop: asyncio.AbstractEventLoop
    scope: CancelScope
    wanted: asyncio.Queue[tuple[Work, Any]]

    def start(self, work: Work, *args: Any) -> None:
        """Begin a task."""
        self.loop.call_soon_threadsafe(self.wanted.put_nowait, (work, args))

    def give_up(self) -> None:
        """Cancel all tasks."""
        # The loop may have ended already, and they with it.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.scope.cancel)


class Workers:
    """Runs jobs, a bounded number at once. What waits for them can be interrupted at any time.

    When they are closed, `last` is awaited after all jobs.
    """

    def __init__(self, last: Callable[[], Awaitable[None]]) -> None:
        opened: Future[Group] = Future()
        life = _live(opened, last)
        self._thread = threading.Thread(target=asyncio.run, args=(life,), name="evalkit-openai", daemon=True)
        self._thread.start()
        self._all = opened.result()

    def run(self, job: Job[V]) -> V:
        """The result of one job."""
        [(_, result)] = self.stream([(None, job)], 1)
        return result

    def stream(self, jobs: Iterable[tuple[K, Job[V]]], limit: int) -> Iterator[tuple[K, V]]:
        """Yield `(key, result)` as jobs end, with `limit` in flight: a job that ends is replaced at once.

        The first exception is raised here, and the jobs in flight are given up; so they are when the caller stops.
        """
        waiting = iter(jobs)
        ended: SimpleQueue[tuple[K, Future[V]]] = SimpleQueue()
        opened: Future[Group] = Future()
        self._all.start(_hold_open, opened)
        group = opened.result()
        in_flight = 0

        async def work(key: K, job: Job[V]) -> None:
            outcome: Future[V] = Future()
            try:
                outcome.set_result(await job())
            except Exception as error:
                outcome.set_exception(error)
            finally:
                # It is neither where the job was given up.
                outcome.cancel()
                ended.put((key, outcome))

        def refill() -> None:
            nonlocal in_flight
            for key, job in islice(waiting, limit - in_flight):
                group.start(work, key, job)
                in_flight += 1

        try:
            refill()
            while in_flight:
                key, outcome = ended.get()
                in_flight -= 1
                result = outcome.result()
                # Before the caller looks at the result, which may take it a while.
                refill()
                yield key, result
        finally:
            group.give_up()

    def close(self) -> None:
        """Give up what is in flight, and end the thread. May be called more than once."""
        self._all.give_up()
        self._thread.join(CLOSE_SECONDS)


async def _live(opened: Future[Group], last: Callable[[], Awaitable[None]]) -> None:
    try:
        await _hold_open(opened)
    finally:
        await last()


async def _hold_open(opened: Future[Group]) -> None:
    """A group of tasks, until it is given up."""
    wanted: asyncio.Queue[tuple[Work, Any]] = asyncio.Queue()
    async with create_task_group() as tasks:
        opened.set_result(Group(asyncio.get_running_loop(), tasks.cancel_scope, wanted))
        while True:
            work, args = await wanted.get()
            tasks.start_soon(work, *args)
