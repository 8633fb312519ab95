"""The real SGLang on a real model: the contract, and scores and texts equal to those of Transformers.

Runs where there is a GPU, and, with EVALKIT_TEST_SGLANG_CPU=1, where SGLang was made to run on a CPU.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance
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


def _gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _why_not() -> str | None:
    if importlib.util.find_spec("sglang") is None:
        return "needs sglang: evalkit env create sglang"
    return None if ON_CPU or _gpu() else "needs a GPU"


if why := _why_not():
    pytest.skip(why, allow_module_level=True)


@pytest.fixture(scope="module")
def smollm2() -> str:
    """The real checkpoint."""
    checkpoint = pytest.importorskip("evalkit_smollm2.checkpoint", reason="needs evalkit-smollm2")
    path: str = checkpoint.hf_checkpoint()
    return path


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
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    requests = [LoglikelihoodRequest(question, choice) for question in QUESTIONS for choice in CHOICES]
    for request, output in zip(requests, real.loglikelihood(requests), strict=True):
        start = len(tokenizer(request.context)["input_ids"])
        ids = tokenizer(request.context + request.continuation, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logprobs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, ids[0, start:, None]).sum().item()
        assert output.logprob == pytest.approx(expected, abs=5e-3)
    outputs = real.generate([GenerationRequest(prompt=question, max_new_tokens=32) for question in QUESTIONS])
    for question, output in zip(QUESTIONS, outputs, strict=True):
        ids = tokenizer(question, return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1] :]
        assert list(output.token_ids) == written.tolist()
