"""A job's life as server-sent events: `status` with the job's info, `progress` while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from sse_starlette import ServerSentEvent

from evalkit_http.service.protocol import JobInfo

EVERY = 0.5
"""Seconds between two looks at a job."""


async def job_events(look: Callable[[], JobInfo | None]) -> AsyncIterator[ServerSentEvent]:
    """Events until the job is in a final status, which is the last one. `look` runs in a thread."""
    before: JobInfo | None = None
    while (info := await asyncio.to_thread(look)) is not None:
        if before is None or _without_progress(info) != _without_progress(before):
            yield ServerSentEvent(info.model_dump_json(), event="status")
        if info.progress is not None and (before is None or info.progress != before.progress):
            yield ServerSentEvent(info.progress.model_dump_json(), event="progress")
        if info.status.is_final:
            return
        before = info
        await asyncio.sleep(EVERY)


def _without_progress(info: JobInfo) -> JobInfo:
    return info.model_copy(update={"progress": None})
