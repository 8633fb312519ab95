"""What both clients send, what they make of the answers, and when they ask again."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from evalkit.errors import EvalkitError, one_line

TOKEN_VARIABLE = "EVALKIT_TOKEN"
FINAL = ("completed", "failed", "cancelled")
SECONDS = 30.0
MERGE_WAIT = 20.0
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
BUSY = (429, 502, 503, 504)


class EvalServerError(EvalkitError):
    """The server refused a request, or failed; `status` is that of HTTP, `resent` says whether it was asked before."""

    def __init__(self, status: int, message: str, *, resent: bool = False) -> None:
        super().__init__(message)
        self.status, self.resent = status, resent


class ServerUnreachableError(EvalkitError):
    """No server answers."""


class JobTimeoutError(EvalkitError, TimeoutError):
    """A job has not ended in time; it goes on."""


class Call(NamedTuple):
    """A request: all of them may be sent twice, a job because of its idempotency key."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] | None = None


def evaluate(model: str, tasks: Sequence[str], fields: Mapping[str, Any]) -> Call:
    """Submit a job; the same key leads to the same job when it is sent again."""
    given = {name: value for name, value in fields.items() if value is not None}
    key = given.pop("idempotency_key", None) or uuid.uuid4().hex
    return Call("POST", "/evaluate", {"model": model, "tasks": list(tasks), **given}, {"Idempotency-Key": key})


def merge(checkpoint_path: str, output_path: str | None, checkpoint_type: str, timeout: httpx.Timeout) -> Call:
    """A merge that is waited for, for less than the time after which a connection counts as dead; send it again."""
    fields = {"checkpoint_path": checkpoint_path, "output_path": output_path, "checkpoint_type": checkpoint_type}
    given = {name: value for name, value in fields.items() if value is not None}
    wait = min(MERGE_WAIT, (timeout.read or SECONDS) / 2)
    return Call("POST", f"/merge?wait={wait:g}", given, {"Idempotency-Key": uuid.uuid4().hex})


def job_path(job_id: str, more: str = "") -> str:
    """Where a job is found."""
    return f"/jobs/{quote(job_id, safe='')}{more}"


def samples(job_id: str, task: str) -> Call:
    """Ask for a task's samples."""
    return Call("GET", job_path(job_id, f"/samples/{quote(task, safe='')}"))


def rows(text: str) -> list[dict[str, Any]]:
    """The lines of a JSON Lines answer."""
    return [json.loads(line) for line in text.split("\n") if line]


def settings(base_url: str, timeout: float, token: str | None) -> dict[str, Any]:
    """Arguments of httpx's clients; without a token that of EVALKIT_TOKEN."""
    token = token or os.environ.get(TOKEN_VARIABLE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return {"base_url": base_url.rstrip("/"), "timeout": timeout, "headers": headers}


def cancelled_before(job_id: str, error: EvalServerError) -> dict[str, Any]:
    """The answer where a request that was sent again finds what the first one did. Raises `error` elsewhere."""
    if error.resent and error.status == 409 and "is cancelled already" in str(error):
        return {"job_id": job_id, "status": "cancelled", "message": f"Job {job_id} cancelled"}
    raise error


def checked(response: httpx.Response, *, resent: bool = False) -> httpx.Response:
    """The response. Raises EvalServerError where it says that something failed."""
    if response.is_success:
        return response
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text or response.reason_phrase
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in detail)
    raise EvalServerError(
        response.status_code,
        f"the server says {response.status_code}: {one_line(Exception(detail))}",
        resent=resent,
    )


class Attempts:
    """How long to wait before a request is sent again: `patience` seconds in all."""

    def __init__(self, patience: float) -> None:
        self._end = time.monotonic() + patience
        self._pauses = chain(PAUSES, repeat(PAUSES[-1]))
        self.resent = False

    def after(self, response: httpx.Response) -> float | None:
        """Seconds until the next one, or None: this is the answer."""
        return self._pause() if response.status_code in BUSY else None

    def after_failure(self, error: httpx.TransportError, base_url: object) -> float:
        """Seconds until the next one. Raises ServerUnreachableError where there is none."""
        pause = self._pause()
        if pause is None:
            raise ServerUnreachableError(
                f"no server answers at {base_url} ({one_line(error)}). Start one with: evalkit serve"
            ) from error
        return pause

    def _pause(self) -> float | None:
        left = self._end - time.monotonic()
        if left <= 0:
            return None
        self.resent = True
        return min(next(self._pauses), left)


def too_late(job_id: str, timeout: float, status: str) -> JobTimeoutError:
    """The error of a wait that ends before its job."""
    return JobTimeoutError(f"job {job_id} is still {status} after {timeout:g} s. It goes on: ask again later")
