"""PromptSession: the whole contract over an engine that schedules requests itself, as vLLM and its like do.

The engine is handed prompts and requests, in the order that suits its prefix cache, and answers in its own. Encoding,
truncation, windows, joining what can be asked at once, bounds, counters and parts of answers are here.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from evalkit.decoding import Feed as DecodeFeed
from evalkit.decoding import LiveAnswers, make_output, make_rows, merge
from evalkit.decoding.live import settled_text
from evalkit.errors import EvalkitError, one_line
from evalkit.requests import FinishReason, GenerationOutput, GenerationPart, TokenLogprob
from evalkit.scoring import ScoredTokens, Span
from evalkit.scoring.forest import fresh_tokens, sorted_prefixes
from evalkit.scoring.prompts import Prompt, PromptLimits, PromptPlan, PromptScores
from evalkit.sessions import DecodeRequest, TokenSession


@dataclass(frozen=True, slots=True)
class Decode:
    """A request to generate; with `parts`, tokens are to be told as they come."""

    item: DecodeRequest
    parts: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """New tokens of one sample of a request; `finish` with the last ones, and `computed` with the last sample's."""

    ids: tuple[int, ...]
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    sample: int = 0
    computed: int = 0


Work = Prompt | Decode
Answer = PromptScores | Written | str
"""What an engine says of its work; a text is the reason why there will be no answer."""


class PromptSession(TokenSession):
    """A session over `send`, `receive` and `withdraw`."""

    joins_running = True
    limits = PromptLimits()
    rows = 256
    """Requests that the engine is given at a time, those that wait in it included."""

    # ── primitives ──────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def send(self, number: int, work: Work) -> None:
        """Give the engine work, known by its number from now on. Raises EvalkitError where it cannot be asked."""

    @abstractmethod
    def receive(self) -> Iterable[tuple[int, Answer]]:
        """What is new of the work that was given; waits until there is something, or lets the engine do a step."""

    @abstractmethod
    def withdraw(self, number: int) -> None:
        """Forget work: nothing is said of it any more. It may be done already."""

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans together."""
        found: dict[int, ScoredTokens] = {}
        for index, scored in self._score(spans, None):
            if isinstance(scored, str):
                raise EvalkitError(scored)
            found[index] = scored
        return [found[index] for index in range(len(spans))]

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def _score(self, spans: list[Span], batch_size: int | None) -> Iterator[tuple[int, ScoredTokens | str]]:
        fresh = fresh_tokens([span.fed for span in spans]) if spans else []
        plan = PromptPlan(spans, self.limits)
        for number, answer in self._run(plan.prompts, batch_size or self.rows):
            if isinstance(answer, str):
                yield from ((span, answer) for span in plan.failed(number))
                continue
            assert isinstance(answer, PromptScores)
            self.count_computed(answer.computed)
            for span, scored in plan.answered(number, answer):
                self._count_answered(len(spans[span].fed), fresh[span])
                yield span, scored

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate; what prompts share is next to each other."""
        order, _ = sorted_prefixes([item.prompt for item in requests])
        items = [requests[place] for place in order]
        texts = {number: _Text(self, item) for number, item in enumerate(items)}
        for number, answer in self._run([Decode(item) for item in items], batch_size or self.rows):
            output = texts[number].take(answer)
            if output is not None:
                yield texts.pop(number).item.index, output

    def decode_live(self, feed: DecodeFeed, wants_parts: Callable[[int], bool]) -> LiveAnswers:
        """Generate for a feed: what arrives is handed on between steps."""
        running: dict[int, _Text] = {}
        ended = False
        try:
            while running or not ended:
                if not ended:
                    ended = yield from self._take_in(feed, running, wants_parts)
                yield None
                for number, answer in self.receive() if running else ():
                    if number in running:
                        yield from self._live_answer(running, number, answer, wants_parts)
        finally:
            self._withdraw_all(running)

    def _take_in(
        self, feed: DecodeFeed, running: dict[int, _Text], wants_parts: Callable[[int], bool]
    ) -> Generator[tuple[int, GenerationOutput], None, bool]:
        """Hand on what has arrived; whether the feed has ended."""
        for arrival in feed:
            if arrival is None:
                return False
            if isinstance(arrival, DecodeRequest):
                try:
                    self.send(arrival.index, Decode(arrival, wants_parts(arrival.index)))
                    running[arrival.index] = _Text(self, arrival)
                except EvalkitError as error:
                    yield arrival.index, _failed(one_line(error))
            elif running.pop(arrival, None) is not None:
                self.withdraw(arrival)
                yield arrival, _failed("withdrawn")
        return True

    def _live_answer(
        self, running: dict[int, _Text], number: int, answer: Answer, wants_parts: Callable[[int], bool]
    ) -> Iterator[tuple[int, GenerationPart | GenerationOutput]]:
        text = running[number]
        output = text.take(answer)
        if wants_parts(number) and isinstance(answer, Written):
            yield from ((number, part) for part in text.parts(answer.sample))
        if output is not None:
            del running[number]
            yield number, output

    # ── work in flight ──────────────────────────────────────────────────────────────────────────────────
    def _run(self, work: Sequence[Work], rows: int) -> Iterator[tuple[int, Answer]]:
        """Have all work done, at most `rows` at a time; what is said of it, by its place."""
        running: dict[int, int] = {}
        try:
            for number, item in enumerate(work):
                while running and self._is_full(work, running, item, rows):
                    yield from self._received(running)
                try:
                    self.send(number, item)
                    running[number] = item.item.request.n if isinstance(item, Decode) else 1
                except EvalkitError as error:
                    yield number, one_line(error)
            while running:
                yield from self._received(running)
        finally:
            self._withdraw_all(running)

    def _is_full(self, work: Sequence[Work], running: Iterable[int], item: Work, rows: int) -> bool:
        most, begun = self.limits.in_flight, list(running)
        if len(begun) >= rows or most is None or not isinstance(item, Prompt) or not item.scored:
            return len(begun) >= rows
        prompts = (work[number] for number in begun)
        costs = (self.limits.cost(prompt) for prompt in prompts if isinstance(prompt, Prompt))
        return self.limits.cost(item) + sum(costs) > most

    def _received(self, running: dict[int, int]) -> Iterator[tuple[int, Answer]]:
        """What is new; `running` holds how many whole answers each work still waits for."""
        for number, answer in self.receive():
            if number not in running:
                continue
            if isinstance(answer, str):
                running[number] = 0
            elif not isinstance(answer, Written) or answer.finish is not None:
                running[number] -= 1
            if not running[number]:
                del running[number]
            yield number, answer

    def _withdraw_all(self, running: Iterable[int]) -> None:
        """For when nobody waits any more."""
        for number in running:
            self.withdraw(number)


