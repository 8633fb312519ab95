"""The engine's options. llama.cpp is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import MissingDependencyError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive

Device = Literal["auto", "cpu", "cuda", "metal"]
Switch = Literal["auto", "on", "off"]
SplitMode = Literal["none", "layer", "row"]
CacheType = Literal["auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Layers = Annotated[int, Ge(-1)]
RopeScaling = Literal["none", "linear", "yarn", "longrope"]


@dataclass(slots=True)
class LlamaCpp(BaseEngine):
    """Evaluates GGUF models with llama.cpp.

    `n_ctx` is the longest text, by default the model's own up to 8192 tokens. `n_batch` is the budget of tokens in a
    pass, `n_ubatch` what is computed at once. `n_gpu_layers` None or -1 is all of them on a GPU. `flash_attn`, `type_k`
    and `type_v` "auto" compute attention in float32 for a float32 model, else as llama.cpp chooses. `extra_buffers`
    "auto" repacks weights for the processor, but not where llama.cpp's AMX kernels would be used: they crash.
    `share_prefixes` computes what prompts have in common once; `draft_tokens` is how many tokens generation may guess
    ahead from repetitions in a text: the model checks each.
    """

    n_ctx: Positive | None = None
    n_batch: Positive = 512
    n_ubatch: Positive = 512
    n_threads: Positive | None = None
    n_threads_batch: Positive | None = None
    device: Device = "auto"
    n_gpu_layers: Layers | None = None
    main_gpu: NotNegative = 0
    split_mode: SplitMode = "layer"
    tensor_split: list[float] | None = None
    flash_attn: Switch = "auto"
    offload_kqv: bool = True
    use_mmap: bool = True
    use_mlock: bool = False
    type_k: CacheType = "auto"
    type_v: CacheType = "auto"
    rope_scaling: RopeScaling | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_orig_ctx: Positive | None = None
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    extra_buffers: Switch = "auto"
    share_prefixes: bool = True
    draft_tokens: NotNegative = 8
    verbose: bool = False

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, MissingDependencyError."""
        try:
            from evalkit_llamacpp.session import LlamaCppSession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'llamacpp' cannot import {error.name}. Install it with: pip install evalkit-llamacpp"
            ) from error
        return LlamaCppSession(self, model)
