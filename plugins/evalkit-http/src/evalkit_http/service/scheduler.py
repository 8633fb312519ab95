"""The scheduler: gives free slots to the jobs whose turn it is, follows their processes, and ends each job once."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import one_line
from evalkit_http.service import process
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.checkpoints import Watch
from evalkit_http.service.jobs import Job, JobStore
from evalkit_http.service.kinds import LOG, Kinds, Outcome, failure
from evalkit_http.service.protocol import JobStatus
from evalkit_http.service.retention import forget_old, job_folder
from evalkit_http.service.slots import Need, Slots
from evalkit_http.service.webhooks import deliver

logger = logging.getLogger("evalkit_http")
TICK = 1.0
PAGE = 100
LOOK_AGAIN = 1.0
"""Seconds between two looks at a checkpoint."""
SHUTDOWN_SIGNALS = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
SHUTDOWN_SECONDS = 3.0
RECOVERED = "the server was stopped while it ran; it continues where it was"


@dataclass(slots=True)
class Running:
    """A job and its process."""

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
        self._stopping = False
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
        await asyncio.to_thread(self._recover)
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
        self.wake()
        return status

    def _stop_one(self, id: str) -> None:
        if id in self.running:
            self.running[id].stop.set()

    def folder(self, job: Job) -> Path:
        """A job's own folder."""
        return job_folder(self.jobs, job)

    def _recover(self) -> None:
        killed = process.sweep(self.jobs)
        if killed:
            logger.warning("killed %s processes that an earlier server left", killed)
        for id in self.store.ids(JobStatus.RUNNING):
            job = self.store.find(id)
            assert job is not None
            outcome = self.kinds[job.kind].outcome(job, self.folder(job))
            if outcome is not None:
                self._finish(job, outcome)
            elif job.cancelled:
                self._finish(job, Outcome(JobStatus.CANCELLED))
            else:
                self.store.requeue(id, RECOVERED)

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
        reserved: set[str] = set()
        after: tuple[int, int] | None = None
        while self.slots.free - reserved:
            found = self.store.due(time.time(), after, PAGE)
            for job in found:
                if not self.slots.free - reserved:
                    return
                await self._try(job, reserved)
            if len(found) < PAGE:
                return
            after = found[-1].priority, found[-1].number

    async def _try(self, job: Job, reserved: set[str]) -> None:
        try:
            need = Need(**job.work["slots"])
            self.slots.check(need)
        except Exception as error:  # a server that came back with fewer devices, or a record that nobody can read
            return self._finish(job, Outcome(JobStatus.FAILED, error=one_line(error)))
        if await self._must_wait(job):
            return
        devices = self.slots.take(need, reserved)
        if devices is None:
            reserved.update(self.slots.matching(need))
        elif self.store.start(job.id, devices):
            task = asyncio.create_task(self._run(job, devices))
            self.running[job.id] = Running(job, task)
        else:
            self.slots.release(devices)

    async def _must_wait(self, job: Job) -> bool:
        """Whether the job's checkpoint is not ready: then it is put off, or fails once it waited long enough."""
        path = job.work.get("checkpoint")
        # What ran before was complete then; if it changed since, resuming says so.
        if path is None or job.attempts:
            return False
        reason = await asyncio.to_thread(self._watch.reason, Path(path))
        if reason is None:
            return False
        if self._watch.waited(Path(path)) >= self.args.checkpoint_wait:
            self._watch.forget(Path(path))
            waited = f"after {self.args.checkpoint_wait:g} s the checkpoint is not complete: {reason}"
            self._finish(job, Outcome(JobStatus.FAILED, error=f"{waited}. Submit it again once it is"))
        else:
            self.store.put_off(job.id, time.time() + LOOK_AGAIN, f"waiting for the checkpoint: {reason}")
        return True

    async def _run(self, job: Job, devices: tuple[str, ...]) -> None:
        try:
            outcome = await self._outcome(job, devices)
        except Exception as error:
            logger.exception("job %s could not be run", job.id)
            outcome = Outcome(JobStatus.FAILED, error=one_line(error))
        finally:
            self.slots.release(devices)
        del self.running[job.id]
        if outcome is None:
            self.store.requeue(job.id, RECOVERED)
        else:
            await asyncio.to_thread(self._finish, job, outcome)
        self._wakeup.set()

    async def _outcome(self, job: Job, devices: tuple[str, ...]) -> Outcome | None:
        """Follow the job's process to its end; None where it was stopped to be continued."""
        kind, folder = self.kinds[job.kind], self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        words = await asyncio.to_thread(kind.words, job, folder)
        child = await process.start(words, folder, folder / LOG, self.slots.environment(devices))
        timeout = job.work.get("timeout")
        how = await self._followed(child, self.running[job.id].stop, timeout)
        await process.stop(child, self.args.kill_after)
        outcome = await asyncio.to_thread(kind.outcome, job, folder)
        if outcome is not None:
            return outcome
        if self._stopping and not self._is_cancelled(job):
            return None
        if how == "ended":
            return failure(folder, child.returncode or 0)
        if how == "timeout":
            return Outcome(JobStatus.FAILED, error=f"it ran longer than its timeout of {timeout:g} s and was stopped")
        return Outcome(JobStatus.CANCELLED)

    async def _followed(self, child: Process, stop: asyncio.Event, timeout: float | None) -> str:
        """Wait for what comes first: the process "ended", it is to "stop", or "timeout"."""
        ended, asked = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({ended, asked}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if ended in done and child.returncode in SHUTDOWN_SIGNALS:
            # Whoever stops a whole service may signal the job before the server: then the job is to be continued.
            await asyncio.wait({asked}, timeout=SHUTDOWN_SECONDS)
        asked.cancel()
        return "ended" if ended in done else "stop" if asked in done else "timeout"

    def _is_cancelled(self, job: Job) -> bool:
        found = self.store.find(job.id)
        return found is not None and found.cancelled

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
