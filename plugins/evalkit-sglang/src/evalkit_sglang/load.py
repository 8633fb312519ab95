"""From options and a model to a running SGLang engine."""

from __future__ import annotations

import os
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
from evalkit_sglang.arguments import VARIABLES, all_arguments
from evalkit_sglang.device import require_gpu
from evalkit_sglang.engine import SGLang


def load_engine(engine: SGLang, model: Model) -> Any:
    """Start SGLang in this process and its children. Raises ModelError, ConfigError, MissingDependencyError."""
    arguments = all_arguments(engine, model)
    for name, value in VARIABLES.items():
        # Read when SGLang's parts are imported, in its children too.
        os.environ.setdefault(name, value)
    try:
        require_gpu(arguments.get("device"))
        from sglang.srt.entrypoints.engine import Engine
    except ImportError as error:
        raise MissingDependencyError(
            f"engine 'sglang' cannot import {error.name}. Give it an environment of its own: evalkit env create sglang"
        ) from error
    try:
        return Engine(**arguments)
    except (AssertionError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise _failure(model, error) from error


def _failure(model: Model, error: Exception) -> EvalkitError:
    text = one_line(error)
    if isinstance(error, TypeError):
        return ConfigError(f"sglang refuses an argument: {text}. Check --engine-arg engine_args=")
    if isinstance(error, OSError):
        return ModelNotFoundError(f"sglang cannot load {model.path!r}: {text}. Check --model")
    if "out of memory" in text.lower():
        return OutOfMemoryError(f"{model.path} does not fit the GPU ({text}). Lower --engine-arg mem_fraction_static=")
    return ModelError(f"sglang cannot load {model.path!r}: {text}. Its log says more: --engine-arg log_level=info")
