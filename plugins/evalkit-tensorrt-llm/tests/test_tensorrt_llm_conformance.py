"""The contract holds over the recorded API, with reused blocks and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit_tensorrt_llm.engine import TensorRTLLM


class TestTensorRTLLM(SessionConformance):
    """The library as it is by default, but for seeds."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, double_for_class: None, model_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with TensorRTLLM(sampler_type="TRTLLMSampler").build(Model(str(model_path))) as session:
            yield session


class TestWithoutReuse(SessionConformance):
    """Each prompt is read anew, and few requests run at once."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, double_for_class: None, model_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        engine = TensorRTLLM(sampler_type="TRTLLMSampler", enable_block_reuse=False, queued=3, logit_rows=40)
        with engine.build(Model(str(model_path), max_length=120)) as session:
            yield session


def test_closing_twice_is_allowed(double: None, model_path: Path) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(TensorRTLLM().build(Model(str(model_path))))
