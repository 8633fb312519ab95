"""Registers the engine; vLLM loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine vllm`."""
    register(
        EngineSpec(
            "vllm",
            "Hugging Face checkpoints with vLLM, on CUDA, ROCm or CPU",
            load="evalkit_vllm.engine:VLLM",
            capabilities=("generate", "loglikelihood", "rolling", "chat", "beams"),
        )
    )
