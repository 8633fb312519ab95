"""What /metrics tells Prometheus: requests, tokens, lines, and how long everything took."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from evalkit.requests import GenerationOutput, Output

if TYPE_CHECKING:
    from evalkit_http.openai.lines import Kind, Lines, Ticket

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KINDS: Sequence[Kind] = ("scoring", "generation")


class Metrics:
    """One server's own registry: several servers in a process do not mix."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.responses = Counter(
            "evalkit_http_requests", "Answered HTTP requests.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "evalkit_http_request_seconds",
            "From the request's last byte to the answer's.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter("evalkit_tokens", "Tokens of answered requests.", ["direction"], registry=registry)
        self.failed = Counter(
            "evalkit_failed", "Requests that the engine could not answer.", ["kind"], registry=registry
        )
        self.waiting = Gauge("evalkit_waiting", "Requests in line.", ["kind"], registry=registry)
        self.running = Gauge("evalkit_running", "Generations under way.", registry=registry)
        self.waited_seconds = self._histogram("evalkit_waited_seconds", "In line.")
        self.first_token_seconds = Histogram(
            "evalkit_first_token_seconds",
            "From joining the line to the first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self.work_seconds = self._histogram("evalkit_work_seconds", "From leaving the line to the answer.")
        self._pace = 0.05

    def _histogram(self, name: str, help_text: str) -> Histogram:
        return Histogram(name, help_text, ["kind"], buckets=SECONDS, registry=self.registry)

    def watch(self, lines: Lines, running: Callable[[], int]) -> None:
        """Read these when asked."""
        for kind in KINDS:
            self.waiting.labels(kind).set_function(functools.partial(lines.waiting, kind))
        self.running.set_function(running)

    def started(self, tickets: Iterable[Ticket]) -> None:
        """Requests left their line."""
        now = time.perf_counter()
        for ticket in tickets:
            ticket.started = now
            self.waited_seconds.labels(ticket.kind).observe(now - ticket.joined)

    def finished(self, ticket: Ticket, output: Output) -> None:
        """A request is answered."""
        now = time.perf_counter()
        self.work_seconds.labels(ticket.kind).observe(now - ticket.started)
        self._pace += 0.1 * (min(now - ticket.started, 10.0) / 8 - self._pace)
        if output.error:
            self.failed.labels(ticket.kind).inc()
        elif isinstance(output, GenerationOutput):
            samples = (output, *output.alternatives)
            self.tokens.labels("prompt").inc(output.usage.prompt_tokens if output.usage else 0)
            self.tokens.labels("completion").inc(sum(len(sample.token_ids) for sample in samples))
            self.first_token_seconds.observe(self._first(ticket, output, now) - ticket.joined)
        else:
            self.tokens.labels("prompt").inc(output.token_count)

    @staticmethod
    def _first(ticket: Ticket, output: GenerationOutput, now: float) -> float:
        """When the first token came, as far as the engine tells."""
        known = ticket.started + output.timing.first_token if output.timing else now
        return ticket.first or min(known, now)

    def seconds_each(self) -> float:
        """About how long a request keeps the others waiting, of late; some eight run together."""
        return self._pace

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
