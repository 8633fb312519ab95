"""The dense floor: what plain forward passes over just the unique tokens take, plus the head where it is needed.

Two of them. In `short` rows no token reads more than the 127 before it in its row, whatever its text is. In `own` rows
it reads what its text has before it, as plain passes with Transformers' own cache do: a window of a long text is one
row, and what stands behind examples reads them from the cache.
"""

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


def dense_floors(checkpoint: str, dtype: str, runs: list[tuple[int, int]], scored: int) -> dict[str, float]:
    """Seconds by kind of floor. `runs` are the unique tokens, each run (tokens before it, tokens of its own)."""
    model = load(checkpoint, dtype)
    with torch.inference_mode():
        head = head_seconds(model, scored)
        own = sum(pass_seconds(model, 1, before, tokens) for before, tokens in runs if tokens >= ROW_TOKENS)
        own += rows_seconds(model, [run for run in runs if run[1] < ROW_TOKENS])
        return {"short": head + rows_seconds(model, [(0, tokens) for _, tokens in runs]), "own": head + own}


def rows_seconds(model: Any, runs: list[tuple[int, int]]) -> float:
    """For tokens in full batches of short rows, behind as many cached ones as stand before them on average."""
    total = sum(tokens for _, tokens in runs)
    if not total:
        return 0.0
    before = round(sum(before * tokens for before, tokens in runs) / total)
    passes = max(1, round(total / PASS_TOKENS))
    seconds = sum(pass_seconds(model, PASS_TOKENS // ROW_TOKENS, before, ROW_TOKENS) for _ in range(passes))
    return seconds * total / (passes * PASS_TOKENS)


def pass_seconds(model: Any, rows: int, before: int, tokens: int) -> float:
    """For one pass of the body; reading what is cached before it takes no time here."""
    cached = None
    if before:
        cached = model.base_model(random_ids(1, before), use_cache=True).past_key_values
        cached.batch_repeat_interleave(rows)
    ids = random_ids(rows, tokens)
    started = time.perf_counter()
    model.base_model(ids, past_key_values=cached, use_cache=cached is not None)
    return time.perf_counter() - started


def head_seconds(model: Any, scored: int) -> float:
    """For `scored` rows through head and softmax."""
    hidden = torch.randn(HEAD_ROWS, model.config.hidden_size, dtype=model.dtype)
    blocks = max(1, round(scored / HEAD_ROWS))
    started = time.perf_counter()
    for _ in range(blocks):
        model.lm_head(hidden).float().logsumexp(-1)
    return (time.perf_counter() - started) * scored / (blocks * HEAD_ROWS)


def random_ids(rows: int, tokens: int) -> torch.Tensor:
    """Any text."""
    return torch.randint(5, 1000, (rows, tokens))
