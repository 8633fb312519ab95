"""Jobs as clients see them."""

from __future__ import annotations

from datetime import UTC, datetime

from evalkit_http.service.job import Job
from evalkit_http.service.protocol import JobInfo, Progress


def utc(seconds: float | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def now() -> str:
    """The time of day."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def job_info(job: Job, *, position: int | None = None, progress: Progress | None = None) -> JobInfo:
    """What `GET /jobs/{id}` answers."""
    return JobInfo(
        job_id=job.id,
        kind=job.kind,
        status=job.status,
        created_at=utc(job.created) or "",
        started_at=utc(job.started),
        completed_at=utc(job.completed),
        request=job.request,
        result=job.result,
        error=job.error,
        position_in_queue=position,
        priority=job.priority,
        attempts=job.attempts,
        reason="being cancelled" if job.cancelled and not job.status.is_final else job.reason,
        devices=list(job.devices),
        progress=progress,
    )
