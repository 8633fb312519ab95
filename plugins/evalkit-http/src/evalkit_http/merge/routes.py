"""POST /merge: a job like any other, and an answer when it has ended."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from evalkit_http.merge.job import merge_work
from evalkit_http.merge.protocol import MergeRequest, MergeResponse
from evalkit_http.security import requires
from evalkit_http.service.job import Accepted, Job
from evalkit_http.service.protocol import JobStatus
from evalkit_http.service.routes import Here, Key, submit

router = APIRouter()
EVERY = 0.2
LONGEST = 86_400.0
Wait = Annotated[float, Query(ge=0, le=LONGEST, description="Seconds to wait for its end before answering.")]


@router.post(
    "/merge",
    dependencies=[Depends(requires("submit"))],
    tags=["jobs"],
    responses={409: {"description": "The merge failed or was cancelled."}, 429: {"description": "The queue is full."}},
)
async def merge(
    body: MergeRequest, here: Here, request: Request, key: Key = None, wait: Wait = LONGEST
) -> MergeResponse:
    """Merge an FSDP2 checkpoint. Answers when it is merged, or after `wait` seconds; `/jobs/{job_id}` tells more."""
    work = await asyncio.to_thread(merge_work, body, here.args, here.slots)
    new = Accepted("merge", body.model_dump(mode="json"), work, key=key)
    accepted = await asyncio.to_thread(submit, here, new)
    end = time.monotonic() + wait
    job = await asyncio.to_thread(here.store.find, accepted.job_id)
    while job is not None and not job.status.is_final and time.monotonic() < end:
        if await request.is_disconnected():
            break
        await asyncio.sleep(EVERY)
        job = await asyncio.to_thread(here.store.find, accepted.job_id)
    return _response(accepted.job_id, job)


def _response(job_id: str, job: Job | None) -> MergeResponse:
    if job is None or not job.status.is_final:
        return MergeResponse(success=True, message=f"Merging as job {job_id}", job_id=job_id)
    if job.status != JobStatus.COMPLETED or not job.result:
        raise HTTPException(409, f"merge {job_id} {job.status}: {job.error or 'it was stopped'}")
    return MergeResponse(success=True, message="Merged", merged_path=job.result["merged_path"], job_id=job_id)
