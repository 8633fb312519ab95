"""Clients of the evaluation service: `EvalClient`, and `AsyncEvalClient` with the same methods awaited."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, Self
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


def _evaluate(model: str, tasks: Sequence[str], fields: Mapping[str, Any]) -> Call:
    given = {name: value for name, value in fields.items() if value is not None}
    key = given.pop("idempotency_key", None) or uuid.uuid4().hex
    return Call("POST", "/evaluate", {"model": model, "tasks": list(tasks), **given}, {"Idempotency-Key": key})


def _merge(checkpoint_path: str, output_path: str | None, checkpoint_type: str, timeout: httpx.Timeout) -> Call:
    """A merge that is waited for, for less than the time after which a connection counts as dead; send it again."""
    fields = {"checkpoint_path": checkpoint_path, "output_path": output_path, "checkpoint_type": checkpoint_type}
    given = {name: value for name, value in fields.items() if value is not None}
    wait = min(MERGE_WAIT, (timeout.read or SECONDS) / 2)
    return Call("POST", f"/merge?wait={wait:g}", given, {"Idempotency-Key": uuid.uuid4().hex})


def _job(job_id: str, more: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{more}"


def _samples(job_id: str, task: str) -> Call:
    return Call("GET", _job(job_id, f"/samples/{quote(task, safe='')}"))


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def _settings(base_url: str, timeout: float, token: str | None) -> dict[str, Any]:
    token = token or os.environ.get(TOKEN_VARIABLE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return {"base_url": base_url.rstrip("/"), "timeout": timeout, "headers": headers}


def _cancelled_before(job_id: str, error: EvalServerError) -> dict[str, Any]:
    """The answer where a request that was sent again finds what the first one did. Raises `error` elsewhere."""
    if error.resent and error.status == 409 and "is cancelled already" in str(error):
        return {"job_id": job_id, "status": "cancelled", "message": f"Job {job_id} cancelled"}
    raise error


def _checked(response: httpx.Response, *, resent: bool = False) -> httpx.Response:
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


def _too_late(job_id: str, timeout: float, status: str) -> JobTimeoutError:
    return JobTimeoutError(f"job {job_id} is still {status} after {timeout:g} s. It goes on: ask again later")


class EvalClient:
    """Talks to a server; a context manager.

    `token` is sent with each request, by default that of EVALKIT_TOKEN. A server that does not answer, being restarted,
    say, is asked again for `patience` seconds. Raises EvalServerError and ServerUnreachableError.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        timeout: float = SECONDS,
        *,
        token: str | None = None,
        patience: float = SECONDS,
    ) -> None:
        self.patience = patience
        self._http = httpx.Client(**_settings(base_url, timeout, token))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _send(self, call: Call, patience: float | None = None) -> httpx.Response:
        attempts = Attempts(self.patience if patience is None else patience)
        while True:
            try:
                response = self._http.request(call.method, call.path, json=call.body, headers=call.headers)
            except httpx.TransportError as error:
                pause = attempts.after_failure(error, self._http.base_url)
            else:
                if (found := attempts.after(response)) is None:
                    return _checked(response, resent=attempts.resent)
                pause = found
            time.sleep(pause)

    def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._send(Call("GET", path)).json()
        return found

    def health(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._get("/health")

    def is_healthy(self) -> bool:
        """Whether a server answers now."""
        try:
            return bool(self._send(Call("GET", "/health"), 0).json()["status"] == "healthy")
        except (EvalkitError, ValueError, KeyError, TypeError):
            return False

    def list_tasks(self) -> list[str]:
        """Names of tasks."""
        return list(self._get("/tasks")["tasks"])

    def list_models(self) -> list[str]:
        """Names of engines, which is what `evaluate` calls `model`."""
        return list(self._get("/models")["models"])

    def evaluate(self, model: str, tasks: Sequence[str], **fields: Any) -> dict[str, Any]:
        """Submit a job, and return at once: its "job_id", "status" and "position_in_queue".

        `fields` are those of EvaluateRequest: model_args, num_fewshot, batch_size, device, limit, gen_kwargs, ...
        """
        found: dict[str, Any] = self._send(_evaluate(model, tasks, fields)).json()
        return found

    def get_job(self, job_id: str) -> dict[str, Any]:
        """A job: "status", "result", "error", "progress", ..."""
        return self._get(_job(job_id))

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, also one that runs."""
        try:
            found: dict[str, Any] = self._send(Call("DELETE", _job(job_id))).json()
        except EvalServerError as error:
            return _cancelled_before(job_id, error)
        return found

    def wait_for_job(self, job_id: str, poll_interval: float = 5.0, timeout: float | None = None) -> dict[str, Any]:
        """The job once it is completed, failed or cancelled. Raises JobTimeoutError, a TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while (job := self.get_job(job_id))["status"] not in FINAL:
            if end is not None and time.monotonic() >= end:
                raise _too_late(job_id, timeout or 0.0, job["status"])
            time.sleep(poll_interval if end is None else max(0.0, min(poll_interval, end - time.monotonic())))
        return job

    def get_queue_status(self) -> dict[str, Any]:
        """What runs and what waits."""
        return self._get("/queue")

    def samples(self, job_id: str, task: str) -> list[dict[str, Any]]:
        """What a completed job asked and got in a task, document by document."""
        return _rows(self._send(_samples(job_id, task)).text)

    def log(self, job_id: str) -> str:
        """What a job's process printed."""
        return self._send(Call("GET", _job(job_id, "/log"))).text

    def merge_checkpoint(
        self, checkpoint_path: str, output_path: str | None = None, checkpoint_type: str = "regular"
    ) -> dict[str, Any]:
        """Merge the shards of an FSDP2 checkpoint; returns when it is done. Raises EvalServerError where it failed."""
        call = _merge(checkpoint_path, output_path, checkpoint_type, self._http.timeout)
        found: dict[str, Any] = self._send(call).json()
        while found["merged_path"] is None:
            found = self._send(call).json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncEvalClient:
    """The same as EvalClient, awaited."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        timeout: float = SECONDS,
        *,
        token: str | None = None,
        patience: float = SECONDS,
    ) -> None:
        self.patience = patience
        self._http = httpx.AsyncClient(**_settings(base_url, timeout, token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _send(self, call: Call, patience: float | None = None) -> httpx.Response:
        attempts = Attempts(self.patience if patience is None else patience)
        while True:
            try:
                response = await self._http.request(call.method, call.path, json=call.body, headers=call.headers)
            except httpx.TransportError as error:
                pause = attempts.after_failure(error, self._http.base_url)
            else:
                if (found := attempts.after(response)) is None:
                    return _checked(response, resent=attempts.resent)
                pause = found
            await asyncio.sleep(pause)

    async def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._send(Call("GET", path))).json()
        return found

    async def health(self) -> dict[str, Any]:
        """What the server says of itself."""
        return await self._get("/health")

    async def is_healthy(self) -> bool:
        """Whether a server answers now."""
        try:
            return bool((await self._send(Call("GET", "/health"), 0)).json()["status"] == "healthy")
        except (EvalkitError, ValueError, KeyError, TypeError):
            return False

    async def list_tasks(self) -> list[str]:
        """Names of tasks."""
        return list((await self._get("/tasks"))["tasks"])

    async def list_models(self) -> list[str]:
        """Names of engines, which is what `evaluate` calls `model`."""
        return list((await self._get("/models"))["models"])

    async def evaluate(self, model: str, tasks: Sequence[str], **fields: Any) -> dict[str, Any]:
        """Submit a job; see EvalClient."""
        found: dict[str, Any] = (await self._send(_evaluate(model, tasks, fields))).json()
        return found

    async def get_job(self, job_id: str) -> dict[str, Any]:
        """A job: "status", "result", "error", "progress", ..."""
        return await self._get(_job(job_id))

    async def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, also one that runs."""
        try:
            found: dict[str, Any] = (await self._send(Call("DELETE", _job(job_id)))).json()
        except EvalServerError as error:
            return _cancelled_before(job_id, error)
        return found

    async def wait_for_job(
        self, job_id: str, poll_interval: float = 5.0, timeout: float | None = None
    ) -> dict[str, Any]:
        """The job once it is completed, failed or cancelled. Raises JobTimeoutError, a TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while (job := await self.get_job(job_id))["status"] not in FINAL:
            if end is not None and time.monotonic() >= end:
                raise _too_late(job_id, timeout or 0.0, job["status"])
            await asyncio.sleep(poll_interval if end is None else max(0.0, min(poll_interval, end - time.monotonic())))
        return job

    async def get_queue_status(self) -> dict[str, Any]:
        """What runs and what waits."""
        return await self._get("/queue")

    async def samples(self, job_id: str, task: str) -> list[dict[str, Any]]:
        """What a completed job asked and got in a task, document by document."""
        return _rows((await self._send(_samples(job_id, task))).text)

    async def log(self, job_id: str) -> str:
        """What a job's process printed."""
        return (await self._send(Call("GET", _job(job_id, "/log")))).text

    async def merge_checkpoint(
        self, checkpoint_path: str, output_path: str | None = None, checkpoint_type: str = "regular"
    ) -> dict[str, Any]:
        """Merge the shards of an FSDP2 checkpoint; returns when it is done. Raises EvalServerError where it failed."""
        call = _merge(checkpoint_path, output_path, checkpoint_type, self._http.timeout)
        found: dict[str, Any] = (await self._send(call)).json()
        while found["merged_path"] is None:
            found = (await self._send(call)).json()
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
