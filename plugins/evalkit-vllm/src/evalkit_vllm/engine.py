"""The engine's options. vLLM is loaded when a model is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, MissingDependencyError, PluginError, one_line
from evalkit.model import Model
from evalkit.options import Positive
from evalkit.servers import ServableEngine, ServerCommand

Share = Annotated[float, Gt(0), Le(1)]


@dataclass(slots=True)
class VLLM(ServableEngine):
    """Evaluates models with vLLM, in this process or through its server.

    Options are vLLM's own, by its names, with its defaults where they are None. `max_model_len` is the longest text
    that is read, by default the model's context. `adapter` is a LoRA adapter's folder. `prompt_logprob_tokens` bounds
    the scored tokens of one request: their logits cost memory by the size of the vocabulary. `llm_args` are any other
    arguments of `vllm.LLM`, unchanged.
    """

    neutral_options: ClassVar[frozenset[str]] = ServableEngine.neutral_options | {"prompt_logprob_tokens"}
    server_module: ClassVar[str] = "vllm"

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
        if self.is_served:
            return self.serve("vllm", model)
        if self.data_parallel_size > 1:
            raise ConfigError(
                "vLLM has no data parallelism within a process. Add --engine-arg start_server=true, or run shards of "
                "the documents, one on each GPU"
            )
        try:
            from evalkit_vllm.session import VLLMSession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'vllm' cannot import {error.name}. Make an environment for it with: evalkit env create vllm"
            ) from error
        except (RuntimeError, AttributeError, OSError) as error:
            raise PluginError(
                f"vLLM is installed, but cannot be imported: {one_line(error)}. Make it a clean environment with: "
                "evalkit env create vllm"
            ) from error
        return VLLMSession(self, model)

    def server_command(self, model: Model, served_name: str, port: int) -> ServerCommand:
        """vLLM's own server with this model. Raises ConfigError for options that contradict each other."""
        from evalkit_vllm.command import server_command

        return server_command(self, model, served_name, port)
