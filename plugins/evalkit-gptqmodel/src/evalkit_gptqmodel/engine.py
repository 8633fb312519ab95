"""The engine's options. GPTQModel is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import MissingDependencyError
from evalkit.hub import hub_is_reachable
from evalkit.model import Model
from evalkit.options import NotNegative, Positive
from evalkit_gptqmodel.quiet import quiet

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(slots=True)
class GPTQModel(BaseEngine):
    """Evaluates quantized checkpoints with GPTQModel.

    `backend` is the kernel by GPTQModel's name for it, "auto" the best that fits checkpoint and device. `device` and
    `dtype` "auto" are GPTQModel's choice: CUDA where there is one, else the CPU, and bfloat16 there. `adapter` is a
    folder or hub id of a LoRA or EoRA adapter in PEFT's layout.
    `dequantize` unpacks the weights once, at load: the same weights for quicker kernels, with as much memory as without
    quantization. By default that is done on a CPU, where memory allows and no `backend` is given.
    `attn_implementation` names an attention of Transformers; each text is then computed on its own.
    `batch_tokens` is the budget of tokens in a pass, `rows` how many texts are generated at a time; neither changes a
    score. `draft_tokens` is how many tokens generation may guess ahead from repetitions in a text; the model checks
    each. `load_kwargs` go to `GPTQModel.load` unchanged. `verbose` shows GPTQModel's own log.
    """

    neutral_options = frozenset({"batch_tokens", "rows", "verbose"})

    backend: str = "auto"
    device: str = "auto"
    device_map: str | dict[str, int | str] | None = None
    dtype: Dtype = "auto"
    attn_implementation: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    dequantize: bool | None = None
    batch_tokens: Positive | None = None
    rows: Positive | None = None
    draft_tokens: NotNegative = 8
    load_kwargs: dict[str, Any] = field(default_factory=dict)
    verbose: bool = False

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, ConfigError, MissingDependencyError."""
        if not Path(model.path).exists():
            # Before huggingface_hub is imported: it reads at import whether it is offline.
            hub_is_reachable()
        try:
            with quiet(verbose=self.verbose):
                from evalkit_gptqmodel.session import GPTQModelSession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'gptqmodel' cannot import {error.name}. Install it with: pip install evalkit-gptqmodel"
            ) from error
        return GPTQModelSession(self, model)
