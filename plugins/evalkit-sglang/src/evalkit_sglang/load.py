"""From options and a model to a running SGLang engine."""

from __future__ import annotations

import os
from typing import Any

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError, OutOfMemoryError, one_line
from evalkit.model import Model
from evalkit_sglang.device import require_gpu
from evalkit_sglang.engine import SGLang, not_installed

ADAPTER = "evalkit"
"""The name under which SGLang holds the adapter."""
MODEL_ARGUMENTS = ("model_path", "tokenizer_path", "revision", "trust_remote_code", "lora_paths", "chat_template")
"""What the model says; never taken from `server_args`."""


def load_engine(engine: SGLang, model: Model) -> Any:
    """Start SGLang in this process and its children. Raises ModelError, ConfigError, MissingDependencyError."""
    arguments = engine_arguments(engine, model)
    # Log-probabilities of sampled tokens are the model's own, before temperature. Read when SGLang's parts are imported.
    os.environ.setdefault("SGLANG_RETURN_ORIGINAL_LOGPROB", "1")
    try:
        require_gpu(arguments.get("device"))
        import sglang
    except ImportError as error:
        raise not_installed(error) from error
    try:
        return sglang.Engine(**arguments)
    except TypeError as error:
        raise ConfigError(f"sglang refuses an argument: {one_line(error)}. Check --engine-arg server_args=") from error
    except (OSError, FileNotFoundError) as error:
        raise ModelNotFoundError(f"sglang cannot load {model.path!r}: {one_line(error)}. Check --model") from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise _failure(model, error) from error


def engine_arguments(engine: SGLang, model: Model) -> dict[str, Any]:
    """Arguments of `sglang.Engine`. Raises ConfigError where the options and the model contradict each other."""
    given = engine.arguments() | _loader_options(engine, model)
    if named := [name for name in MODEL_ARGUMENTS if name in given]:
        raise ConfigError(f"{named[0]} belongs to the model. Give it with --model or --model-arg, not in server_args")
    if model.dtype is not None:
        given["dtype"] = model.dtype
    if model.max_length is not None:
        if "context_length" in given:
            raise ConfigError("max_length and context_length both say how long a text may be. Leave one out")
        given["context_length"] = model.max_length + RESERVED
    if model.adapter is not None:
        given |= {"lora_paths": {ADAPTER: model.adapter}, "enable_lora": True}
    if model.trust_remote_code:
        given["trust_remote_code"] = True
    if model.revision is not None:
        given["revision"] = model.revision
    return given | {"model_path": model.path, "tokenizer_path": model.tokenizer_path or model.path}


RESERVED = 2
"""Tokens of the context that SGLang keeps free: it takes prompts shorter than the context, and writes one token."""


def _loader_options(engine: SGLang, model: Model) -> dict[str, Any]:
    if twice := sorted(set(engine.arguments()) & set(model.options)):
        raise ConfigError(f"{twice[0]} is given twice: to the engine, and to the model. Leave one out")
    return model.options


def _failure(model: Model, error: Exception) -> ModelError | OutOfMemoryError:
    text = one_line(error)
    if "out of memory" in text.lower():
        return OutOfMemoryError(f"{model.path} does not fit the GPU ({text}). Lower --engine-arg mem_fraction_static=")
    return ModelError(f"sglang cannot load {model.path!r}: {text}. Its own log says more: --engine-arg log_level=info")
