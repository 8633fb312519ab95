"""The engine's options. TensorRT LLM is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.options import Positive
from evalkit.servers import ServableEngine, ServerCommand

Fraction = Annotated[float, Ge(0), Le(1)]
Sampler = Literal["auto", "TorchSampler", "TRTLLMSampler"]


@dataclass(slots=True)
class TensorRTLLM(ServableEngine):
    """Evaluates Hugging Face checkpoints with TensorRT LLM's PyTorch backend, in this process or through its server.

    Options have the names of `tensorrt_llm.LLM`'s arguments, and None leaves its default; `engine_args` takes all
    others. `enable_block_reuse`, `free_gpu_memory_fraction` and `kv_cache_dtype` belong to its KvCacheConfig, of which
    `kv_cache_config` takes the rest. `queued` requests are in the library's hands at once; the prompts among them that
    have scored tokens hold `logit_rows` tokens together, since the library gives logits of whole prompts.
    """

    server_module: ClassVar[str] = "tensorrt_llm"
    # Its server insists on being told a port.
    server_chooses_port: ClassVar[bool] = False

    dtype: str | None = None
    tensor_parallel_size: Positive | None = None
    pipeline_parallel_size: Positive | None = None
    max_batch_size: Positive | None = None
    max_num_tokens: Positive | None = None
    max_seq_len: Positive | None = None
    enable_block_reuse: bool = True
    free_gpu_memory_fraction: Fraction | None = None
    kv_cache_dtype: str | None = None
    kv_cache_config: dict[str, Any] = field(default_factory=dict)
    enable_chunked_prefill: bool = False
    disable_overlap_scheduler: bool = False
    disable_cuda_graph: bool = False
    attn_backend: str | None = None
    sampler_type: Sampler = "auto"
    load_format: str | None = None
    engine_args: dict[str, Any] = field(default_factory=dict)
    queued: Positive = 256
    logit_rows: Positive = 8192

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, ConfigError, MissingDependencyError."""
        if self.is_served:
            return self.serve("tensorrt-llm", model)
        from evalkit_tensorrt_llm.load import load_llm
        from evalkit_tensorrt_llm.session import TensorRTLLMSession

        return TensorRTLLMSession(self, model, load_llm(self, model))

    def server_command(self, model: Model, served_name: str, port: int) -> ServerCommand:
        """`trtllm-serve` with this model. Raises ConfigError for options that contradict each other."""
        from evalkit_tensorrt_llm.command import server_command

        return server_command(self, model, served_name, port)
