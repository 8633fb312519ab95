"""Attention that also gives the logarithm of its denominator, so that parts of one attention can be merged."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 2048
"""Queries whose scores are in memory at once."""


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output [rows, heads, tokens, size] and log-sum-exp of the scaled scores [rows, heads, tokens].

    Where `mask` leaves a token nothing to see, its output is 0 and its log-sum-exp is not meaningful.
    """
    if query.device.type == "cpu" and value.shape[-1] == query.shape[-1]:
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
        return output, lse
    outputs, sums = [], []
    # A piece at a time: with many sequences, scores of all at once could outgrow the device.
    for start in range(0, query.shape[2], PIECE):
        part = slice(start, start + PIECE)
        scores = torch.matmul(query[:, :, part].float(), key.float().transpose(-1, -2)) * scale
        if mask is not None:
            scores = scores + mask[:, :, part].float()
        lse = scores.logsumexp(-1)
        weights = (scores - lse.nan_to_num(neginf=0.0)[..., None]).exp()
        outputs.append(torch.matmul(weights.to(value.dtype), value))
        sums.append(lse)
    return torch.cat(outputs, 2), torch.cat(sums, 2)


def merge_attention(a: Tensor, a_lse: Tensor, b: Tensor, b_lse: Tensor) -> Tensor:
    """The attention over two sets of keys, from the attention over each. A part that saw nothing has -inf."""
    share = torch.sigmoid(a_lse - b_lse)[..., None]
    return torch.lerp(b.float(), a.float(), share).to(a.dtype)
