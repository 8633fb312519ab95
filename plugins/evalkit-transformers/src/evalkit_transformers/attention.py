"""Attention that also gives the logarithm of its denominator, so that parts of one attention can be merged.

On a CPU that multiplies bfloat16 in AVX-512 but has no AMX, PyTorch's flash attention multiplies float32 numbers: there
many queries over many keys are multiplied by oneDNN instead, which takes three fifths of the time.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalkit_transformers.memory import SHAPE_STEP

PIECE = 2048
"""Queries whose scores are in memory at once."""
PRODUCT_QUERIES, PRODUCT_KEYS = 64, 512
"""Fewer are as fast in flash attention."""
PRODUCT_SCORES = 1 << 20
"""Scores at once, so that they stay in the cache of the processor and take little memory."""


def attention_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention [1, heads, tokens, size] with a mask that `tail_mask` made, of queries that all see something."""
    counts = mask.shape[0] - query.shape[2], -key.shape[2] % SHAPE_STEP, -key.shape[2] % SHAPE_STEP
    sides = [pad(side[0], (0, 0, 0, count)) for side, count in zip((query, key, value), counts, strict=True)]
    heads = max(1, PRODUCT_SCORES // (mask.shape[0] * sides[1].shape[1]))
    parts = zip(*(side.split(heads) for side in sides), strict=True)
    outputs = [torch.bmm(_scores(q, k, mask, scale).softmax(-1), v) for q, k, v in parts]
    return torch.cat(outputs)[None, :, : query.shape[2]]


def tail_mask(mask: Tensor) -> Tensor:
    """What a mask [queries, keys] adds to scores from the first key on that not all see.

    In one of few shapes, with queries and keys to spare, because oneDNN keeps code for each that it has met.
    """
    plain = int((mask == 0).all(0).cumprod(0).sum()) // SHAPE_STEP * SHAPE_STEP
    more = -mask.shape[0] % SHAPE_STEP, -mask.shape[1] % SHAPE_STEP
    return pad(mask[:, plain:], (0, more[1], 0, more[0]), value=-torch.inf)


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


def _scores(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Scores [heads, tokens, keys], each token's less its highest. The mask is of the last keys.

    Multiplied twice, because a result in bfloat16 is off by 2^-9 of itself: the second time what counts is near 0.
    """
    keys = key.transpose(1, 2)
    scores = torch.baddbmm(query.new_zeros(()), query, keys, alpha=scale)
    tail = scores[..., keys.shape[2] - mask.shape[1] :]
    tail += mask
    scores.copy_(-scores.amax(-1, keepdim=True))
    tail += mask
    return scores.baddbmm_(query, keys, alpha=scale)


def by_products(queries: int, keys: int, like: Tensor) -> bool:
    """Whether `attention_by_products` is faster for so many of each, in the dtype and on the device of `like`."""
    return (
        like.device.type == "cpu"
        and like.dtype == torch.bfloat16
        and queries >= PRODUCT_QUERIES
        and keys >= PRODUCT_KEYS
        and _multiplies_bfloat16()
    )


@cache
def _multiplies_bfloat16() -> bool:
    """Whether this processor has AVX-512 for bfloat16 and not AMX, with which flash attention is fast."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.cpu._is_avx512_bf16_supported()
        and not torch.cpu._is_amx_tile_supported()
    )
