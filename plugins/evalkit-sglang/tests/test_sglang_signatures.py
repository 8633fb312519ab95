"""The stand-in has what is recorded of SGLang's API, the engine uses no more, and an installed SGLang has it all."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.scoring.prompts import Prompt
from evalkit.testing.signatures import Record, differences, installed, missing
from evalkit_sglang.arguments import OF_EVALKIT, OF_THE_MODEL, all_arguments
from evalkit_sglang.engine import SGLang
from evalkit_sglang.replies import scoring_arguments
from evalkit_sglang.sampling import sampling_params

RECORD = Record.read(Path(__file__).with_name("sglang_api.json"))
ENGINE = "sglang.srt.entrypoints.engine:Engine."
ARGUMENTS = set(RECORD.fields["sglang.srt.arg_groups.fields"])


def test_the_double_has_the_recorded_parameters(double: None) -> None:
    """Each recorded method takes exactly the recorded parameters."""
    module = importlib.import_module("sglang.srt.entrypoints.engine")
    for name, used in RECORD.functions.items():
        cls, _, method = name.partition(":")[2].partition(".")
        assert differences(getattr(getattr(module, cls), method), used) == []


def test_the_engine_uses_what_is_recorded() -> None:
    """Arguments, sampling parameters and what a prompt asks for are all in the record."""
    full = SGLang(
        **dict.fromkeys(("tp_size", "pp_size", "dp_size", "base_gpu_id", "random_seed", "page_size"), 1),
        **dict.fromkeys(("dtype", "device", "quantization", "kv_cache_dtype", "load_format", "log_level"), "x"),
        **dict.fromkeys(("context_length", "max_running_requests", "max_total_tokens", "max_prefill_tokens"), 1),
        **dict.fromkeys(("disable_cuda_graph", "disable_overlap_schedule", "enable_memory_saver"), True),
        **{"attention_backend": "x", "sampling_backend": "x", "mem_fraction_static": 0.5, "chunked_prefill_size": 1},
        enable_deterministic_inference=True,
    )
    given = all_arguments(full, Model("m", adapter="a", revision="r", trust_remote_code=True))
    assert set(given) | set(OF_EVALKIT) | set(OF_THE_MODEL) | {"disable_radix_cache"} == ARGUMENTS
    request = GenerationRequest(prompt="", temperature=1.0, seed=1, stop=("x",), logprobs=2)
    used = set(sampling_params(request, ends=frozenset({1})))
    assert used == set(RECORD.fields["sglang.srt.sampling.sampling_params:SamplingParams"])
    parameters = set(RECORD.functions[ENGINE + "async_generate"])
    assert set(scoring_arguments(Prompt((1, 2, 3), 2, (4,)))) | {"rid", "stream", "lora_path"} == parameters


def test_an_installed_sglang_has_what_is_recorded() -> None:
    """Read from its source, whether or not it can be imported here."""
    root = installed("sglang")
    if root is None:
        pytest.skip("sglang is not installed; the nox session `signatures` downloads it")
    assert missing(root, RECORD) == []
