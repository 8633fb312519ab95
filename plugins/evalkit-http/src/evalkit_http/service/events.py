"""A job's life as server-sent events: `status` with the job's info, `progress` while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent

from evalkit_http.service.protocol import JobInfo

EVERY = 0.5
"""Seconds between two looks at a job."""
FAREWELL = 2.0
"""Seconds that a stream has to end in order when the server stops."""


def event_stream(look: Callable[[], JobInfo | None]) -> EventSourceResponse:
    """The response that streams a job's events."""
    stop = anyio.Event()
    return EventSourceResponse(job_events(look, stop), shutdown_event=stop, shutdown_grace_period=FAREWELL)


async def job_events(look: Callable[[], JobInfo | None], stop: anyio.Event) -> AsyncIterator[ServerSentEvent]:
    """Events until the job is in a final status, which is the last one, or `stop`. `look` runs in a thread."""
    before: JobInfo | None = None
    while (info := await asyncio.to_thread(look)) is not None:
        if before is None or _without_progress(info) != _without_progress(before):
            yield ServerSentEvent(info.model_dump_json(), event="status")
        if info.progress is not None and (before is None or info.progress != before.progress):
            yield ServerSentEvent(info.progress.model_dump_json(), event="progress")
        if info.status.is_final:
            return
        before = info
        with anyio.move_on_after(EVERY):
            await stop.wait()
            return


def _without_progress(info: JobInfo) -> JobInfo:
    return info.model_copy(update={"progress": None})
