"""The guards in front of an app, as pure ASGI: headers, Host, rate, token, body; a refusal is one clear error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evalkit_http.security.bodies import BadBodyError, check_json
from evalkit_http.security.errors import INTERNAL, ErrorBody, error_response
from evalkit_http.security.rates import Rates
from evalkit_http.security.settings import SecuritySettings
from evalkit_http.security.tokens import ANYONE, Caller

logger = logging.getLogger("evalkit_http")
DOCS = ("/docs", "/redoc")
OPEN = ("/", "/page/", "/health", "/ready", "/openapi.json", *DOCS)
"""Paths that need no token: they show nothing of what is evaluated. "/page/" stands for all below it."""
LINGER_SECONDS = 2.0
POLICY = "default-src 'none'; frame-ancestors 'none'"
# FastAPI's documentation pages load their scripts from a CDN, and start them inline.
DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' "
    "https://cdn.jsdelivr.net https://fonts.googleapis.com; img-src 'self' data: https://fastapi.tiangolo.com "
    "https://cdn.redoc.ly; font-src https://fonts.gstatic.com; connect-src 'self'; worker-src blob:; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
TOKEN_NEEDED = "this needs a token. Send it as 'Authorization: Bearer TOKEN'"


class RefusedError(Exception):
    """A request that ends here, with this status."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(slots=True)
class Guard:
    """Stands before `app`: lets a request in, or answers it."""

    app: ASGIApp
    settings: SecuritySettings
    shape: ErrorBody
    open_paths: tuple[str, ...] = OPEN
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(self.settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reply = _Reply(scope, send)
        try:
            self._check(scope)
            receive = await self._checked_body(scope, receive)
            await self.app(scope, receive, reply)
        except RefusedError as refused:
            await self._refuse(refused, scope, receive, reply)
        except Exception:
            # Handled here, not by the server, which would close the connection under the client's next request.
            logger.exception("%s %r failed", scope["method"], scope["path"])
            if reply.started:
                raise
            await error_response(self.shape, 500, INTERNAL)(scope, receive, reply)

    async def _refuse(self, refused: RefusedError, scope: Scope, receive: Receive, reply: Send) -> None:
        response = error_response(self.shape, refused.status, str(refused), headers=refused.headers)
        if refused.status != 413:
            await response(scope, receive, reply)
            return
        # Closing while the client still writes would reset the connection before it reads the answer.
        await reply({"type": "http.response.start", "status": 413, "headers": response.raw_headers})
        await reply({"type": "http.response.body", "body": response.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_drain(receive, 8 * self.settings.max_body_bytes), LINGER_SECONDS)
        await reply({"type": "http.response.body", "body": b""})

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        _check_host(headers, self.settings.host_names)
        _check_origin(headers)
        caller = self._caller(headers)
        address = (scope.get("client") or ("unknown",))[0]
        wait = self.rates.take(address if caller is None or caller is ANYONE else caller.name)
        if wait:
            raise RefusedError(429, "too many requests: wait and send it again", retry_after=str(math.ceil(wait)))
        if caller is None and not self._is_open(scope):
            raise RefusedError(401, TOKEN_NEEDED, www_authenticate="Bearer")
        scope.setdefault("state", {})["caller"] = caller

    def _caller(self, headers: Headers) -> Caller | None:
        if not self.settings.tokens:
            return ANYONE
        kind, _, token = headers.get("authorization", "").partition(" ")
        return self.settings.tokens.caller(token.strip()) if kind.lower() == "bearer" else None

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return path in self.open_paths or any(
            path.startswith(p) for p in self.open_paths if p.endswith("/") and p != "/"
        )

    async def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return receive
        try:
            body = await asyncio.wait_for(self._body(headers, receive), self.settings.body_seconds)
        except TimeoutError:
            raise RefusedError(408, "the body did not arrive in time. Send it again", connection="close") from None
        if body is None:
            return _replay([{"type": "http.disconnect"}], receive)
        if body:
            _check_body(headers, body)
        return _replay([{"type": "http.request", "body": body, "more_body": False}], receive)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None where the client left."""
        limit = self.settings.max_body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:18]) > limit:
            raise _too_large(limit)
        parts = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts += message.get("body", b"")
            if len(parts) > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return bytes(parts)


async def _drain(receive: Receive, limit: int) -> None:
    """Throw away what is still on its way, up to `limit` bytes."""
    while limit > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        limit -= len(message.get("body", b""))


def _too_large(limit: int) -> RefusedError:
    # The rest of the body is still on its way: the connection cannot be used again.
    return RefusedError(413, f"the body is larger than {limit} bytes. Send less", connection="close")


def _check_body(headers: Headers, body: bytes) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can send every type but this one without asking first.
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RefusedError(415, "the body is no JSON. Send it with 'Content-Type: application/json'")
    try:
        check_json(body)
    except BadBodyError as error:
        raise RefusedError(400, f"{error}. Send plain JSON") from error


def _check_host(headers: Headers, names: Iterable[str]) -> None:
    names = tuple(names)
    host = _without_port(headers.get("host", ""))
    if names and host.lower() not in {name.lower() for name in names}:
        raise RefusedError(421, "this server does not answer to that name. Its operator can add it: --allow-host NAME")


def _check_origin(headers: Headers) -> None:
    """A browser names the page that asks: only pages of this server may."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise RefusedError(403, "pages of other sites may not ask here")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _replay(messages: list[Message], receive: Receive) -> Receive:
    async def next_message() -> Message:
        return messages.pop(0) if messages else await receive()

    return next_message


class _Reply:
    """Sends an answer with the security headers, where it has none of its own."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = False
        self._send = send
        self._headers = {**HEADERS, "content-security-policy": DOCS_POLICY if scope["path"] in DOCS else POLICY}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)
