"""The routes of the evaluation service."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse

from evalkit.plugins import get_plugins
from evalkit_http.security import requires
from evalkit_http.security.redaction import Cleaner
from evalkit_http.service.evaluation import samples_file
from evalkit_http.service.events import event_stream
from evalkit_http.service.job import Accepted, Job
from evalkit_http.service.jobs import DuplicateKeyError, QueueFullError
from evalkit_http.service.kinds import LOG, tail
from evalkit_http.service.protocol import (
    Cancelled,
    EvaluateRequest,
    EvaluateResponse,
    Health,
    JobInfo,
    JobStatus,
    QueueStatus,
)
from evalkit_http.service.service import Service
from evalkit_http.service.translate import canonical, evaluation_work
from evalkit_http.service.views import now

router = APIRouter()
READ, SUBMIT = [Depends(requires("read"))], [Depends(requires("submit"))]
RETRY_SECONDS = 30
MOST_JOBS = 1000
LOG_BYTES = 2**20
LINE_END = re.compile(r"[\r\n]+")
ERRORS: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such job, or no such file of it."}}
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


async def service(request: Request) -> Service:
    """The service behind the app."""
    found: Service = request.app.state.service
    return found


Here = Annotated[Service, Depends(service)]


def _job(id: str, here: Service) -> Job:
    job = here.store.find(id)
    if job is None:
        raise HTTPException(404, f"there is no job {id[:100]!r}. Jobs are forgotten some time after their end")
    return job


def submit(here: Service, new: Accepted) -> EvaluateResponse:
    """Put a job into the queue; a known idempotency key leads to its job."""
    try:
        job, is_new = here.store.accept(new, most=here.args.max_queued_jobs)
    except DuplicateKeyError as error:
        raise HTTPException(409, str(error)) from error
    except QueueFullError as error:
        raise HTTPException(429, str(error), {"Retry-After": str(RETRY_SECONDS)}) from error
    except sqlite3.OperationalError as error:
        raise HTTPException(507, f"no job can be stored ({error}). The server's disk may be full") from error
    here.scheduler.wake()
    position = here.store.position(job)
    message = "Job submitted" if is_new else "Job was submitted before with this idempotency key"
    return EvaluateResponse(job_id=job.id, status=job.status, position_in_queue=position, message=message)


@router.get("/health", tags=["server"])
def health(here: Here) -> Health:
    """Whether the server answers."""
    return Health(status="healthy", timestamp=now(), queue_size=here.store.queued())


@router.get("/ready", tags=["server"], responses={503: {"description": "No job would be started."}})
def ready(here: Here) -> Health:
    """Whether jobs are accepted and started."""
    if not here.scheduler.is_alive:
        raise HTTPException(503, "the scheduler does not run. Look at the server's log")
    return Health(status="ready", timestamp=now(), queue_size=here.store.queued())


@router.post("/evaluate", dependencies=SUBMIT, tags=["jobs"], responses={429: {"description": "The queue is full."}})
def evaluate(body: EvaluateRequest, here: Here, key: Key = None) -> EvaluateResponse:
    """Submit an evaluation. It runs as soon as its devices are free."""
    work = evaluation_work(body, here.args, here.slots)
    return submit(here, Accepted("evaluate", canonical(body), work, body.priority, key or body.idempotency_key))


@router.get("/jobs", dependencies=READ, tags=["jobs"])
def jobs(
    here: Here, status: JobStatus | None = None, limit: Annotated[int, Query(ge=1, le=MOST_JOBS)] = 100
) -> dict[str, list[JobInfo]]:
    """The youngest jobs, youngest first."""
    return {"jobs": [here.info(job) for job in here.store.recent(limit, status)]}


@router.get("/jobs/{job_id}", dependencies=READ, tags=["jobs"], responses=ERRORS)
def job(job_id: str, here: Here) -> JobInfo:
    """A job: where it is, how far, and its result."""
    return here.info(_job(job_id, here))


@router.delete(
    "/jobs/{job_id}", dependencies=SUBMIT, tags=["jobs"], responses={**ERRORS, 409: {"description": "Ended."}}
)
def cancel(job_id: str, here: Here) -> Cancelled:
    """Cancel a job. A running one is stopped with all its processes."""
    before = _job(job_id, here).status
    status = None if before.is_final else here.scheduler.cancel(job_id)
    if status is None or (status.is_final and status != JobStatus.CANCELLED):
        raise HTTPException(409, f"job {job_id} is {status or before} already")
    message = f"Job {job_id} is being stopped" if status == JobStatus.RUNNING else f"Job {job_id} cancelled"
    return Cancelled(job_id=job_id, status=status, message=message)


@router.get("/jobs/{job_id}/events", dependencies=READ, tags=["jobs"], responses=ERRORS)
async def events(job_id: str, here: Here) -> EventSourceResponse:
    """A job's status and progress as server-sent events, until it ends."""
    _job(job_id, here)

    def look() -> JobInfo | None:
        found = here.store.find(job_id)
        return None if found is None else here.info(found)

    return event_stream(look)


