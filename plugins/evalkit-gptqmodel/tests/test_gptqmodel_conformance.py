"""The contract holds on quantized models: unpacked and by GPTQModel's kernels, sliding windows, AWQ, small passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.session import GPTQModelSession


class TestLlama(SessionConformance):
    """GPTQ, its weights unpacked to float32."""

    @pytest.fixture
    def session(self, llama: GPTQModelSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


class TestKernel(SessionConformance):
    """GPTQ with the kernel for 4 bits."""

    # A logit of 8 to 16 is stored in steps of 1/16, and the kernel sums a pass of another size in another order.
    tolerance = 0.5

    @pytest.fixture
    def session(self, kernel: GPTQModelSession) -> BaseInferenceSession:
        """The session under test."""
        return kernel


class TestSlidingWindow(SessionConformance):
    """A decoder that attends to its last 16 tokens."""

    @pytest.fixture
    def session(self, mistral: GPTQModelSession) -> BaseInferenceSession:
        """The session under test."""
        return mistral


class TestSmallPasses(SessionConformance):
    """Passes so small that every text is cut, few sequences at a time, and no guesses."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, llama_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        engine = GPTQModel(dtype="float32", device="cpu", batch_tokens=7, rows=2, draft_tokens=0)
        with engine.build(Model(str(llama_path))) as session:
            yield session


class TestOwnAttention(SessionConformance):
    """An attention of Transformers: each text on its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, llama_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        engine = GPTQModel(dtype="float32", device="cpu", attn_implementation="eager")
        with engine.build(Model(str(llama_path))) as session:
            assert (session.describe_execution() or {})["attn_implementation"] == "eager"
            yield session


class TestIsolated(SessionConformance):
    """The same in a process of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, llama_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        options = {"dtype": "float32", "device": "cpu"}
        with IsolatedEngine("gptqmodel", options).build(Model(str(llama_path))) as session:
            yield session


def test_closing_twice_is_allowed(llama_path: Path) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(GPTQModel(device="cpu").build(Model(str(llama_path))))
