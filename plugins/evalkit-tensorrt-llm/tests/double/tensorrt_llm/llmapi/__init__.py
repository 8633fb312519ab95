"""Configuration of the cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class KvCacheConfig:
    """`tensorrt_llm.llmapi.KvCacheConfig`."""

    enable_block_reuse: bool = True
    free_gpu_memory_fraction: float | None = 0.9
    dtype: str = "auto"
