"""Registers the engine."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine example`."""
    register(
        EngineSpec(
            "example",
            "A model that knows the alphabet",
            load="evalkit_example_engine.engine:MyEngine",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=("hf", "gguf"),
        )
    )
