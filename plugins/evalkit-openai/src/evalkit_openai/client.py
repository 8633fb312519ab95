"""One server over HTTP: retries, rate limits, time limits, and errors that name their cause and hold no secret."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, NoReturn

import httpx
import stamina
from anyio import sleep

from evalkit.errors import ConfigError, ModelError, RequestError, one_line
from evalkit_openai.engine import OpenAICompatible
from evalkit_openai.limits import TokenBucket

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
TRANSIENT = frozenset({408, 409, 425, 429})
LONGEST_WAIT = 300.0
GIVE_UP = 8
"""Requests in a row that fail for good before the server is taken for gone."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Each retry is logged there as a warning; without a handler Python would print it to stderr, without its details.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class RefusedError(RequestError):
    """The server refuses this one request."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class OutageError(RequestError):
    """The server cannot be reached, or fails, after all retries; `status` where it answered at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TransientError(Exception):
    """An attempt failed in a way that another may not; `wait` are the seconds that the server asks for."""

    def __init__(self, message: str, wait: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.wait, self.status = wait, status


class Client:
    """Sends JSON to a server. Its methods run on the loop of `Workers`."""

    def __init__(self, engine: OpenAICompatible) -> None:
        self.engine = engine
        self.base = _base_url(engine.base_url)
        self.url = str(self.base.copy_with(userinfo=b"", query=None))
        """The address to show: without a password."""
        self._key = os.environ.get(engine.api_key_env, "").strip()
        self._buckets = {
            name: TokenBucket(per_minute)
            for name, per_minute in (("requests", engine.requests_per_minute), ("tokens", engine.tokens_per_minute))
            if per_minute
        }
        self._outages = 0
        self.headers: Mapping[str, str] = {}
        """Headers of the first answer."""
        self._http = httpx.AsyncClient(
            headers=self._request_headers(),
            timeout=httpx.Timeout(engine.timeout, connect=min(CONNECT_SECONDS, engine.timeout), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            verify=engine.verify_ssl,
            # A proxy for the outside world knows nothing of this machine's servers.
            trust_env=self.base.host not in LOOPBACK,
        )

    def _request_headers(self) -> dict[str, str]:
        own = {name: _from_environment(name, value) for name, value in self.engine.headers.items()}
        found = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            return dict(httpx.Headers({**found, **own}))
        except (UnicodeEncodeError, ValueError) as error:
            raise ConfigError(
                f"a header, or the key in {self.engine.api_key_env}, has characters that HTTP forbids. Check them"
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str, *, at_root: bool = False, retries: int | None = None) -> Any:
        """What a route answers. Raises RefusedError, OutageError; ModelError where the key is refused."""
        return await self._patiently("GET", self._address(path, at_root), None, 0, retries)

    async def post(
        self, path: str, body: Mapping[str, Any], *, tokens: int = 0, at_root: bool = False, retries: int | None = None
    ) -> Any:
        """What a route answers to `body`; `tokens` is what it counts for the rate limit."""
        return await self._patiently("POST", self._address(path, at_root), body, tokens, retries)

    def _address(self, path: str, at_root: bool) -> httpx.URL:
        base = self.base.path.rstrip("/")
        return self.base.copy_with(path=(base.removesuffix("/v1") if at_root else base) + path)

    async def _patiently(
        self, method: str, url: httpx.URL, body: Mapping[str, Any] | None, tokens: int, retries: int | None
    ) -> Any:
        attempts = 1 + (self.engine.retries if retries is None else retries)
        try:
            async for attempt in stamina.retry_context(
                on=_backoff, attempts=attempts, timeout=None, wait_initial=0.5, wait_max=30.0, wait_jitter=0.5
            ):
                with attempt:
                    await self._wait_for_limits(tokens)
                    found = await self._send(method, url, body)
        except TransientError as error:
            self._outages += 1
            times = f" ({attempts} attempts)" if attempts > 1 else ""
            message = f"no answer from {self.url}{times}: {one_line(error)}"
            if self._outages >= GIVE_UP:
                raise ModelError(
                    f"{message}. So failed {self._outages} requests in a row. See to the server, then: evalkit resume"
                ) from error
            raise OutageError(message, error.status) from error
        self._outages = 0
        return found

    async def _wait_for_limits(self, tokens: int) -> None:
        costs = {"requests": 1, "tokens": tokens}
        waits = [bucket.take(costs[name]) for name, bucket in self._buckets.items()]
        if waits and max(waits) > 0:
            await sleep(max(waits))

    async def _send(self, method: str, url: httpx.URL, body: Mapping[str, Any] | None) -> Any:
        try:
            response = await self._http.request(method, url, json=body)
        except httpx.TimeoutException as error:
            raise TransientError(f"no answer within {self.engine.timeout:g} s ({type(error).__name__})") from error
        except httpx.TransportError as error:
            raise TransientError(self._shown(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise RefusedError(f"the request cannot be sent: {self._shown(error)}", 0) from error
        self.headers = self.headers or dict(response.headers)
        if response.status_code >= 300:
            self._fail(response)
        try:
            return response.json()
        except ValueError as error:
            raise TransientError("the answer is no JSON") from error

    def _fail(self, response: httpx.Response) -> NoReturn:
        status = response.status_code
        message = f"{status}: {self._shown(error_message(response))}"
        if status in (401, 403):
            raise ModelError(
                f"the server at {self.url} refuses the key ({message}). Set the environment variable "
                f"{self.engine.api_key_env}, or name another with --engine-arg api_key_env="
            )
        if status == 429 and "insufficient_quota" in response.text:
            raise ModelError(f"the account at {self.url} has no quota left ({message}). Add to it, then run again")
        # llama-cpp-python has no other status for a wrong field.
        is_wrong_field = status == 500 and "validation error" in message
        if status in TRANSIENT or (status >= 500 and not is_wrong_field):
            raise TransientError(message, retry_after(response.headers), status)
        if status < 400:
            message += f" (it redirects to {response.headers.get('location', 'elsewhere')}; check base_url)"
        raise RefusedError(message, status)

    def _shown(self, message: object) -> str:
        """A message without the key: some servers repeat it."""
        text = one_line(message) if isinstance(message, BaseException) else " ".join(str(message).split())
        return text.replace(self._key, "***") if self._key else text


def error_message(response: httpx.Response) -> str:
    """What a server says of its error, in any of the usual shapes."""
    try:
        found: Any = response.json()
    except ValueError:
        found = response.text
    for name in ("error", "detail", "message", "msg"):
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, Mapping) and found.get(name):
            found = found[name]
    text = found if isinstance(found, str) else json.dumps(found)
    return text[:300] or response.reason_phrase


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that Retry-After asks for, given as a number or a date; None without it."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return min(float(value), LONGEST_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time()), LONGEST_WAIT)
    except (ValueError, TypeError, OverflowError):
        return None


def _backoff(error: Exception) -> bool | float:
    if not isinstance(error, TransientError):
        return False
    return True if error.wait is None else error.wait


def _base_url(given: str | None) -> httpx.URL:
    """The address up to "/v1". Raises ConfigError."""
    text = (given or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip().rstrip("/")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError("base_url is no address. Give one such as http://localhost:8000/v1") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("base_url is no address with a host. Give one such as http://localhost:8000/v1")
    # lm-evaluation-harness wants the whole route there.
    path = url.path.rstrip("/").removesuffix("/completions").removesuffix("/chat")
    return url.copy_with(path=path)


def _from_environment(name: str, value: str) -> str:
    """A header's value, with "$NAME" replaced by that variable. Raises ConfigError where it is not set."""
    missing = [variable for variable in re.findall(r"\$\{?(\w+)\}?", value) if variable not in os.environ]
    if missing:
        raise ConfigError(f"header {name!r} names the environment variable {missing[0]}, which is not set. Set it")
    return os.path.expandvars(value)
