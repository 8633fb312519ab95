"""What goes over the wire: the fields of lmms-eval's server, and ours beside them."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evalkit.errors import did_you_mean

Name = Annotated[str, Field(min_length=1, max_length=500)]


class JobStatus(StrEnum):
    """Where a job is: queued -> running -> completed, failed or cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a job stays there."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


def check_plain(values: Any) -> None:
    """Raise ValueError for what no file name can hold; later it would fail somewhere inside."""
    # A body over HTTP was checked for NaN and bad Unicode before; one from Python was not.
    if "\\u0000" in json.dumps(values, allow_nan=False, default=str):
        raise ValueError("a text holds a null character. Leave it out")


class Strict(BaseModel):
    """A body whose unknown fields are refused, with the nearest known name."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        check_plain(values)
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                short = str(name)[:100]
                raise ValueError(f"there is no field {short!r}.{did_you_mean(short, cls.model_fields)}")
        return values


class EvaluateRequest(Strict):
    """An evaluation. `model` names the engine; `model_args` holds the model ("pretrained", "model" or "path") and
    options of the engine and of the model.

    The fields from `priority` on are not lmms-eval's. Of jobs that wait, the one with the highest priority starts
    first. `timeout` is in seconds of running. The others are fields of a run.
    """

    model: Name
    tasks: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    model_args: dict[str, Any] | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=1000)] | None = None
    batch_size: int | Annotated[str, Field(max_length=20)] | None = None
    device: Annotated[str, Field(max_length=100)] | None = None
    limit: Annotated[int | float, Field(allow_inf_nan=False)] | None = None
    gen_kwargs: Annotated[str, Field(max_length=10_000)] | dict[str, Any] | None = None
    log_samples: bool = True
    predict_only: bool = False
    num_gpus: Annotated[int, Field(ge=0, le=4096)] = 1
    output_dir: Annotated[str, Field(max_length=4096)] | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    timeout: Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)] | None = None
    webhook: Annotated[str, Field(max_length=2000)] | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    apply_chat_template: bool | None = None
    chat_template_args: dict[str, Any] | None = None
    fewshot_as_multiturn: bool | None = None
    system_prompt: str | None = None
    think_end: str | None = None
    allow_code_execution: bool | None = None
    truncate: bool | None = None
    cache: bool | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None

    @field_validator("tasks", mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class EvaluateResponse(BaseModel):
    """An accepted job. `position_in_queue` counts the jobs before it."""

    job_id: str
    status: JobStatus
    position_in_queue: int | None
    message: str


class Progress(BaseModel):
    """How many of a job's requests are answered."""

    answered: int
    total: int


class JobInfo(BaseModel):
    """A job. Times are UTC, in ISO 8601.

    `reason` says why a queued job does not start, `devices` where a running one runs.
    """

    job_id: str
    kind: str
    status: JobStatus
    created_at: str
    started_at: str | None = None
    completed_at: str | None = None
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: str | None = None
    position_in_queue: int | None = None
    priority: int = 0
    attempts: int = 0
    reason: str | None = None
    devices: list[str] = []
    progress: Progress | None = None


class QueueStatus(BaseModel):
    """The queue. `running_job` is the first of `running_jobs`."""

    queue_size: int
    running_job: str | None
    queued_jobs: list[str]
    completed_jobs: int
    failed_jobs: int
    running_jobs: list[str] = []
    cancelled_jobs: int = 0


class Health(BaseModel):
    """The server answers."""

    status: str
    timestamp: str
    queue_size: int


class Cancelled(BaseModel):
    """What became of a job that was cancelled: a running one is being stopped."""

    job_id: str
    status: JobStatus
    message: str
