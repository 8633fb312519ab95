"""The engine's options. SGLang is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.options import NotNegative, Positive
from evalkit.servers import ServableEngine, ServerCommand

Fraction = Annotated[float, Gt(0), Le(1)]


@dataclass(slots=True)
class SGLang(ServableEngine):
    """Evaluates Hugging Face checkpoints with SGLang, in this process or through its server.

    Options have the names of SGLang's own server arguments, and None leaves its default; `engine_args` takes all
    others. `enable_deterministic_inference` makes seeds count, `enable_memory_saver` is needed to sleep. `queued`
    requests are in SGLang's hands at once, with at most `scored_tokens` scored tokens of prompts among them.
    """

    server_module: ClassVar[str] = "sglang"
    # Its server asks itself for its first answer, at the port that it was told.
    server_chooses_port: ClassVar[bool] = False

    dtype: str | None = None
    device: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    load_format: str | None = None
    tp_size: Positive | None = None
    pp_size: Positive | None = None
    dp_size: Positive | None = None
    base_gpu_id: NotNegative | None = None
    mem_fraction_static: Fraction | None = None
    context_length: Positive | None = None
    max_running_requests: Positive | None = None
    max_total_tokens: Positive | None = None
    max_prefill_tokens: Positive | None = None
    chunked_prefill_size: int | None = None
    page_size: Positive | None = None
    schedule_policy: str = "lpm"
    attention_backend: str | None = None
    sampling_backend: str | None = None
    disable_radix_cache: bool = False
    disable_cuda_graph: bool = False
    disable_overlap_schedule: bool = False
    enable_deterministic_inference: bool = False
    enable_memory_saver: bool = False
    random_seed: NotNegative | None = None
    log_level: str | None = None
    engine_args: dict[str, Any] = field(default_factory=dict)
    queued: Positive = 256
    scored_tokens: Positive = 65536

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, ConfigError, MissingDependencyError."""
        if self.is_served:
            return self.serve("sglang", model)
        from evalkit_sglang.load import load_engine
        from evalkit_sglang.session import SGLangSession

        return SGLangSession(self, model, load_engine(self, model))

    def server_command(self, model: Model, served_name: str, port: int) -> ServerCommand:
        """SGLang's own server with this model. Raises ConfigError for options that contradict each other."""
        from evalkit_sglang.command import server_command

        return server_command(self, model, served_name, port)
