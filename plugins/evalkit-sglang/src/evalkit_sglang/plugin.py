"""Registers the engine; SGLang loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine sglang`."""
    register(
        EngineSpec(
            "sglang",
            "Hugging Face checkpoints with SGLang, on GPUs",
            load="evalkit_sglang.engine:SGLang",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=("hf",),
        )
    )
