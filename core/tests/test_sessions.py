"""TokenSession: scores depend on the tokens alone, and a request that fails takes no other with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.engine import TooLong
from evalkit.errors import OutOfMemoryError, RequestError
from evalkit.model import Model
from evalkit.requests import (
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
    TokenCounts,
)
from evalkit.scoring import ScoredTokens, Span, rolling_spans
from evalkit.scoring.pairs import MERGED
from evalkit.testing.fake import BOS, Fake, FakeSession, next_scores

PIECES = st.lists(st.sampled_from(["a", "b ", " ", "é", "\n", "the "]), max_size=6).map("".join)
PAIRS = st.lists(st.builds(LoglikelihoodRequest, PIECES, PIECES.filter(bool)), min_size=1, max_size=8)
TEXTS = st.lists(st.builds(RollingLoglikelihoodRequest, PIECES), min_size=1, max_size=5)
ENGINES = st.builds(Fake, max_rows=st.sampled_from([None, 1, 2, 3]), batch_tokens=st.integers(1, 60))
BATCH_SIZES = st.sampled_from([None, 1, 2, 64])


def _session(engine: Fake | None = None, **options: Any) -> FakeSession:
    return (engine or Fake(**options)).build(Model("any"))


def _logprobs(ids: Sequence[int], start: int) -> list[float]:
    """Log-probability of each of `ids[start:]`, one token after the other."""
    found = []
    for position in range(start, len(ids)):
        scores = next_scores(tuple(ids[:position]))
        top = max(scores)
        found.append(scores[ids[position]] - top - math.log(math.fsum(math.exp(s - top) for s in scores)))
    return found


def _pair_logprobs(request: LoglikelihoodRequest) -> list[float]:
    context, whole = request.context.rstrip().encode(), (request.context + request.continuation).encode()
    return _logprobs([*(context or [BOS]), *whole[len(context) :]], len(context) or 1)


# ── log-likelihoods ─────────────────────────────────────────────────────────────────────────────────────────
@given(PAIRS, ENGINES, BATCH_SIZES, st.randoms())
def test_scores_depend_on_the_pair_alone(
    pairs: list[LoglikelihoodRequest], engine: Fake, batch_size: int | None, random: Any
) -> None:
    """Budget, batch size, order and running out of memory change no score: each is what the model says of it."""
    order = random.sample(range(len(pairs)), len(pairs))
    outputs = _session(engine).loglikelihood([pairs[i] for i in order], batch_size=batch_size)
    for index, output in zip(order, outputs, strict=True):
        assert output.error is None
        assert output.token_logprobs == pytest.approx(_pair_logprobs(pairs[index]), abs=1e-9)
        assert output.logprob == sum(output.token_logprobs or ())
        assert output.token_count == len(output.token_logprobs or ())


@given(PAIRS, ENGINES, BATCH_SIZES)
def test_every_pair_is_answered_once_under_its_own_key(
    pairs: list[LoglikelihoodRequest], engine: Fake, batch_size: int | None
) -> None:
    """The stream names each request once; its output is the one that a list would get."""
    keys = [f"key {index}" for index in range(len(pairs))]
    streamed = list(_session(engine).loglikelihood_continuous(zip(keys, pairs, strict=True), batch_size=batch_size))
    assert sorted(key for key, _ in streamed) == sorted(keys)
    assert [dict(streamed)[key] for key in keys] == _session().loglikelihood(pairs)


def test_batch_size_limits_the_rows() -> None:
    """A number of rows given is the largest batch, whatever the token budget."""
    session = _session(batch_tokens=1)
    session.loglikelihood([LoglikelihoodRequest("a", f"b{i}") for i in range(10)], batch_size=4)
    assert session.largest_batch == 4


def test_without_a_batch_size_the_budget_limits_the_rows() -> None:
    """Rows times their length stay within the budget."""
    session = _session(batch_tokens=12)
    session.loglikelihood([LoglikelihoodRequest("ab", "cd") for _ in range(10)])
    assert session.largest_batch == 12 // len("abc")


def test_is_greedy_needs_every_token() -> None:
    """A continuation is greedy where each token is the most likely one, not where some are."""
    ids = [*b"ab"]
    for _ in range(2):
        scores = next_scores(ids)
        ids.append(max(range(len(scores)), key=scores.__getitem__))
    other = (ids[3] + 1) % 256
    requests = [
        LoglikelihoodRequest("ab", "", context_ids=(97, 98), continuation_ids=tail)
        for tail in [(ids[2], ids[3]), (ids[2], other), ((ids[2] + 1) % 256,)]
    ]
    assert [output.is_greedy for output in _session().loglikelihood(requests)] == [True, False, False]


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_an_empty_continuation_fails_alone(batch_size: int | None) -> None:
    """A pair with nothing to score gets an error; the pairs beside it get their scores."""
    requests = [
        LoglikelihoodRequest("a", "b"),
        LoglikelihoodRequest("a", ""),
        LoglikelihoodRequest("", ""),
        LoglikelihoodRequest("c", "d"),
    ]
    outputs = _session().loglikelihood(requests, batch_size=batch_size)
    assert [output.error for output in outputs] == [None, *["the continuation is empty"] * 2, None]
    assert [outputs[0], outputs[3]] == _session().loglikelihood([requests[0], requests[3]])


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────
class Narrow(FakeSession):
    """A device with room for `room` tokens, padding included."""

    room = 12

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score, where the batch fits."""
        if len(spans) * max(span.width for span in spans) > self.room:
            raise OutOfMemoryError("no room")
        return super().score_batch(spans)


