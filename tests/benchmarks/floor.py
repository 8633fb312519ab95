"""The dense floor: what plain forward passes over just the unique tokens take, plus the head where it is needed."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

PASS_TOKENS, ROW_TOKENS, HEAD_ROWS = 1024, 128, 256


@cache
def load(checkpoint: str, dtype: str) -> Any:
    """The model, warmed up."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()
    with torch.inference_mode():
        model(torch.zeros((1, 8), dtype=torch.long))
    return model


def dense_floor(checkpoint: str, dtype: str, unique: int, scored: int) -> float:
    """Seconds for `unique` tokens through the body, in full batches, and `scored` rows through head and softmax."""
    model = load(checkpoint, dtype)
    ids = torch.randint(5, 1000, (PASS_TOKENS // ROW_TOKENS, ROW_TOKENS))
    hidden = torch.randn(HEAD_ROWS, model.config.hidden_size, dtype=model.dtype)
    passes, blocks = max(1, round(unique / PASS_TOKENS)), max(1, round(scored / HEAD_ROWS))
    with torch.inference_mode():
        started = time.perf_counter()
        for _ in range(passes):
            model.base_model(ids, use_cache=False)
        body = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(blocks):
            model.lm_head(hidden).float().logsumexp(-1)
        head = time.perf_counter() - started
    return body * unique / (passes * PASS_TOKENS) + head * scored / (blocks * HEAD_ROWS)
