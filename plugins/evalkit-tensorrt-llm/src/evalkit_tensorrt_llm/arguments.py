"""Options and a model as arguments of `tensorrt_llm.LLM`, as plain data."""

from __future__ import annotations

from typing import Any

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit_tensorrt_llm.engine import TensorRTLLM

ADAPTER = ("evalkit", 1)
"""Name and number under which the library holds the adapter."""
PASSED_ON = (
    *("dtype", "tensor_parallel_size", "pipeline_parallel_size", "max_batch_size", "max_num_tokens", "max_seq_len"),
    *("enable_chunked_prefill", "disable_overlap_scheduler", "attn_backend", "load_format"),
)
KV_CACHE = {
    "enable_block_reuse": "enable_block_reuse",
    "free_gpu_memory_fraction": "free_gpu_memory_fraction",
    "kv_cache_dtype": "dtype",
}
"""Options that are fields of KvCacheConfig."""
OF_THE_MODEL = ("model", "tokenizer", "revision", "tokenizer_revision", "trust_remote_code")
OF_EVALKIT = ("skip_tokenizer_init", "gather_generation_logits", "backend", "max_beam_width", "cuda_graph_config")


def all_arguments(engine: TensorRTLLM, model: Model) -> dict[str, Any]:
    """Arguments by their names, `kv_cache_config` as a mapping. Raises ConfigError where some contradict each other."""
    given = {name: value for name in PASSED_ON if (value := getattr(engine, name)) not in (None, False)}
    if engine.sampler_type != "auto":
        given["sampler_type"] = engine.sampler_type
    for source, values in (("engine_args", engine.engine_args), ("the model's options", model.options)):
        if twice := sorted({*given, "kv_cache_config"} & set(values)):
            raise ConfigError(f"{twice[0]} is given twice: by itself, and in {source}. Leave one out")
        given |= values
    for names, place in ((OF_THE_MODEL, "with --model or --model-arg"), (OF_EVALKIT, "not at all: evalkit does")):
        if named := [name for name in names if name in given]:
            raise ConfigError(f"{named[0]} is no option of engine 'tensorrt-llm'. Give it {place}")
    if engine.disable_cuda_graph:
        given["cuda_graph_config"] = None
    given |= _of_model(model, given)
    return given | {"kv_cache_config": _kv_cache(engine), "gather_generation_logits": True, "backend": "pytorch"}


def _kv_cache(engine: TensorRTLLM) -> dict[str, Any]:
    own = {field: value for name, field in KV_CACHE.items() if (value := getattr(engine, name)) is not None}
    if twice := sorted(set(own) & set(engine.kv_cache_config)):
        raise ConfigError(f"{twice[0]} of kv_cache_config is an option by itself. Leave one out")
    return own | engine.kv_cache_config


def _of_model(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"model": model.path, "tokenizer": model.tokenizer_path or model.path}
    if model.dtype is not None:
        found["dtype"] = model.dtype
    if model.max_length is not None:
        if "max_seq_len" in given:
            raise ConfigError("max_length and max_seq_len both say how long a text may be. Leave one out")
        found["max_seq_len"] = model.max_length + RESERVED
    if "max_seq_len" in {**given, **found}:
        # Its own default would cut prompts short.
        found.setdefault("max_input_len", {**given, **found}["max_seq_len"])
    if model.trust_remote_code:
        found["trust_remote_code"] = True
    for name in ("revision", "tokenizer_revision"):
        if (value := getattr(model, name)) is not None:
            found[name] = value
    if model.adapter is not None:
        found["lora_config"] = {"lora_dir": [model.adapter]}
    return found


RESERVED = 2
"""Tokens of the context that are kept free: for a prompt's last token, and for the one that is written behind it."""
