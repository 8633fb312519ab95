"""A decoder's session beside the plain model: the same scores and texts, and no token computed twice.

Every engine's tests call these. Needs torch and hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring import Span
from evalkit.testing.reference import naive_score, new_tokens

TEXT = "The river was low that year.\nNobody remembered a summer so dry, nor a harvest so early. "
SHOTS = "Question: how many apples?\nAnswer: seven.\n\n" * 3
PAIRS = [
    LoglikelihoodRequest(context, continuation)
    for context in ("The sky is", "", TEXT, TEXT * 2, "Two and two make")
    for continuation in (" blue", " four, or five", "x", TEXT)
]
PROMPTS = ("The sky is", "A", *(f"{SHOTS}Question: {word}?\nAnswer:" for word in ("who", "why", "what")))
SPANS = st.lists(
    st.tuples(st.lists(st.integers(3, 5), min_size=2, max_size=40), st.integers(1, 39)).map(
        lambda pair: Span(tuple(pair[0]), min(pair[1], len(pair[0]) - 1))
    ),
    min_size=1,
    max_size=12,
)
"""Texts of few distinct tokens: they share beginnings of all lengths."""


def token_logprobs(model: Any, ids: Sequence[int]) -> list[float]:
    """Log-probabilities [length - 1] of a text's tokens behind the first, by one plain pass."""
    return naive_score(model, ids[:1], ids[1:])[0]


def logprob_errors(session: Any, model: Any, requests: Sequence[LoglikelihoodRequest] = PAIRS) -> list[float]:
    """How far each scored token is from a plain pass over its text alone."""
    pairs = _scored(session, model, requests)
    return [abs(a - b) for found, expected in pairs for a, b in zip(found, expected, strict=True)]


def score_errors(session: Any, model: Any, requests: Sequence[LoglikelihoodRequest] = PAIRS) -> list[float]:
    """How far the score of each request is from that of a plain pass."""
    return [abs(sum(found) - sum(expected)) for found, expected in _scored(session, model, requests)]


def _scored(
    session: Any, model: Any, requests: Sequence[LoglikelihoodRequest]
) -> Iterator[tuple[Sequence[float], list[float]]]:
    """The log-probabilities of each request's tokens: the session's, and those of a plain pass."""
    for pair, output in zip(session.encode(requests), session.loglikelihood(requests), strict=True):
        assert output.error is None
        yield output.token_logprobs, naive_score(model, pair.context, pair.continuation)[0]


def check_spans(session: Any, model: Any, spans: Sequence[Span], *, within: float = 1e-3) -> None:
    """Whatever they share, texts score as each alone."""
    for span, scored in zip(spans, session.score_batch(spans), strict=True):
        assert scored.logprobs == pytest.approx(token_logprobs(model, span.ids)[span.start - 1 :], abs=within)


@contextmanager
def passes_of(session: Any, tokens: int) -> Iterator[None]:
    """Passes of at most this many tokens, where the session can choose."""
    before, session.batch_tokens = session.batch_tokens, tokens
    try:
        yield
    finally:
        session.batch_tokens = before


def check_greedy(
    session: Any, model: Any, requests: Sequence[GenerationRequest] | None = None, *, first: int | None = None
) -> None:
    """The same tokens as `model.generate`: behind a shared prefix and without, and in loops that invite guesses.

    `first`: so many of them, where rounding decides later ones.
    """
    if requests is None:
        requests = [GenerationRequest(prompt=prompt, max_new_tokens=24) for prompt in PROMPTS]
        requests += [GenerationRequest(input_ids=[token] * 20, max_new_tokens=50) for token in (18, 40, 53)]
    for asked, output in zip(requests, session.generate(requests, batch_size=3), strict=True):
        ids, ends = session.prompt_ids(asked), session.tokenizer.eos_token_ids
        (expected,) = new_tokens(model, ids, ends, max_new_tokens=asked.max_new_tokens)
        assert output.token_ids[:first] == expected[:first]


def check_each_token_is_computed_once(session: Any) -> None:
    """Shared contexts and shared beginnings of continuations cost nothing further."""
    ends = [f" {word} {end}" for word in ("red", "blue") for end in ("sky", "sea", "sun")]
    before = session.token_counts()
    session.loglikelihood([LoglikelihoodRequest(TEXT, end) for end in ends])
    after = session.token_counts()
    assert after.computed - before.computed == after.unique - before.unique
    assert after.requested - before.requested > 3 * (after.unique - before.unique)


def check_windows(session: Any) -> float:
    """A text of several contexts is scored window by window, every token of it; its log-probability."""
    (output,) = session.loglikelihood_rolling([RollingLoglikelihoodRequest(TEXT * 15)])
    assert output.error is None
    assert output.token_count == len(session.tokenizer.encode_batch([TEXT * 15])[0])
    assert output.token_count > 3 * session.max_length
    return float(output.logprob)
