"""The real SGLang on a real model: the contract, and scores and texts equal to those of Transformers.

Runs where there is a GPU, and, with EVALKIT_TEST_SGLANG_CPU=1, where SGLang was made to run on a CPU.
"""

from __future__ import annotations

import os
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
from evalkit_sglang.device import has_gpu
from evalkit_sglang.engine import SGLang

ON_CPU = os.environ.get("EVALKIT_TEST_SGLANG_CPU") == "1"
CPU: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "disable_cuda_graph": True,
    "disable_overlap_schedule": True,
    "mem_fraction_static": 0.2,
    "engine_args": {"grammar_backend": "none"},
}
OPTIONS: dict[str, Any] = {"dtype": "float32", "max_total_tokens": 16384, **(CPU if ON_CPU else {})}
QUESTIONS = ("The capital of France is", "Water boils at", "Two and two make", "The opposite of hot is")
CHOICES = (" Paris", " one hundred degrees", " four", " cold and wet")
REQUESTS = [LoglikelihoodRequest(question, choice) for question in QUESTIONS for choice in CHOICES]

pytest.importorskip("sglang", reason="needs sglang: evalkit env create sglang")
if not (ON_CPU or has_gpu()):
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.fixture(scope="module")
def smollm2() -> str:
    """The real checkpoint."""
    return registered_model("smollm2-135m", "hf")


@pytest.fixture(scope="module")
def real(smollm2: str) -> Iterator[BaseInferenceSession]:
    """A session on it."""
    with SGLang(**OPTIONS).build(Model(smollm2, max_length=1000)) as session:
        yield session


class TestSGLang(SessionConformance):
    """SGLang in float32."""

    tolerance = 5e-3

    @pytest.fixture
    def session(self, real: BaseInferenceSession) -> BaseInferenceSession:
        """The session under test."""
        return real

    @pytest.mark.skip(reason="seeds need deterministic inference, which has attention kernels of its own")
    def test_each_request_keeps_its_own_values(self, session: BaseInferenceSession) -> None:
        """Tested on the stand-in."""


def test_scores_and_texts_are_those_of_transformers(real: BaseInferenceSession, smollm2: str) -> None:
    """The same weights in float32: the same scores within rounding, and the same greedy texts."""
    model = reference_model(Path(smollm2))
    assert max(score_errors(real, model, REQUESTS)) < 5e-3
    check_greedy(real, model, [GenerationRequest(prompt=question, max_new_tokens=32) for question in QUESTIONS])
