"""The engine's options. tinygrad is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import MissingDependencyError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive

Dtype = Literal["auto", "float32", "float16"]


@dataclass(slots=True)
class Tinygrad(BaseEngine):
    """Evaluates GGUF models with tinygrad's own model code.

    `device` is tinygrad's DEV, such as CPU, CUDA, METAL or CL; by default the best there is. `dtype` is what weights
    are unpacked to: "auto" is float32 on a CPU, else float16. `jit` false compiles nothing ahead; `beam` above 0
    searches for faster kernels at first use. `n_ctx` is the longest text, by default the model's own up to 4096.
    `batch_tokens` is the budget of tokens in a pass; passes have few fixed sizes, and are padded. `draft_tokens` is
    how many tokens generation may guess ahead from repetitions in a text: the model checks each.
    """

    device: str | None = None
    dtype: Dtype = "auto"
    jit: bool = True
    beam: NotNegative = 0
    n_ctx: Positive | None = None
    batch_tokens: Positive = 256
    draft_tokens: NotNegative = 8

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, MissingDependencyError."""
        try:
            from evalkit_tinygrad.session import TinygradSession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'tinygrad' cannot import {error.name}. It needs tinygrad 0.13.0 (the wheel of 0.14.0 lacks a "
                "part of its own). Install it with: pip install tinygrad==0.13.0"
            ) from error
        return TinygradSession(self, model)
