"""One thread owns the session and serves both lines in turns.

A scoring turn scores all that waits, in one forest. A generation turn runs requests side by side; others join and leave
while it lasts. While scoring requests wait, only generations that came before the turn's start still join, so each kind
waits for at most one turn of the other: for what had come before it, not for what comes later.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

from evalkit.engine import UNANSWERED, BaseInferenceSession
from evalkit.errors import ModelError, RequestError, one_line
from evalkit.requests import (
    GenerationOutput,
    GenerationPart,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit_http.openai.answers import samples
from evalkit_http.openai.hosts import Alone, Hosts, score
from evalkit_http.openai.lines import Event, Lines, Ticket
from evalkit_http.openai.metrics import Metrics

HEARTBEAT = 5.0
"""Seconds after which idle hosts hear of each other."""
STOPPED = "the server is being stopped"
log = logging.getLogger(__name__)
Feed = Iterator[tuple[int, GenerationRequest | None] | None]


class Scheduler:
    """Loads the model in its thread, then serves until it is stopped. That thread calls `on_ready` and `on_end`."""

    def __init__(
        self,
        load: Callable[[], BaseInferenceSession],
        *,
        metrics: Metrics,
        hosts: Hosts | None = None,
        max_running: int = 64,
        max_waiting: int = 1024,
    ) -> None:
        self._load = load
        self.on_ready: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.hosts: Hosts = hosts or Alone()
        self.metrics, self.max_running = metrics, max_running
        self.lines = Lines(max_waiting)
        self.session: BaseInferenceSession | None = None
        self.failure: BaseException | None = None
        self.ready = threading.Event()
        self.settled = threading.Event()
        """Set once the server is ready, or failed to get so."""
        self._running: dict[int, Ticket] = {}
        self._keys = itertools.count()
        self._stop_running = False
        self._thread = threading.Thread(target=self._run, name="evalkit-session", daemon=True)
        metrics.watch(self.lines, lambda: len(self._running))

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def stop(self, *, seconds: float = 30.0) -> None:
        """Refuse what waits, let what runs end for so long, then close the session. May be called again."""
        for ticket in self.lines.close():
            _fail(ticket, STOPPED)
        # A model that is still being loaded is not waited for: its thread ends with the process.
        if self._thread.ident is None or not self.settled.is_set():
            return
        self._thread.join(seconds)
        self._stop_running = True
        self._thread.join(seconds)

    def retry_after(self) -> int:
        """Seconds after which a client that was refused may try again."""
        waiting = self.lines.waiting("scoring") + self.lines.waiting("generation")
        return max(1, min(60, round(waiting * self.metrics.seconds_each())))

    # ── the session's thread ────────────────────────────────────────────────────────────────────────────
    def _run(self) -> None:
        try:
            self.session = self._load()
            # Several hosts would have to keep the same ones.
            self.session.keep_prefixes(isinstance(self.hosts, Alone))
            self.hosts.connect()
            self._prove()
            self.ready.set()
            self.settled.set()
            self.on_ready()
            self._serve(self.session)
        except BaseException as error:  # whatever it was, the server's owner reports it
            self.failure = error
        finally:
            self._end()

    def _end(self) -> None:
        self.ready.clear()
        for ticket in [*self.lines.close(), *self._running.values()]:
            _fail(ticket, STOPPED)
        try:
            self.hosts.say(("stop",))
        except Exception as error:  # they may have gone first
            log.warning("the other hosts cannot be told to stop: %s", one_line(error))
        if self.session is not None:
            self.session.close()
        self.settled.set()
        self.on_end()

    def _prove(self) -> None:
        """Generate one token. Raises ModelError where that fails."""
        assert self.session is not None
        events: list[Event] = []
        self.lines.join([Ticket(GenerationRequest(prompt="1, 2, 3,", max_new_tokens=1), events.append)])
        self._generate(self.session)
        output = events[-1] if events else GenerationOutput(error="the engine gave no answer")
        assert isinstance(output, GenerationOutput)
        if output.error:
            raise ModelError(f"the model is loaded but cannot generate: {output.error}. Try evalkit check-engine")

    def _serve(self, session: BaseInferenceSession) -> None:
        while not self.lines.closed:
            turn = self.lines.turn(HEARTBEAT)
            if turn == "scoring":
                self._score(session, self.lines.take_scoring())
            elif turn == "generation":
                self._generate(session)
            else:
                self.hosts.say(("idle",))

    def _score(self, session: BaseInferenceSession, tickets: list[Ticket]) -> None:
        started = time.perf_counter()
        for kind in (LoglikelihoodRequest, RollingLoglikelihoodRequest):
            chosen = [ticket for ticket in tickets if isinstance(ticket.request, kind)]
            if chosen:
                self._score_kind(session, chosen)
        self.lines.scored(len(tickets), time.perf_counter() - started)

    def _score_kind(self, session: BaseInferenceSession, tickets: list[Ticket]) -> None:
        self.metrics.started(tickets)
        left = dict(enumerate(tickets))
        requests: list[Request] = [ticket.request for ticket in tickets]
        try:
            self.hosts.say(("score", requests))
            for index, output in score(session, requests):
                self._finish(left.pop(index), output)
            if left:
                raise RequestError(UNANSWERED)
        except self.hosts.lost:
            raise
        except Exception as error:
            log.exception("scoring failed")
            self._retry_alone(session, list(left.values()), error, together=len(tickets) > 1)

    def _retry_alone(
        self, session: BaseInferenceSession, tickets: list[Ticket], error: Exception, *, together: bool
    ) -> None:
        """One bad request must not fail the others that it was scored with."""
        for ticket in tickets:
            if together:
                self._score_kind(session, [ticket])
            else:
                self._finish(ticket, _failed(ticket.request, one_line(error)))

    def _generate(self, session: BaseInferenceSession) -> None:
        try:
            self.hosts.say(("generate",))
            feed = self.hosts.leading(self._feed())
            for key, event in session.generate_live(feed, wants_parts=self._is_live):
                self._deliver(key, event)
            if self._running:
                raise RequestError(UNANSWERED)
        except self.hosts.lost:
            raise
        except Exception as error:
            log.exception("generation failed")
            self.hosts.say(("broken",))
            self._generate_alone(error)

    def _generate_alone(self, error: Exception) -> None:
        """One bad request must not fail the others that ran with it: each runs again, if nothing of it was sent."""
        tickets = [self._running.pop(key) for key in list(self._running)]
        again = [ticket for ticket in tickets if len(tickets) > 1 and not ticket.sent]
        for ticket in tickets:
            if ticket in again:
                ticket.alone = True
            else:
                self._finish(ticket, _failed(ticket.request, one_line(error)))
        self.lines.rejoin(again)

    def _feed(self) -> Feed:
        """Who joins and who leaves, asked between steps. Ends once nothing runs and nobody may join."""
        until = self.lines.newest()
        while True:
            for key in [key for key, ticket in self._running.items() if ticket.withdrawn or self._stop_running]:
                _fail(self._running.pop(key), STOPPED)
                yield key, None
            room = self.max_running - sum(ticket.weight for ticket in self._running.values())
            # More samples than may run at a time run when they have the place for themselves.
            ticket = self.lines.admit(until, room if self._running else 1 << 30)
            if ticket is not None:
                assert isinstance(ticket.request, GenerationRequest)
                self.metrics.started([ticket])
                key = next(self._keys)
                self._running[key] = ticket
                yield key, ticket.request
            elif self._running:
                yield None
            else:
                return

    def _is_live(self, key: int) -> bool:
        return key in self._running and self._running[key].live

    def _deliver(self, key: int, event: Event) -> None:
        ticket = self._running.get(key)
        if ticket is None:
            # It was withdrawn.
            return
        if isinstance(event, GenerationPart):
            ticket.first = ticket.first or time.perf_counter()
            if ticket.live:
                ticket.sent = True
                ticket.deliver(event)
        else:
            del self._running[key]
            self._finish(ticket, event)

    def _finish(self, ticket: Ticket, output: Output) -> None:
        if not output.error and not _is_number(output):
            output = _failed(ticket.request, "the model's log-probabilities are not numbers")
        self.metrics.finished(ticket, output)
        ticket.deliver(output)


def _failed(request: Request, problem: str) -> Output:
    if isinstance(request, GenerationRequest):
        return GenerationOutput(finish_reason="error", error=problem)
    if isinstance(request, LoglikelihoodRequest):
        return LoglikelihoodOutput(error=problem)
    return RollingLoglikelihoodOutput(error=problem)


def _is_number(output: Output) -> bool:
    """Whether its log-probabilities are numbers: JSON knows no others."""
    if isinstance(output, GenerationOutput):
        return not any(math.isnan(token.logprob) for one in samples(output) for token in one.logprobs or ())
    return not math.isnan(output.logprob)


def _fail(ticket: Ticket, problem: str) -> None:
    ticket.deliver(_failed(ticket.request, problem))
