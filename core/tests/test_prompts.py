"""Sessions over engines that schedule requests themselves: plans of prompts, bounds, parts, the whole contract."""

from __future__ import annotations

import functools
import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import RequestError
from evalkit.prompts import Answer, Decode, PromptSession, Work, Written
from evalkit.requests import (
    GenerationOutput,
    GenerationPart,
    GenerationRequest,
    LoglikelihoodRequest,
    RollingLoglikelihoodRequest,
    TokenLogprob,
)
from evalkit.scoring import ScoredTokens, Span
from evalkit.scoring.prompts import Prompt, PromptLimits, PromptPlan, PromptScores
from evalkit.scoring.stops import StopWatch
from evalkit.testing.conformance import SessionConformance
from evalkit.testing.fake import ByteTokenizer

VOCABULARY = ByteTokenizer.vocab_size


@functools.lru_cache(4096)
def _logprobs_behind(ids: tuple[int, ...]) -> list[float]:
    """A model: what may follow depends on all tokens before."""
    draw = random.Random(hash(ids))
    logits = [draw.gauss(0, 2) for _ in range(VOCABULARY)]
    norm = math.log(sum(math.exp(value) for value in logits))
    return [value - norm for value in logits]


def logprobs_behind(ids: Sequence[int]) -> list[float]:
    return _logprobs_behind(tuple(ids))


def score(ids: Sequence[int], start: int, tops: int = 0) -> ScoredTokens:
    """Scores of `ids[start:]`, one by one."""
    rows = [logprobs_behind(ids[:place]) for place in range(start, len(ids))]
    logprobs = tuple(row[token] for row, token in zip(rows, ids[start:], strict=True))
    ranked = [sorted(enumerate(row), key=lambda pair: -pair[1])[:tops] for row in rows]
    greedy = all(row[token] == max(row) for row, token in zip(rows, ids[start:], strict=True))
    return ScoredTokens(logprobs, greedy, tuple(map(tuple, ranked)) if tops else None)


class Scheduler(PromptSession):
    """An engine with a prefix cache of blocks, which answers a few requests a step, the newest first."""

    def __init__(self, limits: PromptLimits, *, max_length: int = 256, rows: int = 8) -> None:
        super().__init__(ByteTokenizer(), max_length=max_length, batch_tokens=1024)
        self.limits, self.rows = limits, rows
        self.waiting: deque[tuple[int, Work]] = deque()
        self.writing: dict[int, tuple[Decode, list[Iterator[Written]]]] = {}
        self.cached: set[tuple[int, ...]] = set()
        self.most_scored = self.most_waiting = 0

    def send(self, number: int, work: Work) -> None:
        if isinstance(work, Prompt) and not work.ids:
            raise RequestError("an empty prompt")
        self.waiting.append((number, work))
        scored = sum(item.scored for _, item in self.waiting if isinstance(item, Prompt))
        self.most_scored, self.most_waiting = max(self.most_scored, scored), max(self.most_waiting, len(self.waiting))

    def receive(self) -> Iterable[tuple[int, Answer]]:
        for number, work in list(self.waiting)[:3]:
            self.waiting.remove((number, work))
            if isinstance(work, Prompt):
                yield number, self.answer(work)
            else:
                self.writing[number] = (work, [self.write(work, sample) for sample in range(work.item.request.n)])
        for number, (_, samples) in list(self.writing.items()):
            for sample in list(samples):
                written = next(sample)
                if written.finish:
                    samples.remove(sample)
                if not samples:
                    self.writing.pop(number, None)
                yield number, written

    def withdraw(self, number: int) -> None:
        self.waiting = deque(pair for pair in self.waiting if pair[0] != number)
        self.writing.pop(number, None)

    def answer(self, prompt: Prompt) -> PromptScores:
        found = self.read(prompt.ids)
        behind = logprobs_behind(prompt.ids)
        return PromptScores(
            score(prompt.ids, prompt.start, prompt.tops),
            tuple(behind[token] for token in prompt.next_ids),
            behind.index(max(behind)),
            len(prompt.ids) - min(found, prompt.start - 1),
        )

    def read(self, ids: tuple[int, ...]) -> int:
        """Fill the cache; how many tokens were in it."""
        block = self.limits.block or 16
        ends = range(block, len(ids), block)
        found = max((end for end in ends if ids[:end] in self.cached), default=0) if self.limits.block else 0
        self.cached |= {ids[:end] for end in ends}
        return found

    def write(self, work: Decode, sample: int) -> Iterator[Written]:
        request, ids = work.item.request, list(work.item.prompt)
        watch, draw = StopWatch(request.stop, self.tokenizer.decode), random.Random(f"{request.seed} {sample}")
        while True:
            row = logprobs_behind(ids)
            if request.is_sampled:
                token = draw.choices(range(VOCABULARY), [math.exp(value) for value in row])[0]
            else:
                token = row.index(max(row))
            ids.append(token)
            stopped = watch.push(token) and len(watch.ids) >= request.min_new_tokens
            finish = "stop" if stopped else "length" if len(watch.ids) >= request.max_new_tokens else None
            logprobs = None if request.logprobs is None else (TokenLogprob(token, "", row[token]),)
            yield Written((token,), finish, logprobs, sample, 1)
            if finish:
                return

    def gc(self) -> None:
        self.cached.clear()

    def close(self) -> None:
        self.gc()


