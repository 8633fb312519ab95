"""How often a client may ask: a token bucket each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

BURST_SECONDS = 10
MAX_CLIENTS = 10_000


class Rates:
    """Buckets of `rate` requests a second, each with ten seconds' worth to begin with; rate 0 lets everything pass."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(1.0, rate * BURST_SECONDS)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0.0 where the client may ask now, else the seconds until it may."""
        if not self.rate:
            return 0.0
        now = self._clock()
        left, then = self._buckets.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        wait = max(0.0, (1.0 - left) / self.rate)
        self._buckets[client] = (left if wait else left - 1.0, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait
