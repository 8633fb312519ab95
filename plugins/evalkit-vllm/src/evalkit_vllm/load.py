"""Load a model: options as vLLM's arguments, and what must be settled before vLLM is imported."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError, one_line
from evalkit.memory import available_memory
from evalkit.model import Model
from evalkit.tokenizers import HFTokenizer, context_length, load_tokenizer
from evalkit_vllm.engine import VLLM

# Read when vLLM is imported. In this process, so that nothing is left running when it is killed.
for _name, _value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import vllm
    from vllm.platforms import current_platform
    from vllm.transformers_utils.config import get_config

ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
CPU_CACHE_BYTES = 4 * 2**30
CPU_BLOCK = 32
"""Tokens of a cache block on a CPU: the smallest that its attention takes, so that as much as can be is shared."""
OURS = frozenset({"adapter", "max_model_len", "prompt_logprob_tokens", "llm_args", "tokenizer", "tokenizer_revision"})
"""Options that are not handed on as they are."""
TAKEN = frozenset(
    {"model", "runner", "convert", "task", "skip_tokenizer_init", "logprobs_mode", "return_sampling_mask"}
)
"""Arguments that would make it another kind of session, or its scores something else than log-probabilities."""


def merged(engine: VLLM, model: Model) -> Model:
    """The model, with what the engine's options say of it. Raises ConfigError for what contradicts itself."""
    found: dict[str, Any] = {"trust_remote_code": model.trust_remote_code or engine.trust_remote_code}
    pairs = {
        "tokenizer_path": "tokenizer",
        "tokenizer_revision": "tokenizer_revision",
        "revision": "revision",
        "adapter": "adapter",
        "max_length": "max_model_len",
    }
    for field, option in pairs.items():
        theirs, ours = getattr(model, field), getattr(engine, option)
        if theirs is not None and ours is not None and theirs != ours:
            raise ConfigError(
                f"--model-arg {field}={theirs} and --engine-arg {option}={ours} contradict each other. Give one of them"
            )
        found[field] = ours if theirs is None else theirs
    return replace(model, **found)


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


def llm_arguments(engine: VLLM, model: Model, length: int) -> dict[str, Any]:
    """What `vllm.LLM` is given. Raises ConfigError."""
    extra = {**engine.llm_args, **model.options}
    names = {field.name for field in fields(engine)}
    if clash := sorted((names | TAKEN) & set(extra)):
        hint = "is not for llm_args" if clash[0] in TAKEN else f"has an option of its own: --engine-arg {clash[0]}="
        raise ConfigError(f"the argument {clash[0]!r} {hint}. Leave it out of llm_args")
    if engine.data_parallel_size > 1:
        raise ConfigError(
            "vLLM has no data parallelism within a process. Run shards of the documents (--shard), one on each GPU"
        )
    options = {name: getattr(engine, name) for name in names - OURS}
    options.update(revision=model.revision, trust_remote_code=model.trust_remote_code)
    options.update(dtype=model.dtype or engine.dtype, tokenizer=model.tokenizer_path)
    options["tokenizer_revision"] = model.tokenizer_revision
    found = {name: value for name, value in options.items() if value is not None}
    # One more than is ever read: vLLM wants room for the token that it writes behind a prompt.
    found.update(model=model.path, max_model_len=length + 1)
    found.update(_lora(engine, model), **_cpu(engine))
    return {"max_logprobs": -1, "use_tqdm_on_load": False, **found, **extra}


def load_llm(engine: VLLM, model: Model, arguments: dict[str, Any]) -> Any:
    """The loaded `vllm.LLM`. Raises ModelError, ConfigError."""
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
    except (ValueError, RuntimeError, OSError, NotImplementedError, AssertionError, KeyError) as error:
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


def _lora(engine: VLLM, model: Model) -> dict[str, Any]:
    if model.adapter is None:
        return {}
    if not Path(model.adapter).is_dir():
        raise ModelNotFoundError(f"adapter {model.adapter} is no folder. Check --model-arg adapter=")
    return {"enable_lora": True, "max_lora_rank": engine.max_lora_rank or _rank(Path(model.adapter))}


def _rank(adapter: Path) -> int:
    """vLLM's least rank that holds the adapter's."""
    import json

    try:
        rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"adapter {adapter} has no adapter_config.json with a rank. Save it with PEFT") from error
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)


def _cpu(engine: VLLM) -> dict[str, Any]:
    """Defaults on a CPU, where vLLM's would take nearly all memory for the cache, in large blocks."""
    if not current_platform.is_cpu():
        return {}
    found: dict[str, Any] = {}
    if engine.block_size is None:
        found["block_size"] = CPU_BLOCK
    if engine.kv_cache_memory_bytes is None and not os.environ.get(CPU_CACHE_VARIABLE):
        found["kv_cache_memory_bytes"] = min(CPU_CACHE_BYTES, (available_memory() or CPU_CACHE_BYTES) // 4)
    return found


def clean_up() -> None:
    """After a session: let go of what vLLM keeps of its process groups, so that another may be built."""
    from vllm.distributed import cleanup_dist_env_and_memory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cleanup_dist_env_and_memory()
