"""`evalkit smollm2`: make the checkpoint where it is missing, and print where it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from evalkit.specs import load_object
from evalkit_smollm2.plugin import MODEL


class Format(StrEnum):
    """What the printed path holds."""

    HF = "hf"
    GGUF = "gguf"


FormatOption = Annotated[Format, typer.Option(help="A Hugging Face checkpoint (540 MB) or a GGUF file (98 MB).")]


def smollm2(format: FormatOption = Format.HF) -> None:
    """Print the path of SmolLM2-135M-Instruct, preparing it on the first call."""
    typer.echo(load_object(MODEL.formats[format.value])())
