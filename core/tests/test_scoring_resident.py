"""A prefix that stays in the cache from one scoring call to the next changes no score, and is read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import OutOfMemoryError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring import ScoredTokens, Span, resident
from evalkit.testing.toy_cells import ToyCells

LETTERS = st.text("abc", max_size=8)
SHARED = st.sampled_from(["", "abcabcabca", "abcabcabcabcc", "bbbbb"])


@st.composite
def calls(draw: Any) -> list[LoglikelihoodRequest]:
    """Requests of one call: most begin alike, and are scored from anywhere."""
    shared = draw(SHARED)
    texts = draw(st.lists(st.tuples(LETTERS, LETTERS, st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=5))
    return [
        LoglikelihoodRequest(whole[: max(cut, 1)], whole[max(cut, 1) :] + "a", logprobs=tops or None)
        for whole, cut, tops in ((f"a{shared}{one}{other}", cut, tops) for one, other, cut, tops in texts)
    ]


def keeping(budget: int = 64) -> ToyCells:
    """A session that keeps prefixes."""
    session = ToyCells(budget)
    session.keep_prefixes()
    return session


@settings(deadline=None)
@given(st.lists(calls(), min_size=1, max_size=6), st.integers(2, 50), st.integers(1, 6))
def test_scores_are_those_of_a_fresh_session(asked: list[list[LoglikelihoodRequest]], budget: int, least: int) -> None:
    """Whatever earlier calls left: log-probabilities, likely tokens, whether all are greedy, and counts of tokens."""
    session = keeping(budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resident, "LEAST", least)
        for requests in asked:
            before = session.token_counts()
            found, expected = session.loglikelihood(requests), ToyCells(budget).loglikelihood(requests)
            for one, other in zip(found, expected, strict=True):
                assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-6)
                assert (one.is_greedy, one.token_count, one.error) == (other.is_greedy, other.token_count, None)
                assert likely(one.top_logprobs) == likely(other.top_logprobs)
            after = session.token_counts()
            assert after.computed - before.computed == after.unique - before.unique


def likely(found: Any) -> Any:
    """The likely tokens of an output, without their exact numbers."""
    return found and [[token for token, _ in top] for top in found]


def test_examples_are_read_once() -> None:
    """Of a second call behind the same examples only what is new goes through the model, echoed or not."""
    session, shots = keeping(), "abc" * 15
    for echo in (False, True):
        texts = [(shots + tail) for tail in ("aab", "bba", "cca")]
        split = 1 if echo else len(shots)
        requests = [LoglikelihoodRequest(text[:split], text[split:], logprobs=1) for text in texts]
        session.gc()
        session.loglikelihood(requests)
        before = session.token_counts().computed
        session.loglikelihood([LoglikelihoodRequest(shots[:split], shots[split:] + "bcb", logprobs=1), *requests])
        assert session.token_counts().computed - before < 15
        assert len(session.cells) >= len(shots) - 1


def test_other_work_comes_between() -> None:
    """A generation, a rolling score and an emptied cache end what was kept, and nothing else."""
    session, requests = keeping(), [LoglikelihoodRequest("abc" * 10, tail) for tail in ("ab", "ba")]
    expected = [output.logprob for output in ToyCells().loglikelihood(requests)]
    between: list[Any] = [
        lambda: session.generate([GenerationRequest(prompt="abcab", max_new_tokens=4)]),
        lambda: session.loglikelihood_rolling([RollingLoglikelihoodRequest("abc" * 30)]),
        session.gc,
        lambda: next(iter(session.loglikelihood_continuous(enumerate(requests)))),
    ]
    for work in between:
        assert [output.logprob for output in session.loglikelihood(requests)] == pytest.approx(expected)
        work()
    assert [output.logprob for output in session.loglikelihood(requests)] == pytest.approx(expected)


def test_where_memory_runs_out_the_rest_is_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that does not fit is no error of the requests."""
    session, requests = keeping(), [LoglikelihoodRequest("abc" * 10, tail) for tail in ("ab", "ba")]
    expected = [output.logprob for output in ToyCells().loglikelihood(requests)]
    session.loglikelihood(requests)
    run, left = session.run, [1]

    def failing(*args: Any) -> Any:
        if left and left.pop():
            raise OutOfMemoryError("no memory")
        return run(*args)

    monkeypatch.setattr(session, "run", failing)
    assert [output.logprob for output in session.loglikelihood(requests)] == pytest.approx(expected)


def test_what_is_known_of_a_chain_is_enough_or_not_used() -> None:
    """Scores from before are used where likely tokens tell which are greedy; else tokens are read again."""
    top = tuple(((1, -0.1),) for _ in range(29))
    chain = resident.Chain((1,) * 30, 1, ScoredTokens((-0.1,) * 29, True, top))
    text = (1,) * 30 + (2, 3)
    assert chain.kept([Span(text, 31)]) == 30
    assert chain.kept([Span(text, 1)]) == 29
    assert chain.kept([Span(text, 1, tops=2)]) == 0
    assert chain.kept([Span(text, 20, tops=2)]) == 19
    assert chain.kept([Span((2, *text), 31)]) == 0
    assert np.isclose(sum(chain.completed(Span(text, 1), 29, ScoredTokens((-2.0, -3.0), False)).logprobs), -7.9)
