"""Load a model into vLLM, and let go of it."""

from __future__ import annotations

import os
import warnings
from typing import Any

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError, one_line
from evalkit.memory import available_memory
from evalkit.model import Model
from evalkit.tokenizers import HFTokenizer, context_length, load_tokenizer
from evalkit_vllm.arguments import all_arguments
from evalkit_vllm.engine import VLLM
from evalkit_vllm.library import VLLMValidationError, current_platform, get_config, vllm

ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
LOAD_ERRORS = (VLLMValidationError, ValueError, RuntimeError, OSError, AssertionError, KeyError)
CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
CPU_CACHE_BYTES = 4 * 2**30
CPU_BLOCK = 32
"""Tokens of a cache block on a CPU: the smallest that its attention takes, so that as much as can be is shared."""


def read_config(model: Model) -> Any:
    """The checkpoint's configuration. Raises ModelNotFoundError."""
    try:
        return get_config(model.path, model.trust_remote_code, revision=model.revision)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(
            f"model {model.path!r} cannot be read: {one_line(error, 200)}. Give --model a folder or a hub id"
        ) from error


def longest(config: Any, model: Model, tokenizer: HFTokenizer, engine: VLLM) -> int:
    """Tokens that the model reads at most. Raises ConfigError for more than it can."""
    own = context_length(config, tokenizer.model_max_length)
    wanted = model.max_length or own
    stretched = "hf_overrides" in engine.llm_args or os.environ.get(ALLOW_LONG) == "1"
    if wanted > own and not stretched:
        raise ConfigError(f"the model's context is {own} tokens, not {wanted}. Leave out max_model_len and max_length")
    return wanted


def load_llm(engine: VLLM, model: Model, length: int) -> Any:
    """The loaded `vllm.LLM`. Raises ModelError, ConfigError."""
    # One more than is ever read: vLLM wants room for the token that it writes behind a prompt.
    ours = {"max_model_len": length + 1, "use_tqdm_on_load": False, **cpu_arguments(engine)}
    arguments = {**ours, **all_arguments(engine, model)}
    before = os.environ.get(ALLOW_LONG)
    os.environ[ALLOW_LONG] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return vllm.LLM(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"vLLM {vllm.__version__} does not take an argument: {one_line(error)}. Check llm_args"
        ) from error
    except (
        VLLMValidationError,
        ValueError,
        RuntimeError,
        OSError,
        NotImplementedError,
        AssertionError,
        KeyError,
    ) as error:
        raise ModelError(
            f"vLLM cannot load {model.path}: {one_line(error)}. Check the engine's options, or see "
            "more with VLLM_LOGGING_LEVEL=INFO"
        ) from error
    finally:
        os.environ.pop(ALLOW_LONG)
        if before is not None:
            os.environ[ALLOW_LONG] = before


def make_tokenizer(model: Model, ends: Any) -> HFTokenizer:
    """The tokenizer; `ends` are the end tokens of the checkpoint's generation config."""
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return load_tokenizer(model, eos_token_ids=listed)


def cpu_arguments(engine: VLLM) -> dict[str, Any]:
    """Defaults on a CPU: vLLM compiles for minutes there, and takes nearly all memory for a cache of large blocks."""
    if not current_platform.is_cpu():
        return {}
    found: dict[str, Any] = {}
    if engine.enforce_eager is None and "compilation_config" not in engine.llm_args:
        found["enforce_eager"] = True
    if engine.block_size is None:
        found["block_size"] = CPU_BLOCK
    if engine.kv_cache_memory_bytes is None and not os.environ.get(CPU_CACHE_VARIABLE):
        found["kv_cache_memory_bytes"] = min(CPU_CACHE_BYTES, (available_memory() or CPU_CACHE_BYTES) // 4)
    return found


def clean_up() -> None:
    """After the last session: let go of vLLM's process groups, so that another kind of model may be loaded."""
    from vllm.distributed import cleanup_dist_env_and_memory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cleanup_dist_env_and_memory()
