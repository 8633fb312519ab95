"""The contract holds over HTTP, by each way to score."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent


class TestEvalRoutes(SessionConformance):
    """Scores by the routes made for it."""

    @pytest.fixture
    def session(self, kit: Any) -> BaseInferenceSession:
        """The session under test."""
        found: BaseInferenceSession = kit.connect(kit.serve(routes={"completions", "chat", "eval", "tokenizer"}))
        return found


class TestEchoOfTokenIds(SessionConformance):
    """Scores by echo, with the server's tokenizer."""

    @pytest.fixture
    def session(self, kit: Any) -> BaseInferenceSession:
        """The session under test."""
        found: BaseInferenceSession = kit.connect(kit.serve(routes={"completions", "chat", "tokenizer"}))
        return found


def test_close_is_idempotent(kit: Any) -> None:
    """Closing twice is allowed."""
    check_close_is_idempotent(kit.connect(kit.serve()))
