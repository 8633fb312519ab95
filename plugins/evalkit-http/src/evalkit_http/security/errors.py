"""Errors as a client reads them: `{"detail": ...}` of the evaluation service, or OpenAI's `{"error": {...}}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from evalkit.errors import EvalkitError, one_line
from evalkit_http.security.paths import ForbiddenError
from evalkit_http.security.redaction import Cleaner

ErrorBody = Callable[[int, str, str | None], dict[str, Any]]
"""The body of an error: of its status, message and the name of the parameter at fault."""
INTERNAL = "internal error; the server's log says more"
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def detail_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The evaluation service's errors."""
    return {"detail": message}


def openai_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's errors."""
    kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


SHAPES: Mapping[str, ErrorBody] = {"detail": detail_body, "openai": openai_body}


def error_response(
    shape: ErrorBody, status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(shape(status, message, param), status, headers=dict(headers or {}))


def install_errors(app: FastAPI, shape: ErrorBody, cleaner: Cleaner) -> None:
    """Answer every expected exception in one shape, without secrets."""

    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = cleaner.text(str(error.detail))
        return error_response(shape, error.status_code, message, headers=error.headers)

    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [_problem(problem, cleaner) for problem in error.errors()]
        if shape is detail_body:
            return JSONResponse({"detail": problems}, 422)
        first = problems[0]
        param = ".".join(map(str, first["loc"][1:])) or None
        return error_response(shape, 400, f"{param or 'body'}: {first['msg']}", param=param)

    def expected(request: Request, error: EvalkitError) -> JSONResponse:
        return error_response(shape, 403 if isinstance(error, ForbiddenError) else 400, cleaner.text(one_line(error)))

    handlers: dict[type[Exception], Any] = {
        HTTPException: http_error,
        RequestValidationError: invalid,
        EvalkitError: expected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _problem(problem: Mapping[str, Any], cleaner: Cleaner) -> dict[str, Any]:
    # Without the input: it may hold a key, and may be as large as the body.
    return {"loc": list(problem["loc"]), "msg": cleaner.text(problem["msg"]), "type": problem["type"]}
