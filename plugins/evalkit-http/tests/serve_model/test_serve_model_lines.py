"""The lines before the session: whose turn it is, who may join, who is told to come again."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from evalkit.engine import UNANSWERED, BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    RollingLoglikelihoodRequest,
)
from evalkit.testing.fake import Fake, FakeSession
from evalkit.testing.waiting import eventually
from evalkit_http.openai.lines import ClosedError, Event, FullError, Lines, Ticket
from evalkit_http.openai.metrics import Metrics
from evalkit_http.openai.scheduler import Scheduler
from evalkit_http.openai.server import build_openai_compatible_server

SCORE, WRITE = LoglikelihoodRequest("a", " b"), GenerationRequest(prompt="a", max_new_tokens=4)


class Noted(FakeSession):
    """The fake, with the calls that reach it, and a gate that holds each back."""

    def __init__(self) -> None:
        super().__init__(Fake(), Model("any"))
        self.calls: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def _note(self, kind: str, size: int) -> None:
        self.calls.append((kind, size))
        self.inside.set()
        self.gate.wait(30)

    def loglikelihood_continuous(self, requests: Any, *, batch_size: int | None = None) -> Iterator[Any]:
        asked = list(requests)
        self._note("scoring", len(asked))
        if len(asked) > 1 and any(request.continuation == "bomb" for _, request in asked):
            raise ValueError("one of these breaks the pass")
        if asked[0][1].continuation == "bomb":
            raise ValueError("it breaks alone too")
        kept = [(key, request) for key, request in asked if request.continuation != "lost"]
        for key, output in super().loglikelihood_continuous(kept, batch_size=batch_size):
            yield key, replace(output, logprob=math.nan) if asked[0][1].continuation == "nan" else output

    def generate_continuous(self, requests: Any, *, batch_size: int | None = None) -> Iterator[Any]:
        asked = list(requests)
        if asked:
            self._note("generation", len(asked))
        if any(request.prompt == "bomb" for _, request in asked):
            raise ValueError("the pass broke")
        kept = [(key, request) for key, request in asked if request.prompt != "lost"]
        yield from super().generate_continuous(kept, batch_size=batch_size)


class Desk:
    """A scheduler over a noted session, with the answers that come out of it."""

    def __init__(self, **options: Any) -> None:
        self.session = Noted()
        self.scheduler = Scheduler(lambda: self.session, metrics=Metrics(), **options)
        self.scheduler.start()
        assert self.scheduler.settled.wait(30)
        self.session.calls.clear()
        self.session.inside.clear()

    def put(self, *requests: Any, live: bool = False) -> list[tuple[Ticket, list[Event]]]:
        """Put requests in line together; their tickets, and what is delivered to each."""
        found: list[tuple[Ticket, list[Event]]] = []
        for request in requests:
            events: list[Event] = []
            found.append((Ticket(request, events.append, live), events))
        self.scheduler.lines.join([ticket for ticket, _ in found])
        return found

    def hold(self) -> None:
        """Keep the session busy until `release`."""
        self.session.gate.clear()
        self.session.inside.clear()
        self.put(SCORE)
        assert self.session.inside.wait(30)
        self.session.calls.clear()

    def release(self) -> None:
        """Let it go on."""
        self.session.gate.set()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.release()
    made.scheduler.stop()


def test_scoring_that_waits_is_one_call(desk: Desk) -> None:
    """What came while the session was busy is scored together, texts and rolling texts each."""
    desk.hold()
    put = desk.put(*[SCORE] * 20, RollingLoglikelihoodRequest("text"))
    desk.release()
    eventually(lambda: all(events for _, events in put))
    assert desk.session.calls == [("scoring", 20)]


def test_those_who_were_answered_together_are_waited_for() -> None:
    """One asks again at once, the other a moment later: both are in the next turn."""
    lines = Lines(10)
    lines.scored(2, 8.0)
    lines.join([Ticket(SCORE, lambda event: None)])
    late = threading.Timer(0.1, lines.join, [[Ticket(SCORE, lambda event: None)]])
    late.start()
    assert lines.turn(5.0) == "scoring"
    assert len(lines.take_scoring()) == 2
    late.join()


def test_nobody_waits_long_for_those_who_do_not_come() -> None:
    """The turn begins without them."""
    lines = Lines(10)
    lines.scored(32, 0.1)
    lines.join([Ticket(SCORE, lambda event: None)])
    assert lines.turn(5.0) == "scoring"
    assert len(lines.take_scoring()) == 1


def test_a_generation_that_waits_is_not_held_up() -> None:
    """Where generations wait as well nobody is gathered: the turn begins before the late one comes."""
    lines = Lines(10)
    lines.scored(2, 1000.0)
    lines.join([Ticket(kind, lambda event: None) for kind in (SCORE, WRITE)])
    late = threading.Timer(0.8, lines.join, [[Ticket(SCORE, lambda event: None)]])
    late.start()
    lines.turn(5.0)
    assert lines.waiting("scoring") == 1
    late.cancel()


def test_turns_alternate_between_those_that_wait(desk: Desk) -> None:
    """Neither kind waits for more than what came before it and one turn of the other."""
    desk.hold()
    first = desk.put(SCORE, WRITE, SCORE, WRITE)
    desk.release()
    eventually(lambda: all(events for _, events in first))
    assert desk.session.calls == [("generation", 2), ("scoring", 2)]


def test_no_generation_joins_past_scoring_that_waits() -> None:
    """Once scoring waits, only generations that came before the turn's start still begin in it."""
    lines = Lines(100)
    tickets = [Ticket(request, lambda event: None) for request in (WRITE, SCORE, WRITE)]
    lines.join(tickets[:2])
    until = lines.newest()
    lines.join(tickets[2:])
    assert lines.admit(until, 10) is tickets[0]
    assert lines.admit(until, 10) is None
    lines.take_scoring()
    assert lines.admit(until, 10) is tickets[2]


