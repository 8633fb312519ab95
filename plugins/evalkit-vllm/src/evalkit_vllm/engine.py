"""The engine's options. vLLM is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import MissingDependencyError
from evalkit.model import Model
from evalkit.options import Positive

Share = Annotated[float, Gt(0), Le(1)]


@dataclass(slots=True)
class VLLM(BaseEngine):
    """Evaluates models with vLLM, in this process.

    Options are vLLM's own, by its names, with its defaults where they are None. `max_model_len` is the longest text
    that is read, by default the model's context. `adapter` is a LoRA adapter's folder. `prompt_logprob_tokens` bounds
    the scored tokens of one request: their logits cost memory by the size of the vocabulary. `llm_args` are any other
    arguments of `vllm.LLM`, unchanged.
    """

    neutral_options: ClassVar[frozenset[str]] = frozenset({"prompt_logprob_tokens"})

    dtype: str = "auto"
    tensor_parallel_size: Positive = 1
    pipeline_parallel_size: Positive = 1
    data_parallel_size: Positive = 1
    distributed_executor_backend: str | None = None
    gpu_memory_utilization: Share | None = None
    kv_cache_memory_bytes: Positive | None = None
    kv_cache_dtype: str | None = None
    block_size: Positive | None = None
    cpu_offload_gb: float | None = None
    max_model_len: Positive | None = None
    max_num_seqs: Positive | None = None
    max_num_batched_tokens: Positive | None = None
    enable_prefix_caching: bool = True
    enforce_eager: bool | None = None
    quantization: str | None = None
    load_format: str | None = None
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    tokenizer_mode: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    max_lora_rank: Positive | None = None
    enable_sleep_mode: bool = False
    seed: int | None = None
    prompt_logprob_tokens: Positive | None = None
    llm_args: dict[str, Any] = field(default_factory=dict)

    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model`. Raises ModelNotFoundError, ModelError, ConfigError, MissingDependencyError."""
        try:
            from evalkit_vllm.session import VLLMSession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'vllm' cannot import {error.name}. Make an environment for it with: evalkit env create vllm"
            ) from error
        return VLLMSession(self, model)
