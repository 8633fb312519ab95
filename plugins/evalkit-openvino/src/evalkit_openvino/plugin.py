"""Registers the engine; OpenVINO loads when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine openvino`."""
    register(
        EngineSpec(
            "openvino",
            "Hugging Face checkpoints and exported models with OpenVINO, on Intel processors and graphics",
            load="evalkit_openvino.engine:OpenVINO",
            capabilities=("generate", "loglikelihood", "rolling", "chat"),
        )
    )