def test_generations_run_side_by_side_up_to_a_limit() -> None:
    """No more sequences than `max_running`; a request for more samples than that runs by itself."""
    desk = Desk(max_running=4)
    try:
        desk.hold()
        put = desk.put(*[WRITE] * 6, GenerationRequest(prompt="a", n=9, max_new_tokens=1), WRITE)
        desk.release()
        eventually(lambda: all(events for _, events in put))
        assert [size for kind, size in desk.session.calls if kind == "generation"] == [4, 2, 1, 1]
    finally:
        desk.scheduler.stop()


def test_one_that_breaks_a_pass_fails_alone(desk: Desk) -> None:
    """Those that were scored with it are scored again without it, those that were written with it written again."""
    desk.hold()
    put = desk.put(SCORE, LoglikelihoodRequest("a", "bomb"), SCORE)
    desk.release()
    eventually(lambda: all(events for _, events in put))
    errors = [events[0].error for _, events in put if isinstance(events[0], LoglikelihoodOutput)]
    assert errors == [None, "it breaks alone too", None]
    written = desk.put(WRITE, GenerationRequest(prompt="bomb", max_new_tokens=1), WRITE)
    eventually(lambda: all(events for _, events in written))
    errors = [events[0].error for _, events in written if isinstance(events[0], GenerationOutput)]
    assert errors == [None, "the pass broke", None]


def test_what_an_engine_leaves_unanswered_fails(desk: Desk) -> None:
    """Nobody waits for an answer that the session does not give."""
    lost = desk.put(LoglikelihoodRequest("a", "lost"), SCORE, GenerationRequest(prompt="lost", max_new_tokens=1), WRITE)
    eventually(lambda: all(events for _, events in lost))
    errors = [getattr(events[0], "error", None) for _, events in lost]
    assert errors == [UNANSWERED, None, UNANSWERED, None]


def test_what_is_no_number_is_an_error(desk: Desk) -> None:
    """JSON has no NaN: a client would read anything from it."""
    (asked,) = desk.put(LoglikelihoodRequest("a", "nan"))
    eventually(lambda: asked[1])
    assert isinstance(asked[1][0], LoglikelihoodOutput)
    assert "not numbers" in str(asked[1][0].error)


def test_withdrawn_requests_never_reach_the_session(desk: Desk) -> None:
    """Of what waits nothing is computed for a client that has gone, and nothing is delivered to it."""
    desk.hold()
    gone, kept = desk.put(SCORE, SCORE)
    desk.scheduler.lines.withdraw([gone[0]])
    desk.release()
    eventually(lambda: kept[1])
    assert desk.session.calls == [("scoring", 1)]
    assert not gone[1]


def test_the_lines_are_bounded() -> None:
    """A call that finds them full is refused, one that finds room joins as a whole; closed ones take none."""
    lines = Lines(2)
    lines.join([Ticket(SCORE, lambda event: None) for _ in range(5)])
    with pytest.raises(FullError):
        lines.join([Ticket(WRITE, lambda event: None)])
    assert len(lines.take_scoring()) == 5
    lines.join([Ticket(WRITE, lambda event: None)])
    assert len(lines.close()) == 1
    with pytest.raises(ClosedError):
        lines.join([])


def test_a_full_line_answers_429() -> None:
    """With Retry-After; and once there is room again requests are answered again."""
    with build_openai_compatible_server("evalkit.testing.fake:Fake", "any", max_waiting=1, max_running=1) as server:
        session = server.scheduler.session
        assert isinstance(session, FakeSession)
        session.engine.delay = 0.5
        with httpx.Client(base_url=server.url, timeout=60) as client:
            body = {"prompt": "a", "max_tokens": 1}
            statuses: list[httpx.Response] = []

            def ask() -> None:
                statuses.append(client.post("/v1/completions", json=body))

            threads = [threading.Thread(target=ask) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            refused = [answer for answer in statuses if answer.status_code == 429]
            assert refused
            assert {answer.status_code for answer in statuses} == {200, 429}
            assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
            assert refused[0].json()["error"]["type"] == "rate_limit_error"
            assert client.post("/v1/completions", json=body).status_code == 200


def test_stopping_answers_those_who_wait() -> None:
    """Nobody is left without an answer; the session is closed; stopping twice is allowed."""
    desk = Desk()
    desk.hold()
    put = desk.put(SCORE, WRITE)
    threading.Timer(0.3, desk.release).start()
    desk.scheduler.stop()
    assert all(events and events[-1].error for _, events in put)  # type: ignore[union-attr]
    assert desk.session.closed
    desk.scheduler.stop()


def test_a_session_without_live_generation_serves_too(desk: Desk) -> None:
    """The contract's own `generate_live` is enough: a third party's engine can be served."""
    assert not type(desk.session).joins_running
    assert issubclass(type(desk.session), BaseInferenceSession)
    (put,) = desk.put(WRITE, live=True)
    eventually(lambda: put[1])
    assert isinstance(put[1][-1], GenerationOutput)
