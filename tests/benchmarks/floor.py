"""The dense floor: what plain forward passes over just the unique tokens take, plus the head where it is needed."""

from __future__ import annotations

import time

import torch

PASS_TOKENS, ROW_TOKENS = 1024, 128


def dense_floor(checkpoint: str, dtype: str, unique: int, scored: int) -> float:
    """Seconds for `unique` tokens through the body, in full batches, and `scored` rows through head and softmax."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()
    ids = torch.randint(5, 1000, (PASS_TOKENS // ROW_TOKENS, ROW_TOKENS))
    hidden = torch.randn(256, model.config.hidden_size, dtype=model.dtype)
    with torch.inference_mode():
        model.base_model(ids, use_cache=False)
        started = time.perf_counter()
        for _ in range(max(1, round(unique / PASS_TOKENS))):
            model.base_model(ids, use_cache=False)
        body = (time.perf_counter() - started) / max(1, round(unique / PASS_TOKENS)) * unique / PASS_TOKENS
        started = time.perf_counter()
        for _ in range(8):
            model.lm_head(hidden).float().logsumexp(-1)
        head = (time.perf_counter() - started) / 8 * scored / 256
    return body + head
