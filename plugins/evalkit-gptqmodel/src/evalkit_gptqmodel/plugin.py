"""Registers the engine; GPTQModel loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine gptqmodel`."""
    register(
        EngineSpec(
            "gptqmodel",
            "Checkpoints quantized to GPTQ, AWQ and the like with GPTQModel's kernels, on CPU and CUDA",
            load="evalkit_gptqmodel.engine:GPTQModel",
            capabilities=("generate", "loglikelihood", "rolling", "chat", "adapters"),
        )
    )
