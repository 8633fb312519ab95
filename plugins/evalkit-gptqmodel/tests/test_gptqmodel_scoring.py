"""Scores and texts are those of plain forward passes over the same quantized weights, whatever shares a pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.scoring import Span
from evalkit.testing.decoders import (
    PAIRS,
    SPANS,
    TEXT,
    check_each_token_is_computed_once,
    check_greedy,
    check_spans,
    check_windows,
    logprob_errors,
    passes_of,
    token_logprobs,
)
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.session import GPTQModelSession

NAMES = ["llama", "mistral"]


def unpacked(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint in GPTQ's first format, unpacked by its definition: scale * (code - zero - 1)."""
    stored = load_file(folder / "model.safetensors")
    found = {name: tensor.float() for name, tensor in stored.items() if name.endswith((".weight", ".bias"))}
    shifts = np.arange(0, 32, 4)
    for name in (name for name in stored if name.endswith(".qweight")):
        base = name.removesuffix(".qweight")
        codes = stored[name].numpy()[:, None] >> shifts[None, :, None] & 15
        zeros = (stored[f"{base}.qzeros"].numpy()[:, :, None] >> shifts & 15) + 1
        groups, scales = stored[f"{base}.g_idx"].numpy(), stored[f"{base}.scales"].float().numpy()
        codes, zeros = codes.reshape(-1, codes.shape[-1]), zeros.reshape(len(zeros), -1)
        found[f"{base}.weight"] = torch.from_numpy((scales[groups] * (codes - zeros[groups])).T.copy()).float()
    return found


@pytest.fixture(scope="module")
def references(llama_path: Path, mistral_path: Path) -> dict[str, Any]:
    """Plain models of Transformers with the weights that the quantized checkpoints stand for."""
    models = {}
    for name, path in zip(NAMES, (llama_path, mistral_path), strict=True):
        config = transformers.AutoConfig.from_pretrained(path)
        del config.quantization_config
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        model.load_state_dict(unpacked(path))
        models[name] = model
    return models


@contextmanager
def plain_attention(session: GPTQModelSession) -> Iterator[None]:
    """The model attends as Transformers has it, not over the session's cells."""
    usual = session.model.config._attn_implementation
    session.model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        session.model.set_attn_implementation(usual)


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_the_unpacked_weights(
    name: str, references: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Token by token, within 1e-3 in float32, windows included; the weights unpacked here by GPTQ's definition."""
    assert max(logprob_errors(request.getfixturevalue(name), references[name])) < 1e-3


def test_the_kernel_scores_as_in_plain_passes(kernel: GPTQModelSession, references: dict[str, Any]) -> None:
    """GPTQModel's own kernel, which computes in bfloat16: near its plain passes, and near the exact weights."""
    assert kernel.describe_execution()["weights"] == "as stored"
    scored = kernel.loglikelihood(PAIRS)
    with plain_attention(kernel):
        texts = [[*pair.context, *pair.continuation] for pair in kernel.encode(PAIRS)]
        expected = [token_logprobs(kernel.model, text) for text in texts]
    for output, plain in zip(scored, expected, strict=True):
        assert output.token_logprobs is not None
        assert output.token_logprobs == pytest.approx(plain[-len(output.token_logprobs) :], abs=0.5)
    assert np.mean(logprob_errors(kernel, references["llama"])) < 0.1


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(spans=SPANS, budget=st.integers(1, 60))
def test_scores_do_not_depend_on_what_is_shared(
    name: str, references: dict[str, Any], request: pytest.FixtureRequest, spans: list[Span], budget: int
) -> None:
    """The forest, in passes of any size, scores as each text alone."""
    session: GPTQModelSession = request.getfixturevalue(name)
    with passes_of(session, budget):
        check_spans(session, references[name], spans)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_that_of_transformers(name: str, references: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The same tokens as `model.generate`, behind a shared prefix and without, few at a time, guessing ahead."""
    check_greedy(request.getfixturevalue(name), references[name])


def test_what_the_kernel_writes_is_likeliest_in_plain_passes(kernel: GPTQModelSession) -> None:
    """GPTQModel's kernel: each token is the best of GPTQModel's own passes, but for ties that rounding decides."""
    asked = [GenerationRequest(prompt=text, max_new_tokens=16) for text in ("The sky is", "A", TEXT)]
    outputs = kernel.generate(asked)
    with plain_attention(kernel):
        for request, output in zip(asked, outputs, strict=True):
            prompt = kernel.prompt_ids(request)
            with torch.inference_mode():
                logits = kernel.wrapper(torch.tensor([[*prompt, *output.token_ids]])).logits[0, len(prompt) - 1 : -1]
            chosen = logits.gather(1, torch.tensor(output.token_ids)[:, None])[:, 0]
            assert (logits.max(-1).values - chosen).max() < 0.25


def test_own_attention_scores_the_same(llama: GPTQModelSession, llama_path: Path) -> None:
    """Texts on their own, through Transformers' attention, have the scores and the texts of the forest."""
    engine = GPTQModel(dtype="float32", device="cpu", attn_implementation="eager")
    prompts = [GenerationRequest(prompt=text, max_new_tokens=12) for text in ("The sky is", TEXT)]
    with engine.build(Model(str(llama_path))) as session:
        found = [output.logprob for output in session.loglikelihood(PAIRS)]
        texts = [output.text for output in session.generate(prompts)]
    assert found == pytest.approx([output.logprob for output in llama.loglikelihood(PAIRS)], abs=1e-2)
    assert texts == [output.text for output in llama.generate(prompts)]


def test_each_token_is_computed_once(llama: GPTQModelSession) -> None:
    """Shared contexts and shared beginnings of continuations cost nothing further."""
    check_each_token_is_computed_once(llama)


def test_rolling_windows_cover_long_texts(llama: GPTQModelSession) -> None:
    """A text of several contexts is scored window by window."""
    check_windows(llama)


def test_awq_scores_as_the_weights_that_it_stands_for(awq_path: Path) -> None:
    """Unpacked within 1e-3 of plain passes in float32; near them with the kernel, whose activations are of bfloat16."""
    model = transformers.AutoModelForCausalLM.from_pretrained(awq_path / "exact", dtype=torch.float32)
    with GPTQModel(device="cpu", dtype="float32").build(Model(str(awq_path))) as session:
        assert session.describe_execution()["quantization"]["method"] == "awq"
        assert max(logprob_errors(session, model)) < 1e-3
    with GPTQModel(device="cpu", dequantize=False).build(Model(str(awq_path))) as session:
        assert session.describe_execution()["kernels"] == ["awq_torch_aten"]
        assert np.mean(logprob_errors(session, model)) < 0.1


def test_results_say_how_the_model_is_quantized(llama: GPTQModelSession, llama_path: Path) -> None:
    """Bits, group size, method, format and kernel are in the description, as plain data."""
    told = llama.describe_execution()
    stored = json.loads((llama_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    for name in ("bits", "group_size", "desc_act", "sym"):
        assert told["quantization"][name] == stored[name]
    assert told["quantization"]["method"] == told["quantization"]["format"] == "gptq"
    assert told["weights"] == "14 of 14 layers unpacked"
    assert all(name.startswith("gptq_") for name in told["kernels"])
