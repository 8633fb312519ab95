"""Two lines of waiting requests, scoring and generation, and whose turn it is. Bounded, and safe for many threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evalkit.requests import GenerationPart, GenerationRequest, Output, Request

Kind = Literal["scoring", "generation"]
Event = GenerationPart | Output
PAUSE, SETTLED = 0.004, 0.02
"""Seconds without a further request after which an idle server begins, and after which it begins in any case."""
ALONE = 1 << 20
PATIENCE, LONGEST = 0.1, 1.0
"""Those whom a scoring turn answered have this share of its time to ask again, and so many seconds at most."""


class FullError(Exception):
    """So many requests wait that another one would only grow old."""


class ClosedError(Exception):
    """The server is being stopped."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in a line. `deliver` gets its parts, where `live`, and its output, in the session's thread."""

    request: Request
    deliver: Callable[[Event], None]
    live: bool = False
    number: int = -1
    joined: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    first: float = 0.0
    withdrawn: bool = False
    sent: bool = False
    """Whether the client has parts of it."""
    alone: bool = False
    """Whether nothing may run beside it, because what it ran with has failed."""

    @property
    def kind(self) -> Kind:
        """The line it belongs to."""
        return "generation" if isinstance(self.request, GenerationRequest) else "scoring"

    @property
    def weight(self) -> int:
        """Sequences that it runs, or room for which nothing else may run."""
        if self.alone:
            return ALONE
        return self.request.n if isinstance(self.request, GenerationRequest) else 1


class Lines:
    """Requests that wait. At most `most` do, but for the last call's own: a call joins as a whole or not at all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition()
        self._lines: dict[Kind, deque[Ticket]] = {"scoring": deque(), "generation": deque()}
        self._last: Kind = "generation"
        self._expected, self._gathering_ends = 0, 0.0
        self._numbers = itertools.count()
        self._closed = False

    def waiting(self, kind: Kind) -> int:
        """Requests in a line."""
        return len(self._lines[kind])

    def join(self, tickets: Sequence[Ticket]) -> None:
        """Put requests at the end of their lines. Raises FullError, ClosedError."""
        with self._changed:
            if self._closed:
                raise ClosedError
            if sum(map(len, self._lines.values())) >= self.most:
                raise FullError
            for ticket in tickets:
                ticket.number = next(self._numbers)
                self._lines[ticket.kind].append(ticket)
            self._changed.notify_all()

    def rejoin(self, tickets: Sequence[Ticket]) -> None:
        """Put requests back at the head of their lines, in order."""
        with self._changed:
            for ticket in reversed(tickets):
                self._lines[ticket.kind].appendleft(ticket)
            self._changed.notify_all()

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Take requests out of their lines; those that run already are marked."""
        with self._changed:
            for ticket in tickets:
                ticket.withdrawn = True
            for kind, line in self._lines.items():
                self._lines[kind] = deque(ticket for ticket in line if not ticket.withdrawn)

    def turn(self, timeout: float) -> Kind | None:
        """Wait for requests; whose turn it is: the other kind's than last time where both wait. None: nobody came."""
        with self._changed:
            if not any(self._lines.values()):
                self._changed.wait_for(lambda: self._closed or any(self._lines.values()), timeout)
                self._let_settle()
            self._gather()
            waiting = [kind for kind, line in self._lines.items() if line]
            if not waiting:
                return None
            self._last = next((kind for kind in waiting if kind != self._last), waiting[0])
            return self._last

    def _let_settle(self) -> None:
        """Wait for the rest of a burst: requests that begin together share passes and prefixes."""
        latest = time.perf_counter() + SETTLED
        while not self._closed and time.perf_counter() < latest and self._changed.wait(PAUSE):
            pass

    def scored(self, count: int, seconds: float) -> None:
        """A scoring turn of so many requests ended, and took so long."""
        with self._changed:
            self._expected = count + len(self._lines["scoring"])
            self._gathering_ends = time.perf_counter() + min(PATIENCE * seconds, LONGEST)

    def _gather(self) -> None:
        """Wait for those whom the last turn answered, if requests of others wait already.

        Else clients fall apart into groups that take turns, and each group reads the examples that all share.
        """
        line = self._lines["scoring"]
        left = self._gathering_ends - time.perf_counter()
        if line and left > 0 and not self._lines["generation"]:
            self._changed.wait_for(lambda: self._closed or len(self._lines["scoring"]) >= self._expected, left)

    def take_scoring(self) -> list[Ticket]:
        """All scoring requests that wait."""
        with self._changed:
            taken = list(self._lines["scoring"])
            self._lines["scoring"].clear()
            return taken

    def newest(self) -> int:
        """A number above those of all requests so far."""
        with self._changed:
            return next(self._numbers)

    def admit(self, until: int, room: int) -> Ticket | None:
        """The next generation, if it fits the room: one of those before `until`, or any while no scoring waits."""
        with self._changed:
            line = self._lines["generation"]
            if not line or line[0].weight > room or (self._lines["scoring"] and line[0].number >= until):
                return None
            return line.popleft()

    def close(self) -> list[Ticket]:
        """Let nobody join any more; those who waited."""
        with self._changed:
            self._closed = True
            left = [ticket for line in self._lines.values() for ticket in line]
            for line in self._lines.values():
                line.clear()
            self._changed.notify_all()
            return left

    @property
    def closed(self) -> bool:
        """Whether the server is being stopped."""
        return self._closed