ALL_LIMITS = (
    PromptLimits(),
    PromptLimits(next_ids=3),
    PromptLimits(3, 4),
    PromptLimits(128, 16, 8, 20),
    PromptLimits(0, 4, 4),
)


class TestScheduler(SessionConformance):
    """The suite, for each way to plan."""

    @pytest.fixture(params=ALL_LIMITS, ids=str)
    def session(self, request: pytest.FixtureRequest) -> Scheduler:
        return Scheduler(request.param)


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=24).map(tuple)
SPANS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=12)
LIMITS = st.builds(
    PromptLimits, st.integers(0, 3), st.integers(0, 8), st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)
)


@settings(max_examples=100, deadline=None)
@given(SPANS, LIMITS)
def test_scores_do_not_depend_on_the_plan(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], limits: PromptLimits
) -> None:
    """Whatever is asked at once, cut or read ahead, each token has the score that it has alone."""
    spans = [Span(context + continuation, len(context)) for context, continuation in pairs]
    found = Scheduler(limits).score_batch(spans)
    for span, scored in zip(spans, found, strict=True):
        expected = score(span.ids, span.start)
        assert scored.logprobs == pytest.approx(expected.logprobs)
        assert scored.is_greedy == expected.is_greedy


@settings(max_examples=100, deadline=None)
@given(SPANS, LIMITS)
def test_a_plan_keeps_its_bounds(pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], limits: PromptLimits) -> None:
    """No prompt asks for more next tokens or, where there is a cache, scores more than an engine has room for."""
    plan = PromptPlan([Span(context + rest, len(context)) for context, rest in pairs], limits)
    for prompt in plan.prompts:
        assert len(prompt.next_ids) <= limits.next_ids
        assert 1 <= prompt.start <= len(prompt.ids)
        if limits.block and limits.scored:
            assert prompt.scored <= max(limits.scored, 1)


def test_choices_of_one_token_are_one_prompt() -> None:
    """Four letters behind one question are asked at once, and the question is read once."""
    question = tuple(range(40))
    plan = PromptPlan([Span((*question, letter), 40) for letter in (65, 66, 67, 68)], PromptLimits(128, 16))
    assert plan.prompts == [Prompt(question, 40, (65, 66, 67, 68))]


def test_longer_choices_begin_behind_their_context() -> None:
    """The first tokens are asked behind the context; what follows needs logits of the choices' own tokens alone."""
    context, choices = tuple(range(40)), ((50, 51, 52), (60, 61, 62), (50, 51, 99))
    plan = PromptPlan([Span(context + choice, 40) for choice in choices], PromptLimits(128, 16))
    assert plan.prompts == [
        Prompt(context, 40, (50, 60)),
        Prompt((*context, 50, 51), 41, (52, 99)),
        Prompt((*context, 60, 61), 41, (62,)),
    ]


