"""The bodies of POST /merge; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CheckpointType = Literal["regular", "ema"]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]


class MergeRequest(BaseModel):
    """A checkpoint folder to merge; without `output_path` into a folder `merged` or `merged_ema` in it."""

    model_config = ConfigDict(extra="forbid")

    checkpoint_path: PathText
    output_path: PathText | None = None
    checkpoint_type: CheckpointType = "regular"


class MergeResponse(BaseModel):
    """What became of it; `merged_path` is null as long as the job `job_id` has not ended well."""

    success: bool
    message: str
    merged_path: str | None = None
    job_id: str | None = None