@given(PAIRS)
def test_what_does_not_fit_alone_fails_alone(pairs: list[LoglikelihoodRequest]) -> None:
    """A pair wider than the device's memory gets an error; every other one its score."""
    outputs = Narrow(Fake(), Model("any")).loglikelihood(pairs)
    for pair, output in zip(pairs, outputs, strict=True):
        fed = len((pair.context + pair.continuation).encode()) - 1 + (not pair.context.rstrip())
        if fed > Narrow.room:
            assert output.error == "out of memory for this request alone: no room"
        else:
            assert output.token_logprobs == pytest.approx(_pair_logprobs(pair), abs=1e-9)


@given(st.lists(st.sampled_from(["good", "huge"]), max_size=12))
def test_the_error_is_given_to_the_request_that_failed(kinds: list[str]) -> None:
    """Wherever in a batch they are, exactly those that do not fit alone get the error."""

    class Choosy(FakeSession):
        def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
            if any(b"huge" in bytes(span.ids) for span in spans):
                raise OutOfMemoryError
            return super().score_batch(spans)

    requests = [LoglikelihoodRequest(f"{number}", kind) for number, kind in enumerate(kinds)]
    outputs = Choosy(Fake(), Model("any")).loglikelihood(requests)
    assert [output.error is not None for output in outputs] == [kind == "huge" for kind in kinds]


def test_a_device_without_any_room_fails_every_request() -> None:
    """Thousands of requests that all fail are thousands of outputs with an error, and no crash."""
    requests = [LoglikelihoodRequest("a", str(index)) for index in range(1500)]
    outputs = _session(max_rows=0).loglikelihood(requests, batch_size=len(requests))
    assert len(outputs) == len(requests)
    assert all(output.error for output in outputs)


def test_the_budget_shrinks_when_memory_runs_out() -> None:
    """After a batch was too large, later batches are not tried at that size again."""
    attempts = []

    class Counting(FakeSession):
        def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
            attempts.append(len(spans))
            return super().score_batch(spans)

    session = Counting(Fake(max_rows=4, batch_tokens=64), Model("any"))
    session.loglikelihood([LoglikelihoodRequest("a", chr(97 + i % 26)) for i in range(256)])
    assert [size for size in attempts if size > 4] == [64, 32, 16, 8, 8, 16, 8, 8, 32, 16, 8, 8, 16, 8, 8]
    assert session.batch_tokens == 4


