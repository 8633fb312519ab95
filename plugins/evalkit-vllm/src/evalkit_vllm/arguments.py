"""Options and a model as vLLM's arguments, the same for `vllm.LLM` and for its server. Imports no vLLM."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.servers import ServableEngine
from evalkit_vllm.adapters import adapter_arguments
from evalkit_vllm.engine import VLLM

ADAPTER_OPTIONS = frozenset({"adapter", "max_lora_rank"})
OURS = (
    frozenset({"max_model_len", "prompt_logprob_tokens", "llm_args", "tokenizer", "tokenizer_revision"})
    | ADAPTER_OPTIONS
    | {item.name for item in fields(ServableEngine)}
)
"""Options that are not handed on as they are."""
TAKEN = frozenset({"model", "runner", "convert", "skip_tokenizer_init", "logprobs_mode", "return_sampling_mask"})
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


def all_arguments(engine: VLLM, model: Model) -> dict[str, Any]:
    """Arguments by vLLM's names, but for how long a text may be. Raises ConfigError, ModelNotFoundError, ModelError."""
    extra = {**engine.llm_args, **model.options}
    names = {item.name for item in fields(engine)}
    if clash := sorted((names | TAKEN) & set(extra)):
        hint = "is not for llm_args" if clash[0] in TAKEN else f"has an option of its own: --engine-arg {clash[0]}="
        raise ConfigError(f"the argument {clash[0]!r} {hint}. Leave it out of llm_args")
    options = {name: getattr(engine, name) for name in names - OURS}
    options.update(revision=model.revision, trust_remote_code=model.trust_remote_code)
    options.update(dtype=model.dtype or engine.dtype, tokenizer=model.tokenizer_path)
    options["tokenizer_revision"] = model.tokenizer_revision
    found = {name: value for name, value in options.items() if value is not None}
    adapter = adapter_arguments(model.adapter, engine.max_lora_rank) if model.adapter is not None else {}
    return {"max_logprobs": -1, **found, **adapter, "model": model.path, **extra}