def test_the_context_of_a_single_continuation_is_read_ahead() -> None:
    """A prompt that is only read needs logits of one token, not of all."""
    ids = tuple(range(50))
    plan = PromptPlan([Span(ids, 40)], PromptLimits(128, 16))
    assert plan.prompts == [Prompt(ids[:32], 32), Prompt(ids[:-1], 40, (49,))]


def test_a_long_text_is_scored_in_pieces() -> None:
    """Each piece begins where the cache of the one before ends."""
    ids = tuple(range(100))
    plan = PromptPlan([Span(ids, 1)], PromptLimits(128, 16, scored=40))
    assert [(len(prompt.ids), prompt.start) for prompt in plan.prompts] == [(33, 1), (65, 33), (99, 65)]


def test_what_is_in_flight_is_bounded() -> None:
    """Neither more requests than rows, nor more scored tokens than there is memory for their logits."""
    session = Scheduler(PromptLimits(in_flight=30), rows=5)
    session.loglikelihood([LoglikelihoodRequest(f"question {n}", " an answer") for n in range(20)])
    assert session.most_scored <= 30
    session = Scheduler(PromptLimits(next_ids=1), rows=5)
    session.loglikelihood([LoglikelihoodRequest(f"question {n}", " an answer") for n in range(20)], batch_size=3)
    assert session.most_waiting <= 3


def test_an_answer_that_fails_fails_alone() -> None:
    """The texts of one prompt share its fate, others do not."""

    class Failing(Scheduler):
        def answer(self, prompt: Prompt) -> PromptScores:
            return super().answer(prompt) if prompt.ids[0] == ord("a") else "no room"  # type: ignore[return-value]

    requests = [LoglikelihoodRequest(context, text) for context in ("a", "b") for text in (" x", " yes", " yet")]
    outputs = Failing(PromptLimits(3, 4)).loglikelihood(requests)
    assert [output.error for output in outputs] == [None] * 3 + ["no room"] * 3


def test_whoever_stops_listening_leaves_nothing_running() -> None:
    """Work in flight is withdrawn when its answers are not read to the end."""
    session = Scheduler(PromptLimits(3, 4))
    answers = session.generate_continuous((n, GenerationRequest(prompt=str(n), max_new_tokens=50)) for n in range(9))
    while not session.writing:
        next(answers)
    del answers
    assert not session.waiting
    assert not session.writing


def test_rolling_windows_are_bounded_too() -> None:
    """A text longer than the context, in windows and pieces, has the score of its tokens."""
    text = "abcdefgh" * 9
    expected = Scheduler(PromptLimits(), max_length=32).loglikelihood_rolling([RollingLoglikelihoodRequest(text)])[0]
    found = Scheduler(PromptLimits(4, 4, 8, 16), max_length=32).loglikelihood_rolling(
        [RollingLoglikelihoodRequest(text)]
    )
    assert found[0].logprob == pytest.approx(expected.logprob)
    assert found[0].token_count == len(text)


def test_several_samples_are_streamed_apart() -> None:
    """Parts name their sample, and spell the texts of the whole answer."""
    request = GenerationRequest(prompt="So", max_new_tokens=6, temperature=1.0, n=3, seed=1, logprobs=0)
    texts: dict[int, str] = {}
    answer = None
    for _, answer in Scheduler(PromptLimits(3, 4)).generate_live(iter([("key", request), None])):
        if isinstance(answer, GenerationPart):
            texts[answer.sample] = texts.get(answer.sample, "") + answer.text
    assert isinstance(answer, GenerationOutput)
    assert [output.text for output in (answer, *answer.alternatives)] == [texts[sample] for sample in range(3)]
    assert all(output.logprobs is not None and len(output.logprobs) == 6 for output in (answer, *answer.alternatives))


def test_tokens_are_counted_once() -> None:
    """What choices share is unique once, and the engine says what it computed."""
    session = Scheduler(PromptLimits(128, 4))
    session.loglikelihood([LoglikelihoodRequest("what is this?", f" {letter}") for letter in "ABCD"])
    counts = session.token_counts()
    assert counts.unique < counts.requested
    assert 0 < counts.computed < counts.requested
