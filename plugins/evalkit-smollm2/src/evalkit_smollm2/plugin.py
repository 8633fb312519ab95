"""Register the model in both formats, and the command `evalkit smollm2`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evalkit import ModelSpec, hookimpl

if TYPE_CHECKING:
    import typer

MODEL = ModelSpec(
    "smollm2-135m",
    "SmolLM2-135M-Instruct, 4-bit weights, from the package index",
    formats={"hf": "evalkit_smollm2.checkpoint:hf_checkpoint", "gguf": "evalkit_smollm2.gguf:gguf_file"},
)


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Register smollm2-135m."""
    register(MODEL)


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `smollm2`."""
    from evalkit_smollm2.command import smollm2

    app.command("smollm2")(smollm2)
