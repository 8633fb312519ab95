"""The contract holds on the tiny model, with and without shared prefixes, and on the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.testing.conformance import (
    SessionConformance,
    check_close_is_idempotent,
    check_close_returns_memory,
)
from evalkit.testing.tiny import TinyModel
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession


class TestForest(SessionConformance):
    """The tiny model, prefixes shared."""

    @pytest.fixture
    def session(self, llama: LlamaCppSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


class TestRows(SessionConformance):
    """The tiny model, one text at a time."""

    @pytest.fixture
    def session(self, llama_rows: LlamaCppSession) -> BaseInferenceSession:
        """The session under test."""
        return llama_rows


class TestSmallPasses(SessionConformance):
    """The tiny model in passes so small that every text is cut."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, tiny: TinyModel) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with LlamaCpp(n_threads=1, n_batch=7, n_ubatch=4).build(Model(str(tiny.gguf))) as session:
            yield session


class TestSmolLM2(SessionConformance):
    """The real model with 4-bit weights."""

    # Weights and activations are quantized in blocks, and kernels differ with the number of tokens.
    tolerance = 0.3

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, smollm2_gguf: str) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with LlamaCpp().build(Model(smollm2_gguf)) as session:
            yield session


def test_closing_twice_is_allowed(tiny: TinyModel) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(LlamaCpp().build(Model(str(tiny.gguf))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_returns_memory(tiny: TinyModel) -> None:
    """Sessions that come and go leave nothing behind."""
    check_close_returns_memory(lambda: LlamaCpp(n_threads=1).build(Model(str(tiny.gguf))))
