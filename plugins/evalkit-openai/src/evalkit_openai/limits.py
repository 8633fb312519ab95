"""Rate limits: a token bucket that says how long to wait."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Lets `per_minute` units pass a minute, at most one second's worth (or a single unit) of them at once.

    A request larger than that is let through and paid off by those behind it.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate)
        self._clock = clock
        self._level = self.capacity
        self._filled = clock()

    def take(self, units: float) -> float:
        """Take `units` and return the seconds to wait before they may be used."""
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._filled) * self.rate)
        self._filled = now
        wait = max(0.0, min(units, self.capacity) - self._level) / self.rate
        self._level -= units
        return wait
