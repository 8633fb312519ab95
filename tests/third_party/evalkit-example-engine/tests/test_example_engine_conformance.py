"""The third party's own test: its engine keeps the contract."""

from __future__ import annotations

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit_example_engine.engine import MyEngine


class TestExampleEngine(SessionConformance):
    """The conformance suite on the example engine."""

    @pytest.fixture
    def session(self) -> BaseInferenceSession:
        """A fresh session."""
        return MyEngine().build(Model(path="alphabet"))


def test_close_is_idempotent() -> None:
    """Closing twice is allowed."""
    check_close_is_idempotent(MyEngine().build(Model(path="alphabet")))
