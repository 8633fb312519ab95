"""Options and a model as arguments of SGLang, the same for its engine and its server."""

from __future__ import annotations

import dataclasses
from typing import Any

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.servers import ServableEngine
from evalkit_sglang.engine import SGLang

ADAPTER = "evalkit"
"""The name under which SGLang holds the adapter."""
RESERVED = 7
"""Tokens of SGLang's context beyond those of a text: it keeps six free, and a prompt may hold one more."""
VARIABLES = {
    # Log-probabilities of written tokens are the model's own, before temperature.
    "SGLANG_RETURN_ORIGINAL_LOGPROB": "1",
    # So that texts may be as long as the model's own context: what is beyond it is never read.
    "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",
}
NOT_PASSED_ON = {"engine_args", "queued", "scored_tokens"} | {item.name for item in dataclasses.fields(ServableEngine)}
OF_THE_MODEL = ("model_path", "tokenizer_path", "revision", "trust_remote_code", "lora_paths", "chat_template")
OF_EVALKIT = ("served_model_name", "host", "port", "skip_tokenizer_init", "is_embedding", "stream_interval")


def all_arguments(engine: SGLang, model: Model) -> dict[str, Any]:
    """Arguments by SGLang's names. Raises ConfigError where some contradict each other."""
    given = _options(engine)
    for source, values in (("engine_args", engine.engine_args), ("the model's options", model.options)):
        if twice := sorted(set(given) & set(values)):
            raise ConfigError(f"{twice[0]} is given twice: by itself, and in {source}. Leave one out")
        given |= values
    for names, place in ((OF_THE_MODEL, "with --model or --model-arg"), (OF_EVALKIT, "not at all: evalkit does")):
        if named := [name for name in names if name in given]:
            raise ConfigError(f"{named[0]} is no option of engine 'sglang'. Give it {place}")
    return given | _of_model(model, given) | {"model_path": model.path}


def _options(engine: SGLang) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(engine) if item.name not in NOT_PASSED_ON]
    found = {name: getattr(engine, name) for name in names}
    if engine.disable_radix_cache:
        # It has no prefixes to put first.
        del found["schedule_policy"]
    return {name: value for name, value in found.items() if value is not None and value is not False}


def _of_model(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"tokenizer_path": model.tokenizer_path or model.path}
    if model.dtype is not None:
        found["dtype"] = model.dtype
    if model.max_length is not None:
        if "context_length" in given:
            raise ConfigError("max_length and context_length both say how long a text may be. Leave one out")
        found["context_length"] = model.max_length + RESERVED
    if model.adapter is not None:
        found |= {"lora_paths": {ADAPTER: model.adapter}, "enable_lora": True}
    if model.trust_remote_code:
        found["trust_remote_code"] = True
    if model.revision is not None:
        found["revision"] = model.revision
    return found
