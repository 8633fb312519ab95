"""From options and a model to a running `tensorrt_llm.LLM`."""

from __future__ import annotations

from typing import Any

from evalkit.errors import (
    ConfigError,
    EvalkitError,
    MissingDependencyError,
    ModelError,
    ModelNotFoundError,
    OutOfMemoryError,
    one_line,
)
from evalkit.model import Model
from evalkit_tensorrt_llm.arguments import all_arguments
from evalkit_tensorrt_llm.device import require_gpu
from evalkit_tensorrt_llm.engine import TensorRTLLM


def load_llm(engine: TensorRTLLM, model: Model) -> Any:
    """Load the model. Raises ModelError, ConfigError, MissingDependencyError."""
    arguments = all_arguments(engine, model)
    try:
        require_gpu()
        from tensorrt_llm import LLM
        from tensorrt_llm.llmapi import KvCacheConfig

        if model.adapter is not None:
            from tensorrt_llm.lora_helper import LoraConfig
    except ImportError as error:
        raise MissingDependencyError(
            f"engine 'tensorrt-llm' cannot import {error.name}. Give it an environment of its own: "
            "evalkit env create tensorrt-llm"
        ) from error
    try:
        arguments["kv_cache_config"] = KvCacheConfig(**arguments["kv_cache_config"])
        if "lora_config" in arguments:
            arguments["lora_config"] = LoraConfig(**arguments["lora_config"])
        return LLM(**arguments)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _failure(model, error) from error


def _failure(model: Model, error: Exception) -> EvalkitError:
    text = one_line(error)
    # A validation error of pydantic is a ValueError.
    if isinstance(error, TypeError) or "invalid argument" in text or "validation error" in text:
        return ConfigError(f"tensorrt-llm refuses an argument: {text}. Check --engine-arg engine_args=")
    if isinstance(error, OSError):
        return ModelNotFoundError(f"tensorrt-llm cannot load {model.path!r}: {text}. Check --model")
    if "out of memory" in text.lower():
        return OutOfMemoryError(f"{model.path} does not fit ({text}). Lower --engine-arg free_gpu_memory_fraction=")
    return ModelError(f"tensorrt-llm cannot load {model.path!r}: {text}. TLLM_LOG_LEVEL=info makes its log say more")
