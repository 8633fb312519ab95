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

    Where `mask` leaves a token nothing to see, its log-sum-exp is -inf and its output is not meaningful.
    """
    if query.device.type == "cpu" and value.shape[-1] == query.shape[-1]:
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
        if mask is not None:
            # It gives 0 where a token sees nothing.
            lse = lse.masked_fill(mask.amax(-1) == -torch.inf, -torch.inf)
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
    """The attention over two sets of keys, from the attention over each."""
    share = torch.sigmoid(a_lse.float() - b_lse.float())[..., None]
    # A part without any visible key has weight 0, but its output may be NaN.
    a, b = torch.where(share > 0, a, 0), torch.where(share < 1, b, 0)
    return (a * share + b * (1 - share)).to(a.dtype)
