"""Registers the engine; torch and transformers load when it is used."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register `--engine transformers` and `--engine transformers-compat`."""
    capabilities = ("generate", "loglikelihood", "rolling", "chat", "beams", "encoder-decoder", "adapters")
    register(
        EngineSpec(
            "transformers",
            "Any model that Hugging Face Transformers loads, on CPU, CUDA or MPS",
            load="evalkit_transformers.engine:Transformers",
            capabilities=capabilities,
        )
    )
    register(
        EngineSpec(
            "transformers-compat",
            "The same in fixed batches, without shared prefixes",
            load="evalkit_transformers.engine:TransformersCompat",
            capabilities=capabilities,
        )
    )
