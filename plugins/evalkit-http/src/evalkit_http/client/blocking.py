"""`EvalClient`: the evaluation service from ordinary code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import httpx

from evalkit.errors import EvalkitError
from evalkit_http.client import calls
from evalkit_http.client.calls import FINAL, SECONDS, Attempts, Call, EvalServerError


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
        self._http = httpx.Client(**calls.settings(base_url, timeout, token))

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
                    return calls.checked(response, resent=attempts.resent)
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
        found: dict[str, Any] = self._send(calls.evaluate(model, tasks, fields)).json()
        return found

    def get_job(self, job_id: str) -> dict[str, Any]:
        """A job: "status", "result", "error", "progress", ..."""
        return self._get(calls.job_path(job_id))

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, also one that runs."""
        try:
            found: dict[str, Any] = self._send(Call("DELETE", calls.job_path(job_id))).json()
        except EvalServerError as error:
            return calls.cancelled_before(job_id, error)
        return found

    def wait_for_job(self, job_id: str, poll_interval: float = 5.0, timeout: float | None = None) -> dict[str, Any]:
        """The job once it is completed, failed or cancelled. Raises JobTimeoutError, a TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while (job := self.get_job(job_id))["status"] not in FINAL:
            if end is not None and time.monotonic() >= end:
                raise calls.too_late(job_id, timeout or 0.0, job["status"])
            time.sleep(poll_interval if end is None else max(0.0, min(poll_interval, end - time.monotonic())))
        return job

    def get_queue_status(self) -> dict[str, Any]:
        """What runs and what waits."""
        return self._get("/queue")

    def samples(self, job_id: str, task: str) -> list[dict[str, Any]]:
        """What a completed job asked and got in a task, document by document."""
        return calls.rows(self._send(calls.samples(job_id, task)).text)

    def log(self, job_id: str) -> str:
        """What a job's process printed."""
        return self._send(Call("GET", calls.job_path(job_id, "/log"))).text

    def merge_checkpoint(
        self, checkpoint_path: str, output_path: str | None = None, checkpoint_type: str = "regular"
    ) -> dict[str, Any]:
        """Merge the shards of an FSDP2 checkpoint; returns when it is done. Raises EvalServerError where it failed."""
        call = calls.merge(checkpoint_path, output_path, checkpoint_type, self._http.timeout)
        found: dict[str, Any] = self._send(call).json()
        while found["merged_path"] is None:
            found = self._send(call).json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
