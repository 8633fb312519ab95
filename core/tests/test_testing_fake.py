"""The fake engine keeps the contract, and fails in the ways it is asked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit.testing.fake import Fake


class TestFake(SessionConformance):
    """The whole contract."""

    tolerance = 1e-9

    @pytest.fixture
    def session(self) -> Iterator[BaseInferenceSession]:
        with Fake().build(Model("any")) as session:
            yield session


class TestCrampedFake(TestFake):
    """The whole contract, with memory for two rows and a small budget."""

    @pytest.fixture
    def session(self) -> Iterator[BaseInferenceSession]:
        with Fake(max_rows=2, batch_tokens=100).build(Model("any")) as session:
            yield session


def test_close_is_idempotent() -> None:
    """Closing twice is allowed."""
    check_close_is_idempotent(Fake().build(Model("any")))


def test_it_fails_on_the_text_it_is_given() -> None:
    """Only requests that hold the text fail."""
    session = Fake(fail_on="bad").build(Model("any"))
    outputs = session.generate([GenerationRequest(prompt=text, max_new_tokens=2) for text in ("good", "a bad one")])
    assert [output.error for output in outputs] == [None, "the fake fails on 'bad'"]


def test_it_is_the_same_in_every_session() -> None:
    """Another session gives the same scores, and the same sample for the same seed."""
    first, second = (Fake().build(Model(name)) for name in ("a", "b"))
    pairs = [LoglikelihoodRequest("a", "bc")]
    assert first.loglikelihood(pairs) == second.loglikelihood(pairs)
    seeded = [GenerationRequest(prompt="a", temperature=1.0, seed=seed, max_new_tokens=8) for seed in (1, 1, 2)]
    one, again, other = (
        session.generate([request])[0].token_ids
        for session, request in zip([first, second, first], seeded, strict=True)
    )
    assert one == again != other
