"""Wait in a test for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
GLANCE = 0.02


def eventually(look: Callable[[], T], seconds: float = 120) -> T:
    """What `look` finds, as soon as that is true. Raises AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(GLANCE)
    raise AssertionError(f"it did not come to that in {seconds:g} s")
