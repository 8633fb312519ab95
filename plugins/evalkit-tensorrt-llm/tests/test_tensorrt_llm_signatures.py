"""The stand-in has what is recorded of the library's API, the engine uses no more, and an installed one has it all."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.scoring.prompts import Prompt
from evalkit.testing.signatures import Record, differences, installed, missing
from evalkit_tensorrt_llm.arguments import OF_EVALKIT, OF_THE_MODEL, all_arguments
from evalkit_tensorrt_llm.engine import TensorRTLLM
from evalkit_tensorrt_llm.sampling import scoring_params, writing_params

RECORD = Record.read(Path(__file__).with_name("tensorrt_llm_api.json"))
PARAMS = "tensorrt_llm.sampling_params:SamplingParams"
ARGS = ("tensorrt_llm.llmapi.llm_args:BaseLlmArgs", "tensorrt_llm.llmapi.llm_args:TorchLlmArgs")
DATA = {
    PARAMS: "tensorrt_llm:SamplingParams",
    "tensorrt_llm.llmapi.llm_args:KvCacheConfig": "tensorrt_llm.llmapi:KvCacheConfig",
    "tensorrt_llm.lora_helper:LoraConfig": "tensorrt_llm.lora_helper:LoraConfig",
    "tensorrt_llm.executor.request:LoRARequest": "tensorrt_llm.executor:LoRARequest",
    "tensorrt_llm.executor.result:CompletionOutput": "tensorrt_llm.llm:CompletionOutput",
    "tensorrt_llm.executor.result:Logprob": "tensorrt_llm.llm:Logprob",
}
"""Recorded classes of data, and where the stand-in has them."""


def test_the_double_has_the_recorded_parameters(double: None) -> None:
    """Each recorded method takes exactly the recorded parameters, each class has the recorded fields."""
    module = importlib.import_module("tensorrt_llm.llm")
    owners = {"BaseLLM": module.LLM, "GenerationResult": module.RequestOutput}
    for name, used in RECORD.functions.items():
        cls, _, method = name.partition(":")[2].partition(".")
        assert differences(getattr(owners[cls], method), used) == []
    for recorded, place in DATA.items():
        home, _, name = place.partition(":")
        fields = dataclasses.fields(getattr(importlib.import_module(home), name))
        assert {item.name for item in fields} == set(RECORD.fields[recorded])


def test_the_engine_uses_what_is_recorded() -> None:
    """Arguments and sampling parameters are all in the record."""
    full = TensorRTLLM(
        **dict.fromkeys(("dtype", "attn_backend", "load_format", "kv_cache_dtype"), "x"),
        **dict.fromkeys(("tensor_parallel_size", "pipeline_parallel_size", "max_batch_size", "max_num_tokens"), 1),
        **dict.fromkeys(("enable_chunked_prefill", "disable_overlap_scheduler", "disable_cuda_graph"), True),
        free_gpu_memory_fraction=0.5,
        sampler_type="TorchSampler",
    )
    model = Model("m", adapter="a", revision="r", tokenizer_revision="r", trust_remote_code=True, max_length=9)
    given = all_arguments(full, model)
    known = {name for cls in ARGS for name in RECORD.fields[cls]}
    assert set(given) | set(OF_EVALKIT) | set(OF_THE_MODEL) == known
    assert set(given["kv_cache_config"]) == set(RECORD.fields["tensorrt_llm.llmapi.llm_args:KvCacheConfig"])
    assert set(given["lora_config"]) == set(RECORD.fields["tensorrt_llm.lora_helper:LoraConfig"])
    request = GenerationRequest(prompt="", temperature=1.0, seed=1, min_p=0.1, min_new_tokens=1, logprobs=2)
    used = set(writing_params(request, sample=0, ends=frozenset({1, 2}), sampler="TRTLLMSampler"))
    used |= set(scoring_params(Prompt((1, 2, 3), 2), 1)) | set(scoring_params(Prompt((1, 2), 2, (3,)), 1))
    assert used == set(RECORD.fields[PARAMS])


def test_an_installed_library_has_what_is_recorded() -> None:
    """Read from its source, whether or not it can be imported here."""
    root = installed("tensorrt_llm")
    if root is None:
        pytest.skip("tensorrt_llm is not installed; the nox session `signatures` downloads it where it can")
    assert missing(root, RECORD) == []
