"""The contract holds on tiny models, sliding windows and small passes included, and on the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.testing.conformance import (
    SessionConformance,
    check_close_is_idempotent,
    check_close_returns_memory,
)
from evalkit_openvino.engine import OpenVINO
from evalkit_openvino.session import OpenVINOSession


class TestLlama(SessionConformance):
    """A decoder in float32."""

    @pytest.fixture
    def session(self, llama: OpenVINOSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


class TestSlidingWindow(SessionConformance):
    """A decoder that attends to its last 16 tokens."""

    @pytest.fixture
    def session(self, mistral: OpenVINOSession) -> BaseInferenceSession:
        """The session under test."""
        return mistral


class TestSmallPasses(SessionConformance):
    """Passes so small that every text is cut."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, llama_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with OpenVINO(batch_tokens=7, draft_tokens=0, compile=False).build(Model(str(llama_path))) as session:
            yield session


class TestSmolLM2(SessionConformance):
    """The real model in float32."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, smollm2_path: str) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with OpenVINO().build(Model(smollm2_path)) as session:
            yield session


def test_closing_twice_is_allowed(llama_path: Path) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(OpenVINO().build(Model(str(llama_path))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_returns_memory(llama_path: Path) -> None:
    """Sessions that come and go leave little behind."""
    check_close_returns_memory(lambda: OpenVINO().build(Model(str(llama_path))), mib=64)
