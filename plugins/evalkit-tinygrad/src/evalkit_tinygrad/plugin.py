"""Registers the engine; tinygrad loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine tinygrad`."""
    register(
        EngineSpec(
            "tinygrad",
            "GGUF models with tinygrad, on any device that it compiles for",
            load="evalkit_tinygrad.engine:Tinygrad",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=("gguf",),
        )
    )
