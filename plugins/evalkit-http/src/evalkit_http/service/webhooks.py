"""Tell somebody that a job ended: signed, tried again for hours, and remembered over restarts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from urllib.parse import urlsplit

import httpx

from evalkit.errors import ConfigError
from evalkit_http.service.args import ANY_HOST, ServerArgs
from evalkit_http.service.job import Job
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.views import job_info

logger = logging.getLogger("evalkit_http")
SIGNATURE, TIMESTAMP = "X-Evalkit-Signature", "X-Evalkit-Timestamp"
SECONDS = 10.0
MOST_TRIES = 12
FIRST_PAUSE = 2.0
AT_ONCE = 20


def check_webhook(url: str | None, args: ServerArgs) -> None:
    """Raise ConfigError for an address that the server may not call."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or parts.username or parts.password:
        raise ConfigError(
            f"webhook {url!r} is no address. Give one that begins with http:// or https://, without a password"
        )
    if host not in args.webhook_hosts and ANY_HOST not in args.webhook_hosts:
        raise ConfigError(
            f"this server calls no webhooks at {host!r}. Start it with: evalkit serve --webhook-host {host}"
        )


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What a receiver compares: "sha256=" and the HMAC of "TIMESTAMP.BODY"."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


async def deliver(store: JobStore, secret: str | None) -> None:
    """Tell of every ended job that is due, and settle when to try again. A receiver may be told twice."""
    due = store.webhooks(time.time(), AT_ONCE)
    if not due:
        return
    # A redirect could lead where no request may: to an address inside.
    async with httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
        causes = await asyncio.gather(*(_tell(client, job, secret) for job in due))
    for job, cause in zip(due, causes, strict=True):
        tries = job.webhook_tries + 1
        over = cause is None or tries >= MOST_TRIES
        store.tell_again(job.id, None if over else time.time() + FIRST_PAUSE * 2**tries)
        if cause is not None:
            logger.warning("webhook of job %s, attempt %s: %s", job.id, tries, cause)


async def _tell(client: httpx.AsyncClient, job: Job, secret: str | None) -> str | None:
    """Send one job; why it was not accepted."""
    body = json.dumps(job_info(job).model_dump(mode="json")).encode()
    now = str(int(time.time()))
    signed = {SIGNATURE: signature(secret, now, body)} if secret else {}
    headers = {"Content-Type": "application/json", TIMESTAMP: now, **signed}
    try:
        response = await client.post(job.work["webhook"], content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if response.is_success else f"status {response.status_code}"
