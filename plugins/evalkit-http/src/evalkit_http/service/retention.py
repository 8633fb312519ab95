"""Forget old jobs, and delete their folders."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from evalkit_http.service.args import ServerArgs
from evalkit_http.service.job import Job
from evalkit_http.service.jobs import JobStore

DAY = 86400.0


def forget_old(store: JobStore, jobs: Path, args: ServerArgs) -> int:
    """Forget ended jobs beyond the allowed number or age; how many. What went to an `output_dir` stays."""
    before = time.time() - args.max_age_days * DAY if args.max_age_days else 0.0
    old = store.expired(args.max_completed_jobs, before)
    for job in old:
        # The folder first: a crash between the two leaves a job whose folder is gone, not a folder nobody knows.
        shutil.rmtree(job_folder(jobs, job), ignore_errors=True)
        store.forget(job.id)
    return len(old)


def job_folder(jobs: Path, job: Job) -> Path:
    """The folder of a job."""
    return jobs / f"{job.work.get('prefix', '')}{job.id}"