# ── context length ──────────────────────────────────────────────────────────────────────────────────────────
@given(PAIRS, st.integers(1, 12))
def test_truncation_keeps_the_slice_of_the_harness(pairs: list[LoglikelihoodRequest], limit: int) -> None:
    """A long pair is scored on its last `limit` fed tokens, and its output says so."""
    outputs = _session(max_length=limit).loglikelihood(pairs)
    for pair, output in zip(pairs, outputs, strict=True):
        kept = pair.context.rstrip().encode()
        context, continuation = list(kept) or [BOS], list((pair.context + pair.continuation).encode()[len(kept) :])
        if len(continuation) > limit:
            assert output.error == f"the continuation alone has {len(continuation)} tokens, the context holds {limit}"
            continue
        ids = (context + continuation)[-(limit + 1) :]
        assert output.token_logprobs == pytest.approx(_logprobs(ids, len(ids) - len(continuation)), abs=1e-9)
        length = len(context) + len(continuation) - 1
        expected = f"truncated: {length} tokens, of which the last {limit} fit the context"
        assert output.notes == ((expected,) if length > limit else ())


def test_too_long_names_what_does_not_fit() -> None:
    """A long context can be cut, a long continuation cannot; rolling texts always fit."""
    requests: list[Request] = [
        LoglikelihoodRequest("1234", "567"),
        LoglikelihoodRequest("12345", "678"),
        LoglikelihoodRequest("", "1234567"),
        RollingLoglikelihoodRequest("1234567890"),
        GenerationRequest(prompt="1234", max_new_tokens=2),
        GenerationRequest(prompt="12345", max_new_tokens=2),
        GenerationRequest(prompt="1", max_new_tokens=6),
    ]
    found = sorted(_session(max_length=6).too_long(requests), key=lambda item: item.index)
    assert found == [TooLong(1, 7, 6), TooLong(2, 7, 6, fatal=True), TooLong(5, 5, 4), TooLong(6, 1, 0, fatal=True)]


# ── rolling ─────────────────────────────────────────────────────────────────────────────────────────────────
@given(TEXTS, ENGINES, BATCH_SIZES, st.integers(1, 12))
def test_rolling_joins_all_windows(
    texts: list[RollingLoglikelihoodRequest], engine: Fake, batch_size: int | None, limit: int
) -> None:
    """A text's score is the sum over its windows in text order, whatever batches they ran in."""
    engine.max_length = limit
    outputs = _session(engine).loglikelihood_rolling(texts, batch_size=batch_size)
    for text, output in zip(texts, outputs, strict=True):
        spans = rolling_spans(tuple(text.text.encode()), BOS, limit)
        expected = [logprob for span in spans for logprob in _logprobs(span.ids, span.start)]
        assert (output.token_logprobs or ()) == pytest.approx(expected, abs=1e-9)
        assert output.token_count == len(expected)
        assert output.logprob == pytest.approx(sum(expected), abs=1e-9)


def test_an_empty_text_has_nothing_to_score() -> None:
    """An empty text is answered at once with log-probability 0 over no token."""
    assert _session().loglikelihood_rolling([RollingLoglikelihoodRequest("")]) == [RollingLoglikelihoodOutput()]


def test_a_window_that_fails_fails_its_text_alone() -> None:
    """A text with a window that does not fit gets an error, not a sum that leaves it out."""
    session = Narrow(Fake(max_length=20), Model("any"))
    outputs = session.loglikelihood_rolling([RollingLoglikelihoodRequest(text) for text in ("a" * 25, "abc")])
    assert outputs[0] == RollingLoglikelihoodOutput(error="out of memory for this request alone: no room")
    assert outputs[1] == _session().loglikelihood_rolling([RollingLoglikelihoodRequest("abc")])[0]