@router.get("/jobs/{job_id}/samples/{task}", dependencies=READ, tags=["jobs"], responses=ERRORS)
def samples(job_id: str, task: str, here: Here) -> FileResponse:
    """A task's documents, prompts, answers and scores: a JSON object a line."""
    found = _job(job_id, here)
    path = samples_file(found, here.scheduler.folder(found), task) if found.kind == "evaluate" else None
    if path is None:
        raise HTTPException(404, f"job {job_id} has no samples of {task[:100]!r}. They are there once it is completed")
    return FileResponse(path, media_type="application/x-ndjson", filename=path.name)


@router.get("/jobs/{job_id}/log", dependencies=READ, tags=["jobs"], responses=ERRORS, response_class=PlainTextResponse)
def log(job_id: str, here: Here, most: Annotated[int, Query(ge=1, le=64 * LOG_BYTES)] = LOG_BYTES) -> str:
    """The whole lines in the last `most` bytes of what a job's process printed, without secrets."""
    text = _last_lines(here.scheduler.folder(_job(job_id, here)) / LOG, most)
    return Cleaner(here.args.guards.tokens).text(text)


def _last_lines(path: Path, most: int) -> str:
    """The whole lines among the last `most` bytes: nobody would know the rest of a secret that was cut."""
    text = tail(path, most)
    is_cut = path.is_file() and path.stat().st_size > most
    if not is_cut:
        return text
    end = LINE_END.search(text)
    return text[end.end() :] if end else ""


@router.get("/queue", dependencies=READ, tags=["server"])
def queue(here: Here) -> QueueStatus:
    """What runs and what waits."""
    counts, running = here.store.counts(), here.store.ids(JobStatus.RUNNING)
    waiting = here.store.ids(JobStatus.QUEUED)
    return QueueStatus(
        queue_size=len(waiting),
        running_job=running[0] if running else None,
        queued_jobs=waiting,
        completed_jobs=counts[JobStatus.COMPLETED],
        failed_jobs=counts[JobStatus.FAILED],
        running_jobs=running,
        cancelled_jobs=counts[JobStatus.CANCELLED],
    )


@router.get("/tasks", dependencies=READ, tags=["server"])
def tasks() -> dict[str, list[str]]:
    """Names of the tasks and groups that can be evaluated."""
    return {"tasks": [spec.name for spec in get_plugins().tasks]}


@router.get("/models", dependencies=READ, tags=["server"])
def models() -> dict[str, list[str]]:
    """Names of the engines, which is what a request calls `model`, and of models that need no path."""
    plugins = get_plugins()
    return {
        "models": [spec.name for spec in plugins.engines],
        "registered_models": [spec.name for spec in plugins.models],
    }


@router.get("/metrics", dependencies=READ, tags=["server"], response_class=PlainTextResponse)
def metrics(here: Here) -> Response:
    """Numbers for Prometheus."""
    return Response(here.metrics.text(), media_type=CONTENT_TYPE_LATEST)
