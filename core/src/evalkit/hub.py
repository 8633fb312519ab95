"""Whether the Hugging Face hub can be reached: asked once, so that a missing network costs seconds, not minutes."""

from __future__ import annotations

import functools
import os
import socket
import sys
from urllib.parse import urlsplit
from urllib.request import getproxies

TIMEOUT = 5.0


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub answers. Where it does not, huggingface_hub is told to be offline and use its cache.

    Without that it retries for half a minute for every file, and prints each attempt.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    # Behind a proxy names need not resolve here: let the library find out.
    if getproxies() or _answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        return True
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (loaded := sys.modules.get("huggingface_hub.constants")) is not None:
        loaded.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    return False


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT):
            return True
    except OSError:
        return False
