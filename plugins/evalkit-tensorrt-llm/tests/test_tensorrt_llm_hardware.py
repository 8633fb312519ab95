"""The real TensorRT LLM on a real model: the contract, and scores and texts equal to those of Transformers.

Runs where there is a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance
from evalkit_tensorrt_llm.engine import TensorRTLLM

OPTIONS: dict[str, Any] = {"dtype": "float16", "free_gpu_memory_fraction": 0.3, "sampler_type": "TRTLLMSampler"}
QUESTIONS = ("The capital of France is", "Water boils at", "Two and two make", "The opposite of hot is")
CHOICES = (" Paris", " one hundred degrees", " four", " cold and wet")


def _gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _why_not() -> str | None:
    if importlib.util.find_spec("tensorrt_llm") is None:
        return "needs tensorrt_llm: evalkit env create tensorrt-llm"
    return None if _gpu() else "needs a GPU"


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
        assert output.logprob == pytest.approx(expected, abs=0.1)
    outputs = real.generate([GenerationRequest(prompt=question, max_new_tokens=32) for question in QUESTIONS])
    for question, output in zip(QUESTIONS, outputs, strict=True):
        ids = tokenizer(question, return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1] :]
        assert list(output.token_ids)[:4] == written.tolist()[:4]
