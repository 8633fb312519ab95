"""The engine's options. SGLang is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Le

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import ConfigError, MissingDependencyError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive

OWN = ("in_flight", "scored_tokens", "server_args")
"""Options that are not arguments of SGLang's server."""


@dataclass(slots=True)
class SGLang(BaseEngine):
    """Evaluates Hugging Face checkpoints with SGLang.

    Options have the names of SGLang's own server arguments, and None leaves its default; `server_args` takes all
    others. `enable_deterministic_inference` makes seeds count and scores independent of the batch; `enable_memory_saver`
    is needed to sleep. `in_flight` requests are in SGLang's hands at once, with at most `scored_tokens` scored tokens.
    """

    dtype: str | None = None
    device: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    load_format: str | None = None
    tp_size: Positive | None = None
    pp_size: Positive | None = None
    dp_size: Positive | None = None
    base_gpu_id: NotNegative | None = None
    mem_fraction_static: Annotated[float, Gt(0), Le(1)] | None = None
    context_length: Positive | None = None
    max_running_requests: Positive | None = None
    max_total_tokens: Positive | None = None
    max_prefill_tokens: Positive | None = None
    chunked_prefill_size: int | None = None
    page_size: Positive | None = None
    schedule_policy: str | None = None
    attention_backend: str | None = None
    sampling_backend: str | None = None
    disable_radix_cache: bool = False
    disable_cuda_graph: bool = False
    disable_overlap_schedule: bool = False
    enable_deterministic_inference: bool = False
    enable_memory_saver: bool = False
    random_seed: NotNegative | None = None
    log_level: str | None = None
    server_args: dict[str, Any] = field(default_factory=dict)
    in_flight: Positive = 512
    scored_tokens: Positive = 65536

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, ConfigError, MissingDependencyError."""
        from evalkit_sglang.load import load_engine
        from evalkit_sglang.session import SGLangSession

        return SGLangSession(self, model, load_engine(self, model))

    def arguments(self) -> dict[str, Any]:
        """The options as arguments of SGLang's server. Raises ConfigError for one that is given twice."""
        given = {name: value for name in self.__slots__ if name not in OWN and (value := getattr(self, name))}
        # Zero is a value, and False the default.
        given |= {name: 0 for name in ("base_gpu_id", "random_seed") if getattr(self, name) == 0}
        if twice := sorted(set(given) & set(self.server_args)):
            raise ConfigError(f"{twice[0]} is given twice: as an option, and in server_args. Leave one out")
        return given | self.server_args


def not_installed(error: ImportError) -> MissingDependencyError:
    """What to say where SGLang cannot be imported."""
    return MissingDependencyError(
        f"engine 'sglang' cannot import {error.name}. Give it an environment of its own with: evalkit env create sglang"
    )