# ── generation ──────────────────────────────────────────────────────────────────────────────────────────────
def test_generations_come_back_in_order() -> None:
    """A list is answered in its own order, though the fake finishes the last one first."""
    requests = [GenerationRequest(prompt=text, max_new_tokens=3) for text in ("a", "bb", "ccc")]
    session = _session()
    streamed = list(session.generate_continuous(enumerate(requests)))
    assert [key for key, _ in streamed] == [2, 1, 0]
    assert session.generate(requests) == [output for _, output in reversed(streamed)]


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (GenerationRequest(), "exactly one of"),
        (GenerationRequest(prompt="a", input_ids=(1,)), "exactly one of"),
        (GenerationRequest(prompt="a", max_new_tokens=20), "leaves no room"),
        (GenerationRequest(prompt="fatal", max_new_tokens=2), "the fake fails"),
    ],
)
def test_a_generation_that_fails_fails_alone(request_: GenerationRequest, cause: str) -> None:
    """What cannot be asked is an output with an error; the request beside it is answered."""
    good = GenerationRequest(prompt="b", max_new_tokens=2)
    session = _session(max_length=20, fail_on="fatal")
    failed, answered = session.generate([request_, good])
    assert cause in (failed.error or "")
    assert failed.finish_reason == "error"
    assert answered == session.generate([good])[0]
    assert answered.error is None


def test_a_long_prompt_keeps_its_end() -> None:
    """Prompt and answer fit the context together: the prompt's last tokens are kept, and noted."""
    session = _session(max_length=8)
    long, short = session.generate([GenerationRequest(prompt=p, max_new_tokens=3) for p in ("0123456789", "56789")])
    assert long.text == short.text
    assert long.notes == ("truncated: 10 tokens, of which the last 5 fit the context",)
    assert short.notes == ()


def test_prompts_of_every_form_are_the_same_to_the_model() -> None:
    """Text, messages behind the chat template, and token ids continue alike; an empty prompt is the prefix."""
    session = _session()
    text = session.apply_chat_template([{"role": "user", "content": "Hi"}])
    requests = [
        GenerationRequest(prompt=text, max_new_tokens=4),
        GenerationRequest(messages=[{"role": "user", "content": "Hi"}], max_new_tokens=4),
        GenerationRequest(input_ids=tuple(text.encode()), max_new_tokens=4),
    ]
    assert len({output.token_ids for output in session.generate(requests)}) == 1
    assert session.prompt_ids(GenerationRequest(prompt="")) == (BOS,)
    with pytest.raises(RequestError, match=r"exactly one of"):
        session.prompt_ids(GenerationRequest(prompt="a", messages=[]))


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_scoring_counts_requested_unique_and_computed_tokens() -> None:
    """Requested: every fed token. Unique: shared beginnings once. Computed: what the device did, padding too."""
    session = _session()
    session.loglikelihood([LoglikelihoodRequest("abc", text) for text in ("d", "ef", "eg")])
    # Fed: "abc", "abce", "abce"; one batch of three rows, padded to 4.
    assert session.token_counts() == TokenCounts(requested=3 + 4 + 4, unique=4, computed=12)


def test_generation_counts_its_tokens() -> None:
    """The prompt counts as fed, and each new token but the last."""
    session = _session()
    requests = [GenerationRequest(prompt="abc", max_new_tokens=4), GenerationRequest(prompt="abd", max_new_tokens=2)]
    outputs = session.generate(requests)
    new = sum(len(output.token_ids) - 1 for output in outputs)
    counts = session.token_counts()
    assert (counts.requested, counts.unique) == (6 + new, 4 + new)


@pytest.mark.parametrize("shares", [True, False], ids=["forest", "rows"])
def test_only_what_is_answered_counts(shares: bool) -> None:
    """A run that ends early has counted its answers, so that the counts of all its attempts add up."""
    requests = [(number, LoglikelihoodRequest("abc", text)) for number, text in enumerate(("d", "ef", "eg"))]
    session = _session()
    session.shares_prefixes = shares
    answers = session.loglikelihood_continuous(requests, batch_size=1)
    assert session.token_counts().requested == 0
    first, _ = next(answers)
    fed = 2 + len(requests[first][1].continuation)
    assert session.token_counts().requested == fed
    list(answers)
    assert (session.token_counts().requested, session.token_counts().unique) == (3 + 4 + 4, 4)


