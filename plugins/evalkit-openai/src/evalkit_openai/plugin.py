"""Registers the engine; the HTTP client loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine openai`."""
    register(
        EngineSpec(
            "openai",
            "models behind any OpenAI-compatible endpoint",
            load="evalkit_openai.engine:OpenAICompatible",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=(),
            remote=True,
        )
    )
