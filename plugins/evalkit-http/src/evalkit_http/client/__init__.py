"""Clients of the evaluation service: `EvalClient`, and `AsyncEvalClient` with the same methods awaited."""

from evalkit_http.client.awaited import AsyncEvalClient
from evalkit_http.client.blocking import EvalClient
from evalkit_http.client.calls import EvalServerError, JobTimeoutError, ServerUnreachableError

__all__ = ["AsyncEvalClient", "EvalClient", "EvalServerError", "JobTimeoutError", "ServerUnreachableError"]
