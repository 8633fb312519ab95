"""The real TensorRT LLM on a real model: the contract, and scores and texts equal to those of Transformers.

Runs where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance
from evalkit.testing.decoders import check_greedy, score_errors
from evalkit.testing.models import registered_model
from evalkit.testing.reference import reference_model
from evalkit_tensorrt_llm.device import has_gpu
from evalkit_tensorrt_llm.engine import TensorRTLLM

OPTIONS: dict[str, Any] = {"dtype": "float16", "free_gpu_memory_fraction": 0.3, "sampler_type": "TRTLLMSampler"}
QUESTIONS = ("The capital of France is", "Water boils at", "Two and two make", "The opposite of hot is")
CHOICES = (" Paris", " one hundred degrees", " four", " cold and wet")
REQUESTS = [LoglikelihoodRequest(question, choice) for question in QUESTIONS for choice in CHOICES]

pytest.importorskip("tensorrt_llm", reason="needs tensorrt_llm: evalkit env create tensorrt-llm")
if not has_gpu():
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.fixture(scope="module")
def smollm2() -> str:
    """The real checkpoint."""
    return registered_model("smollm2-135m", "hf")


@pytest.fixture(scope="module")
def real(smollm2: str) -> Iterator[BaseInferenceSession]:
    """A session on it."""
    with TensorRTLLM(**OPTIONS).build(Model(smollm2, max_length=1000)) as session:
        yield session


class TestTensorRTLLM(SessionConformance):
    """TensorRT LLM in float16."""

    # In float16 each token of a continuation may move by some steps of its logit.
    tolerance = 0.1

    @pytest.fixture
    def session(self, real: BaseInferenceSession) -> BaseInferenceSession:
        """The session under test."""
        return real


def test_scores_and_texts_are_those_of_transformers(real: BaseInferenceSession, smollm2: str) -> None:
    """The same weights: the same scores within the rounding of float16, and texts that begin alike."""
    model = reference_model(Path(smollm2))
    assert max(score_errors(real, model, REQUESTS)) < 0.1
    asked = [GenerationRequest(prompt=question, max_new_tokens=32) for question in QUESTIONS]
    check_greedy(real, model, asked, first=4)
