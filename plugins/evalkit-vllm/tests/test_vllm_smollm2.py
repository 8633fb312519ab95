"""On a real model and real documents, scores and texts are those of plain passes with Transformers, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.model import Model
from evalkit.requests import Request
from evalkit.runs.plan import make_plan
from evalkit.runs.spec import make_spec
from evalkit.testing.reference import encoded_pair, naive_score, new_tokens, reference_model
from evalkit_vllm.engine import VLLM
from evalkit_vllm.session import VLLMSession

NEW_TOKENS = 32


@pytest.fixture(scope="module")
def reference(smollm2_path: str) -> Any:
    """SmolLM2 in Transformers."""
    return reference_model(Path(smollm2_path))


@pytest.fixture(scope="module")
def smollm2(smollm2_path: str) -> Iterator[VLLMSession]:
    """SmolLM2 in vLLM."""
    engine = VLLM(dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**30, max_num_seqs=32)
    with VLLMSession(engine, Model(smollm2_path, max_length=2048)) as session:
        yield session


def requests_of(task: str, limit: int, data_dir: str) -> list[list[Any]]:
    """What a task asks about each document."""
    pytest.importorskip(f"evalkit_tasks_{'math' if task == 'gsm8k' else 'commonsense'}")
    plan = make_plan(make_spec({"tasks": [task], "engine": "vllm", "model": "-", "limit": limit, "data_dir": data_dir}))
    return [[asked.request for asked in doc] for doc in plan.tasks[task].ask(1234, None)]


def test_hellaswag_has_the_scores_of_transformers(
    smollm2: VLLMSession, reference: Any, smollm2_path: str, data_dir: str
) -> None:
    """Every continuation of 10 documents, and so every choice."""
    pairs: list[Request] = [pair for doc in requests_of("hellaswag", 10, data_dir) for pair in doc]
    for pair, output in zip(pairs, smollm2.loglikelihood(pairs), strict=True):
        logprobs, _ = naive_score(reference, *encoded_pair(Path(smollm2_path), pair))
        assert output.token_logprobs == pytest.approx(logprobs, abs=2e-3)


def test_gsm8k_has_the_texts_of_transformers(smollm2: VLLMSession, reference: Any, data_dir: str) -> None:
    """Five-shot prompts of two documents, token by token."""
    asked = [replace(request, max_new_tokens=NEW_TOKENS) for (request,) in requests_of("gsm8k", 2, data_dir)]
    for request, output in zip(asked, smollm2.generate(asked), strict=True):
        ids, ends = smollm2.prompt_ids(request), smollm2.tokenizer.eos_token_ids
        assert [output.token_ids] == new_tokens(reference, ids, ends, max_new_tokens=len(output.token_ids))
