"""`evalkit smollm2`: make the checkpoint where it is missing, and print where it is."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from evalkit.specs import load_object
from evalkit_smollm2.plugin import MODEL


class Format(str, Enum):
    """What the printed path holds."""

    HF = "hf"
    GGUF = "gguf"


def smollm2(
    format: Annotated[Format, typer.Option(help="A Hugging Face checkpoint (540 MB) or a GGUF file (98 MB).")] = Format.HF,
) -> None:
    """Print the path of SmolLM2-135M-Instruct, preparing it on the first call."""
    typer.echo(load_object(MODEL.formats[format.value])())