# ── encoder-decoder ─────────────────────────────────────────────────────────────────────────────────────────
class Translator(FakeSession):
    """An encoder-decoder model: what its decoder scores depends on what its encoder read."""

    is_encoder_decoder = True
    decoder_start = 7

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score decoder tokens behind the source."""
        joined = [Span((*(s.source or ()), *s.ids), s.start + len(s.source or ())) for s in spans]
        return super().score_batch(joined)


@pytest.fixture
def translator() -> Iterator[Translator]:
    """A small one."""
    with Translator(Fake(max_length=6), Model("any")) as session:
        yield session


def test_an_encoder_decoder_reads_context_and_continuation_apart(translator: Translator) -> None:
    """The context goes to the encoder, the continuation follows the decoder's first token."""
    output = translator.loglikelihood([LoglikelihoodRequest("abc ", "de")])[0]
    assert output.token_logprobs == pytest.approx(_logprobs([*b"abc", 7, *b" de"], 4))
    assert output.notes == ()


def test_an_encoder_decoder_truncates_its_source_alone(translator: Translator) -> None:
    """Each side may be as long as the context; a long source keeps its end."""
    output = translator.loglikelihood([LoglikelihoodRequest("12345678", "abcdef")])[0]
    assert output.token_logprobs == pytest.approx(_logprobs([*b"345678", 7, *b"abcdef"], 7))
    assert output.notes == ("truncated: 8 tokens, of which the last 6 fit the context",)
    assert translator.too_long([LoglikelihoodRequest("12345678", "ab")]) == [TooLong(0, 8, 6)]
    assert translator.too_long([LoglikelihoodRequest("123456", "abcdef")]) == []


def test_an_encoder_decoder_has_no_rolling_scores(translator: Translator) -> None:
    """Whole texts are refused request by request."""
    outputs = translator.loglikelihood_rolling([RollingLoglikelihoodRequest("a"), RollingLoglikelihoodRequest("b")])
    assert all("no rolling" in (output.error or "") for output in outputs)
    assert len(outputs) == 2


def test_a_merged_join_is_noted() -> None:
    """The note that encoding leaves reaches the output."""
    session = _session()
    tokenizer: Any = session.tokenizer

    class Merging(type(tokenizer)):  # type: ignore[misc]
        def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
            return [list(text.replace("ab", "#").encode()) for text in texts]

    session.tokenizer = Merging()
    output = session.loglikelihood([LoglikelihoodRequest("xa", "b")])[0]
    assert output == LoglikelihoodOutput(
        sum(_logprobs(b"x#", 1)), output.is_greedy, 1, tuple(_logprobs(b"x#", 1)), notes=(MERGED,)
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"n": 0}, "n is 0"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"num_beams": 2, "n": 3}, "2 beams"),
    ],
)
def test_values_that_no_engine_honours_fail_alone(values: dict[str, Any], problem: str) -> None:
    """A request with an impossible value gets an error of its own; its neighbour is answered."""
    session = Fake().build(Model("x"))
    bad, good = session.generate(
        [GenerationRequest(prompt="a", **values), GenerationRequest(prompt="a", max_new_tokens=2)]
    )
    assert bad.finish_reason == "error"
    assert problem in (bad.error or "")
    assert good.error is None


def test_token_ids_outside_the_vocabulary_fail_alone() -> None:
    """Such ids would crash a model's embedding, and the batch with it."""
    output = Fake().build(Model("x")).generate([GenerationRequest(input_ids=(1, 99_999), max_new_tokens=2)])[0]
    assert "vocabulary" in (output.error or "")
