"""Registers the engine; TensorRT LLM loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine tensorrt-llm`."""
    register(
        EngineSpec(
            "tensorrt-llm",
            "Hugging Face checkpoints with TensorRT LLM, on NVIDIA GPUs",
            load="evalkit_tensorrt_llm.engine:TensorRTLLM",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
            formats=("hf",),
        )
    )