class _Text:
    """The answer to a request while it is being made."""

    def __init__(self, session: PromptSession, item: DecodeRequest) -> None:
        self.session, self.item = session, item
        self.rows = make_rows(session.tokenizer, item, lambda request, sample: None)
        self.outputs: dict[int, GenerationOutput] = {}
        self.started = time.perf_counter()
        self._sent = [("", 0)] * len(self.rows)

    def take(self, answer: Answer) -> GenerationOutput | None:
        """Add what is new; the whole output, once it is complete."""
        if isinstance(answer, str):
            return _failed(answer)
        assert isinstance(answer, Written)
        row, seconds = self.rows[answer.sample], time.perf_counter() - self.started
        row.first_token = row.first_token or seconds
        row.watch.ids.extend(answer.ids)
        row.logprobs.extend(answer.logprobs or ())
        row.finish = answer.finish
        self.session.count_computed(answer.computed)
        if row.finish is not None:
            self.outputs[answer.sample] = make_output(self.session.tokenizer, row, seconds)
        if len(self.outputs) < len(self.rows):
            return None
        return merge([self.outputs[sample] for sample in range(len(self.rows))])

    def parts(self, sample: int) -> Iterator[GenerationPart]:
        """What is new of a sample's text and cannot change any more."""
        row, (before, tokens) = self.rows[sample], self._sent[sample]
        text = settled_text(self.session.tokenizer, row)
        if len(text) > len(before) and text.startswith(before):
            logprobs = None if row.request.logprobs is None else tuple(row.logprobs[tokens:])
            yield GenerationPart(text[len(before) :], tuple(row.watch.ids[tokens:]), logprobs, sample)
            self._sent[sample] = (text, len(row.watch.ids))


def _failed(problem: str) -> GenerationOutput:
    return GenerationOutput(finish_reason="error", error=problem)
