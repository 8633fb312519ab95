"""A job of the service, as its store gives it and takes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit_http.service.protocol import JobStatus


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored. `work` is what its process needs; times are seconds since 1970."""

    number: int
    id: str
    kind: str
    status: JobStatus
    priority: int
    request: dict[str, Any]
    work: dict[str, Any]
    created: float
    started: float | None
    completed: float | None
    not_before: float
    attempts: int
    devices: tuple[str, ...]
    reason: str | None
    cancelled: bool
    result: dict[str, Any] | None
    error: str | None
    webhook_tries: int = 0
    crashes: int = 0
    answered: int = 0
    """How far it was when a server crashed, and how often one did since without it getting further."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job to be stored."""

    kind: str
    request: Mapping[str, Any]
    work: Mapping[str, Any]
    priority: int = 0
    key: str | None = None


def job_of(row: sqlite3.Row) -> Job:
    """The job that a row of the table says."""
    plain = {name: row[name] for name in row.keys() if name not in ("key", "webhook_due")}  # noqa: SIM118
    return Job(
        **{
            **plain,
            "status": JobStatus(row["status"]),
            "request": json.loads(row["request"]),
            "work": json.loads(row["work"]),
            "devices": tuple(json.loads(row["devices"])),
            "cancelled": bool(row["cancelled"]),
            "result": json.loads(row["result"]) if row["result"] else None,
        }
    )
