"""Registers the engine; llama.cpp loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine llamacpp`."""
    register(
        EngineSpec(
            "llamacpp",
            "GGUF models with llama.cpp, on CPU, CUDA or Metal",
            load="evalkit_llamacpp.engine:LlamaCpp",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=("gguf",),
        )
    )
