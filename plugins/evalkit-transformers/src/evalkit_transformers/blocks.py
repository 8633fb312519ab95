"""Blocks of a tree batch: runs of tokens whose attention is done at once, and which keys each of them sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.scoring.planner import TreeBatch
from evalkit_transformers.attention import by_products, tail_mask

LEAST_TOKENS, MOST_TOKENS = 96, 256
"""Of a block. Fewer make slow multiplications, more waste scores on texts that do not see each other."""


@dataclass(slots=True)
class Seen:
    """The keys of one block: some of the resident chain, then some of the batch's own."""

    first: int
    last: int
    """Tokens of the resident chain, from the first to one past the last."""
    tail: Tensor | slice | None
    """Tokens of the batch."""
    mask: Tensor
    """Numbers to add to scores, 0 or -inf: [query heads of a key head x tokens of the block, keys]."""
    by_products: bool
    """Whether attention is done with `attention_by_products`, whose mask is of the last keys."""


@dataclass(slots=True)
class Block:
    """Tokens `first` to `last` of a batch. What they see is worked out once for all layers that are alike."""

    batch: TreeBatch
    first: int
    last: int
    _seen: dict[Any, Seen] = field(default_factory=dict)

    def seen(self, window: int | None, like: Tensor) -> Seen:
        """The keys for layers with this sliding window, for queries like `like` [key heads, group, tokens, size]."""
        name = (window, like.shape[1], like.device, like.dtype)
        if name not in self._seen:
            self._seen[name] = self._work_out(window, like)
        return self._seen[name]

    def _work_out(self, window: int | None, like: Tensor) -> Seen:
        batch, queries = self.batch, np.arange(self.first, self.last)[:, None]
        position = batch.positions[self.first : self.last, None]
        last = batch.keep + min(self.last, batch.chain)
        first = 0 if window is None else min(last, max(0, int(position.min()) - window + 1))
        tail = self._tail()
        allowed = np.concatenate(
            [np.arange(first, last) <= position, (tail <= queries) & (queries < batch.reach[tail])], axis=1
        )
        if window is not None:
            allowed &= position - np.concatenate([np.arange(first, last), batch.positions[tail]]) < window
        mask = torch.zeros(allowed.shape, dtype=like.dtype).masked_fill_(torch.from_numpy(~allowed), -torch.inf)
        mask = mask.to(like.device).repeat(like.shape[1], 1)
        products = by_products(mask.shape[0], mask.shape[1], like)
        return Seen(first, last, _index(tail, like.device), tail_mask(mask) if products else mask, products)

    def _tail(self) -> NDArray[np.int64]:
        """Tokens of the batch that the block's may see: none where it is of the chain, which is resident."""
        if self.last <= self.batch.chain:
            return np.arange(0)
        # In preorder, whatever is above a later token of the block and before the block is above its first token.
        above = self.batch.chain + np.flatnonzero(self.batch.reach[self.batch.chain : self.first] > self.first)
        return np.concatenate([above, np.arange(self.first, self.last)])


def make_blocks(batch: TreeBatch) -> list[Block]:
    """Blocks that cover a batch: of the chain, then of what is behind it."""
    blocks = []
    start, total = 0, len(batch.tokens)
    worth = _cut_worths(batch)
    while start < total:
        # What is resident is seen by all: the more it is, the less the waste on the block's own tokens matters.
        size = min(max(LEAST_TOKENS, (batch.keep + min(start, batch.chain)) // 2), MOST_TOKENS)
        end = total if start >= batch.chain else batch.chain
        stop = min(start + size, end)
        if stop < end:
            low = start + size // 2 + 1
            stop -= int(np.argmax(worth[low : stop + 1][::-1]))
        blocks.append(Block(batch, start, stop))
        start = stop
    return blocks


def _cut_worths(batch: TreeBatch) -> NDArray[np.int64]:
    """How good a cut before each token is: best between texts, else where the most tokens are done with."""
    total = len(batch.tokens)
    done = np.cumsum(np.bincount(batch.reach, minlength=total + 1))
    worth: NDArray[np.int64] = done + total * (done == np.arange(total + 1))
    return worth


def _index(tail: NDArray[np.int64], device: torch.device) -> Tensor | slice | None:
    """`tail` as something to index with; a slice where it is a range, because that is faster."""
    if not len(tail):
        return None
    if tail[-1] - tail[0] + 1 == len(tail):
        return slice(int(tail[0]), int(tail[-1]) + 1)
    return torch.from_numpy(tail).to(device)
