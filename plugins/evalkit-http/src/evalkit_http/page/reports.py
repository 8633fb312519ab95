"""Reports of jobs: made once by the command of another package, in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import HTTPException

from evalkit.errors import one_line
from evalkit_http.service.evaluation import run_folder
from evalkit_http.service.process import PYTHON, child_environment
from evalkit_http.service.protocol import JobStatus
from evalkit_http.service.service import Service

REPORT = "report.html"
SECONDS = 300.0
NO_COMMAND = "No such command"
# One at a time: a report of many samples takes a processor and some memory.
_turn = asyncio.Semaphore(1)


async def make_report(job_id: str, here: Service) -> Path:
    """The report of a job. Raises HTTPException where there is none to be made."""
    job = await asyncio.to_thread(here.store.find, job_id)
    if job is None:
        raise HTTPException(404, f"there is no job {job_id[:100]!r}. Jobs are forgotten some time after their end")
    if job.kind != "evaluate" or job.status != JobStatus.COMPLETED:
        raise HTTPException(409, f"job {job_id} is {job.kind} {job.status}: only completed evaluations have a report")
    folder = here.scheduler.folder(job)
    path = folder / REPORT
    async with _turn:
        if not path.is_file():
            await _make(run_folder(job, folder), path)
    return path


async def _make(run: Path, path: Path) -> None:
    part = path.with_name(f"part-{path.name}")
    process = await asyncio.create_subprocess_exec(
        *PYTHON,
        *("evalkit", "report", str(run), "--html", str(part)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise HTTPException(409, "the report took too long. Make it with: evalkit report") from None
    if process.returncode:
        text = said.decode("utf-8", "replace")
        if NO_COMMAND in text:
            raise HTTPException(404, "reports need evalkit-report. Install it with: pip install evalkit-report")
        raise HTTPException(409, f"the report cannot be made: {one_line(Exception(text))}")
    part.rename(path)
