"""The service without HTTP: its folder, its store, its slots and its scheduler, opened together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import RunError, RunLockedError
from evalkit_http.merge.job import MergeJob
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.evaluation import Evaluation
from evalkit_http.service.job import Job
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.kinds import Kind, Kinds
from evalkit_http.service.metrics import Metrics
from evalkit_http.service.process import WEBHOOK_SECRET
from evalkit_http.service.protocol import JobInfo, JobStatus
from evalkit_http.service.scheduler import Scheduler
from evalkit_http.service.slots import Slots
from evalkit_http.service.views import job_info

LOCK, STORE, JOBS = "service.lock", "jobs.sqlite", "jobs"


class Service:
    """Holds the lock of its folder: one server to a folder. Raises EvalkitError where it cannot be opened."""

    def __init__(self, args: ServerArgs, kinds: Mapping[str, Kind] | None = None) -> None:
        self.args = args
        self.slots = Slots(args.devices, args.cpu_slots)
        self.kinds: Kinds = {"evaluate": Evaluation(), "merge": MergeJob(), **(kinds or {})}
        self.jobs = args.folder.absolute() / JOBS
        self._lock = _locked(args.folder)
        self.store = JobStore(args.folder / STORE)
        secret = args.webhook_secret or os.environ.get(WEBHOOK_SECRET)
        self.scheduler = Scheduler(args, self.store, self.slots, self.kinds, self.jobs, secret)
        self.metrics = Metrics(self.store, self.slots)
        self.scheduler.on_end.append(self.metrics.observe)

    async def start(self) -> None:
        """Begin to work."""
        await self.scheduler.start()

    async def stop(self) -> None:
        """Stop all processes and close everything."""
        await self.scheduler.stop()
        self.close()

    def close(self) -> None:
        """Give up the folder; may be called more than once."""
        self.store.close()
        self._lock.release()

    def info(self, job: Job) -> JobInfo:
        """A job as clients see it, with its place or its progress."""
        running = job.status == JobStatus.RUNNING
        progress = self.kinds[job.kind].progress(job, self.scheduler.folder(job)) if running else None
        return job_info(job, position=self.store.position(job), progress=progress)


def _locked(folder: Path) -> FileLock:
    try:
        (folder / JOBS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunLockedError(f"another server uses {folder}. Stop it first, or choose another --state-dir") from error
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}). Choose another --state-dir") from error
    return lock
