"""The scheduler: gives free slots to the jobs whose turn it is, follows their processes, and ends each job once."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.errors import one_line
from evalkit_http.service import process
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.checkpoints import Watch
from evalkit_http.service.job import Job
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.kinds import LOG, Kinds, Outcome, failure
from evalkit_http.service.protocol import JobStatus
from evalkit_http.service.retention import forget_old, job_folder
from evalkit_http.service.slots import Need, Slots
from evalkit_http.service.webhooks import deliver

logger = logging.getLogger("evalkit_http")
TICK = 1.0
LOOK_AGAIN, LONGEST_PAUSE = 1.0, 15.0
"""Seconds between two looks at a checkpoint."""
RECOVERY_SECONDS = 30.0
MOST_CRASHES = 8
"""How often a server may be killed during a job that gets no further."""
CRASHED = f"the server was killed {MOST_CRASHES} times while it ran and answered nothing new. See the job's log"
RECOVERED = "the server was stopped while it ran; it continues where it was"


@dataclass(slots=True)
class Running:
    """A job that is looked at, runs, or whose end is being stored."""

    job: Job
    task: asyncio.Task[None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class Scheduler:
    """Runs in one event loop; `wake` and `cancel` may be called from any thread."""

    def __init__(
        self, args: ServerArgs, store: JobStore, slots: Slots, kinds: Kinds, jobs: Path, secret: str | None
    ) -> None:
        self.args, self.store, self.slots, self.kinds, self.jobs = args, store, slots, kinds, jobs
        self.running: dict[str, Running] = {}
        self.on_end: list[Callable[[Job], None]] = []
        """Called with each job that ended."""
        self._secret = secret
        self._watch = Watch(args.checkpoint_settle)
        self._stopping = self._is_failing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_alive(self) -> bool:
        """Whether jobs are being started."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def start(self) -> None:
        """Put in order what an earlier server left, then begin."""
        self._loop = asyncio.get_running_loop()
        await self._recover()
        forget = functools.partial(asyncio.to_thread, forget_old, self.store, self.jobs, self.args)
        work = (
            self._dispatch_for_ever(),
            self._for_ever(functools.partial(deliver, self.store, self._secret), "webhooks could not be called"),
            self._for_ever(forget, "old jobs could not be forgotten"),
            self._for_ever(functools.partial(asyncio.to_thread, self.store.sync), "the jobs could not be synced"),
        )
        self._tasks = [asyncio.create_task(part) for part in work]

    async def stop(self) -> None:
        """Stop all processes; their jobs wait in the queue for the next start."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self.running.values():
            entry.stop.set()
        await asyncio.gather(*(entry.task for entry in self.running.values()), return_exceptions=True)

    def wake(self) -> None:
        """Look at the queue now."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wakeup.set)

    def cancel(self, id: str) -> JobStatus | None:
        """Cancel a job; its status before a running one has stopped is still running. None: there is none."""
        status = self.store.cancel(id)
        if status == JobStatus.RUNNING and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_one, id)
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._watch.forget, id)
        self.wake()
        return status

    def _stop_one(self, id: str) -> None:
        if id in self.running:
            self.running[id].stop.set()

    def folder(self, job: Job) -> Path:
        """A job's own folder."""
        return job_folder(self.jobs, job)

    async def _recover(self) -> None:
        killed = await asyncio.to_thread(process.sweep, self.jobs)
        if killed:
            logger.warning("killed %s processes that an earlier server left", killed)
        for job in filter(None, map(self.store.find, self.store.ids(JobStatus.RUNNING))):
            self._spawn(job, self._resume(job))
        if self.running:  # not for ever: one job's folder may be on a file server that is gone
            await asyncio.wait([entry.task for entry in self.running.values()], timeout=RECOVERY_SECONDS)

    async def _resume(self, job: Job) -> None:
        """End a job that an earlier server was running, where its files say so, or queue it again."""
        try:
            outcome, answered = await asyncio.to_thread(self._left, job)
        except Exception:  # running it again tells its user what is wrong
            logger.exception("the files of job %s cannot be read", job.id)
            outcome, answered = None, 0
        if outcome is None and job.cancelled:
            outcome = Outcome(JobStatus.CANCELLED)
        elif outcome is None and answered <= job.answered and job.crashes + 1 >= MOST_CRASHES:
            outcome = Outcome(JobStatus.FAILED, error=CRASHED)
        await self._settle(job, outcome, answered)

    def _left(self, job: Job) -> tuple[Outcome | None, int]:
        kind, folder = self.kinds[job.kind], self.folder(job)
        progress = kind.progress(job, folder)
        return kind.outcome(job, folder), progress.answered if progress else 0

    async def _dispatch_for_ever(self) -> None:
        while True:
            self._wakeup.clear()
            try:
                await self._dispatch()
            except Exception:  # one job that cannot be started must not stop all others
                logger.exception("the queue could not be looked at")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), TICK)

    async def _dispatch(self) -> None:
        """Start what may start. A job that waits for slots keeps later ones from those that would do for it."""
        if not self.slots.free:
            return
        reserved: set[str] = set()
        most = len(self.slots.names) + len(self.running)
        for job in await asyncio.to_thread(self.store.candidates, time.time(), most):
            if job.id not in self.running:
                self._try(job, reserved)

    def _try(self, job: Job, reserved: set[str]) -> None:
        try:
            need = Need(**job.work["slots"])
            self.slots.check(need)
        except Exception as error:  # a server that came back with fewer devices, or a record that nobody can read
            return self._spawn(job, self._settle(job, Outcome(JobStatus.FAILED, error=one_line(error))))
        devices = self.slots.take(need, reserved)
        if devices is not None:
            self._spawn(job, self._hold(job, devices))
        elif job.id in self._watch:  # what cannot start yet even with slots keeps them from nobody
            self._spawn(job, self._must_wait(job))
        else:
            reserved.update(self.slots.matching(need))

    def _spawn(self, job: Job, work: Coroutine[Any, Any, object]) -> None:
        self.running[job.id] = Running(job, asyncio.create_task(self._kept(job, work)))

    async def _kept(self, job: Job, work: Coroutine[Any, Any, object]) -> None:
        """Work on a job that nobody else begins meanwhile. What fails is tried again at the next tick."""
        try:
            await work
        except Exception:
            if not self._is_failing:  # a full disk fails every job at every tick
                logger.exception("job %s cannot be started; it waits", job.id)
            self._is_failing = True
            return
        finally:
            del self.running[job.id]
        self._is_failing = False
        self._wakeup.set()

    async def _hold(self, job: Job, devices: tuple[str, ...]) -> None:
        """What happens to a job while it has slots, and after that."""
        try:
            if await self._must_wait(job) or self._stopping:
                return
            if not await asyncio.to_thread(self.store.start, job.id, devices):
                return self._watch.forget(job.id)
            outcome = await self._run(job, devices)
        finally:
            self.slots.release(devices)
        await self._settle(job, outcome)

    async def _must_wait(self, job: Job) -> bool:
        """Whether the job's checkpoint is not ready: then it is put off, or fails once it waited long enough."""
        path = job.work.get("checkpoint")
        # What ran before was complete then; if it changed since, resuming says so.
        if path is None or job.attempts:
            return False
        reason = await self._watch.reason(job.id, Path(path))
        if reason is None:
            return False
        waited = self._watch.waited(job.id)
        if waited >= self.args.checkpoint_wait:
            self._watch.forget(job.id)
            error = f"after {self.args.checkpoint_wait:g} s the checkpoint is not complete: {reason}"
            await self._settle(job, Outcome(JobStatus.FAILED, error=f"{error}. Submit it again once it is"))
            return True
        # Looks become rarer: many jobs that wait must leave time for those behind them.
        pause = min(max(LOOK_AGAIN, waited / 10), LONGEST_PAUSE, self.args.checkpoint_wait - waited)
        why = f"waiting for the checkpoint: {reason}"
        if not await asyncio.to_thread(self.store.put_off, job.id, time.time() + pause, why):
            self._watch.forget(job.id)
        return True

    async def _run(self, job: Job, devices: tuple[str, ...]) -> Outcome | None:
        try:
            return await self._outcome(job, devices)
        except Exception as error:
            logger.exception("job %s could not be run", job.id)
            return Outcome(JobStatus.FAILED, error=one_line(error))

    async def _settle(self, job: Job, outcome: Outcome | None, crashed_at: int | None = None) -> None:
        """Store a job's end, or without one its way back into the queue: again and again until it is there."""
        is_told = False
        while True:
            try:
                return await asyncio.to_thread(self._store, job, outcome, crashed_at)
            except Exception:
                if not is_told:
                    logger.exception("the end of job %s cannot be stored; trying on", job.id)
                is_told = True
            if self._stopping:  # the next server finds the job as one that ran
                return
            await asyncio.sleep(TICK)

    def _store(self, job: Job, outcome: Outcome | None, crashed_at: int | None) -> None:
        if outcome is None:
            self.store.requeue(job.id, RECOVERED, crashed_at)
        else:
            self._finish(job, outcome)

    async def _outcome(self, job: Job, devices: tuple[str, ...]) -> Outcome | None:
        """Follow the job's process to its end; None where it was stopped to be continued."""
        kind, folder = self.kinds[job.kind], self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        words = await asyncio.to_thread(kind.words, job, folder)
        child = await process.start(words, folder, folder / LOG, self.slots.environment(devices))
        timeout = job.work.get("timeout")
        how = await process.follow(child, self.running[job.id].stop, timeout)
        await process.stop(child, self.args.kill_after)
        outcome = await asyncio.to_thread(kind.outcome, job, folder)
        if outcome is not None:
            return outcome
        stored = await asyncio.to_thread(self.store.find, job.id)
        if self._stopping and not (stored and stored.cancelled):
            return None
        if how == "ended":
            return failure(folder, child.returncode or 0)
        if how == "timeout":
            return Outcome(JobStatus.FAILED, error=f"it ran longer than its timeout of {timeout:g} s and was stopped")
        return Outcome(JobStatus.CANCELLED)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        if not self.store.finish(job.id, outcome.status, result=outcome.result, error=outcome.error):
            return
        logger.info("job %s %s", job.id, outcome.status)
        ended = self.store.find(job.id)
        for listener in self.on_end if ended else ():
            listener(ended)  # type: ignore[arg-type]

    async def _for_ever(self, work: Callable[[], Awaitable[object]], failed: str) -> None:
        while True:
            try:
                await work()
            except Exception:
                logger.exception(failed)
            await asyncio.sleep(TICK)
