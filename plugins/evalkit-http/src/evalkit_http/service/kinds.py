"""Kinds of jobs: what a job's process is told to do, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalkit.engine import redact
from evalkit.errors import one_line
from evalkit_http.service.job import Job
from evalkit_http.service.protocol import JobStatus, Progress

LOG = "job.log"
TAIL_BYTES = 8192
PREFIX = "evalkit: "
EXPECTED = 2
"""The exit status of the command line where it said in one line what is wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    status: JobStatus
    result: dict[str, Any] | None = None
    error: str | None = None


class Kind(Protocol):
    """One kind of job. `folder` is the job's own; all methods may be called again after a crash."""

    def words(self, job: Job, folder: Path) -> list[str]:
        """The words behind `evalkit` that do the job, or continue it."""
        ...

    def outcome(self, job: Job, folder: Path) -> Outcome | None:
        """What the files say: None where the job is not done."""
        ...

    def progress(self, job: Job, folder: Path) -> Progress | None:
        """How far a running job is; None where nobody knows."""
        ...


Kinds = Mapping[str, Kind]


def failure(folder: Path, returncode: int) -> Outcome:
    """The outcome of a process that ended without having done its job: its own last words."""
    return Outcome(JobStatus.FAILED, error=redact(_last_words(folder / LOG, returncode)))


def _last_words(log: Path, returncode: int) -> str:
    lines = [line for line in tail(log, TAIL_BYTES).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith(PREFIX)), None)
    if said is not None and returncode == EXPECTED:
        return said.removeprefix(PREFIX)
    how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with exit status {returncode}"
    last = f": {one_line(Exception(lines[-1]))}" if lines else ""
    return f"the job's process {how}{last}. See the job's log"


def tail(path: Path, most: int) -> str:
    """The last `most` bytes of a text file; empty where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - most))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
