"""Sampling parameters, checked as the library does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    """`tensorrt_llm.SamplingParams`."""

    max_tokens: int = 32
    min_tokens: int | None = None
    end_id: int | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        """Refuse what the library refuses."""
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"require temperature >= 0, got temperature={self.temperature}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        given = (self.temperature, self.top_p, self.top_k)
        return given == (None, None, None) or self.top_k == 1 or self.top_p == 0 or self.temperature == 0
