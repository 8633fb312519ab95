"""Attention over a prefix forest: one packed row holds many texts, and shared prefixes stay resident.

All layers but attention see a plain sequence of tokens, without padding. Attention is done block by block: a
block's tokens see the resident chain and, within the block, their own ancestors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from evalkit.scoring import ScoredTokens, Span
from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit_transformers.attention import attention_with_lse, merge_attention
from evalkit_transformers.load import UNBOUNDED, stretched_from

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

IMPLEMENTATION = "evalkit_tree"
BLOCK_TOKENS = 192
"""Tokens whose attention is done at once: more waste masked scores on other units, fewer waste calls."""


@dataclass(slots=True)
class Block:
    """Tokens `first` to `last` of a batch, and which of their own block and of the chain each sees."""

    first: int
    last: int
    own: np.ndarray[Any, np.dtype[np.bool_]]
    positions: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(slots=True)
class TreePass:
    """What attention needs to know of the batch that is running. Masks are made once for all layers."""

    batch: TreeBatch
    cache: dict[int, tuple[Tensor, Tensor]]
    blocks: list[Block] = field(default_factory=list)
    masks: dict[Any, Tensor] = field(default_factory=dict)
    """By block (-1: the chain), window, heads that share a key head, and device: layers may differ in these."""
    collect: bool = False
    computed: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values of the batch's own tokens by layer, where somebody wants to `collect` them."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of all tokens. Shapes [1, heads, tokens, size]; result [1, tokens, heads, size]."""
        batch = self.batch
        if self.collect:
            self.computed[layer] = (key, value)
        chain = self._extend_chain(layer, key, value)
        output = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for number, block in enumerate(self.blocks):
            part = slice(block.first, block.last)
            if block.last <= batch.chain:
                keys, values = (side[:, :, : batch.keep + block.last] for side in chain)
            else:
                keys, values = key[:, :, part], value[:, :, part]
            mask = self._mask(number, block, window, query, query.shape[1] // key.shape[1])
            output[:, :, part], lse[:, :, part] = grouped_attention(query[:, :, part], keys, values, mask, scale)
        units = slice(batch.chain, None)
        if chain[0].shape[2] and batch.units:
            # Units see the whole chain: it is attended to at once, without a mask, and merged with their own part.
            mask = self._chain_mask(window, query, query.shape[1] // key.shape[1])
            seen, seen_lse = grouped_attention(query[:, :, units], *chain, mask, scale)
            output[:, :, units] = merge_attention(output[:, :, units], lse[:, :, units], seen, seen_lse)
        return output.transpose(1, 2)

    def _extend_chain(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Cut the resident chain to what is kept, and add this batch's part of it."""
        keep, chain = self.batch.keep, self.batch.chain
        if layer in self.cache:
            old_key, old_value = self.cache[layer]
            kept = (old_key[:, :, :keep], old_value[:, :, :keep])
        else:
            kept = (key[:, :, :0], value[:, :, :0])
        if chain:
            kept = (torch.cat([kept[0], key[:, :, :chain]], 2), torch.cat([kept[1], value[:, :, :chain]], 2))
        self.cache[layer] = kept
        return kept

    def _mask(self, number: int, block: Block, window: int | None, query: Tensor, groups: int) -> Tensor:
        """What each token of a block sees of its keys: the block itself, and for the chain's all that is before."""
        name = (number, window, groups, query.device)
        if name not in self.masks:
            own, before = block.own, block.positions[:0]
            if block.last <= self.batch.chain:
                before = np.arange(self.batch.keep + block.first)
                own = np.concatenate([np.ones((len(own), len(before)), bool), own], axis=1)
            if window is not None:
                own = own & (block.positions[:, None] - np.concatenate([before, block.positions]) < window)
            self.masks[name] = additive_mask(own, query, groups)
        return self.masks[name]

    def _chain_mask(self, window: int | None, query: Tensor, groups: int) -> Tensor | None:
        """What units see of the chain: everything, but for a sliding window that does not reach back so far."""
        positions = self.batch.positions[self.batch.chain :]
        if window is None or positions.max() < window:
            return None
        name = (-1, window, groups, query.device)
        if name not in self.masks:
            seen = positions[:, None] - np.arange(self.batch.keep + self.batch.chain) < window
            self.masks[name] = additive_mask(seen, query, groups)
        return self.masks[name]


def additive_mask(allowed: np.ndarray[Any, np.dtype[np.bool_]], like: Tensor, groups: int) -> Tensor:
    """A mask as numbers to add to scores, repeated for the query heads that share a key head."""
    wide = torch.from_numpy(np.tile(allowed, (groups, 1))).to(like.device)
    return torch.zeros(wide.shape, dtype=like.dtype, device=like.device).masked_fill_(~wide, -torch.inf)[None, None]


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention with fewer key heads than query heads, without copying keys: the group joins the queries."""
    rows, heads, tokens, size = query.shape
    folded = query.reshape(rows, key.shape[1], -1, size)
    found, lse = attention_with_lse(folded, key, value, mask, scale)
    return found.reshape(rows, heads, tokens, found.shape[-1]), lse.reshape(rows, heads, tokens)


def make_blocks(batch: TreeBatch, size: int) -> list[Block]:
    """Blocks of about `size` tokens: pieces of the chain, then whole units."""
    blocks = []
    for first in range(0, batch.chain, size):
        last = min(first + size, batch.chain)
        causal = np.tri(last - first, dtype=bool)
        blocks.append(Block(first, last, causal, batch.positions[first:last]))
    start = batch.chain
    segment = 0
    for index, (_, last) in enumerate(batch.units):
        following = batch.units[index + 1][1] if index + 1 < len(batch.units) else None
        if following is not None and following - start <= size:
            continue
        own, segment = _tree_mask(batch, start, last, segment)
        blocks.append(Block(start, last, own, batch.positions[start:last]))
        start = last
    return blocks


def _tree_mask(batch: TreeBatch, start: int, stop: int, segment: int) -> tuple[Any, int]:
    """Who sees whom among tokens `start` to `stop`, and the first segment behind them."""
    own = np.zeros((stop - start, stop - start), bool)
    while segment < len(batch.segments) and batch.segments[segment][0] < stop:
        first, last, above = batch.segments[segment]
        own[first - start : last - start, first - start : last - start] = np.tri(last - first, dtype=bool)
        while above >= 0:
            over_first, over_last, over = batch.segments[above]
            own[first - start : last - start, over_first - start : over_last - start] = True
            above = over
        segment += 1
    return own, segment


class Tree:
    """A model's attention over tree batches: installed while a forest is scored, one batch after another."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the model attends as `tree_attention` does."""
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation(IMPLEMENTATION)
        try:
            yield
        finally:
            self.model.set_attn_implementation(usual)
            self.cache.clear()

    @contextmanager
    def running(self, batch: TreeBatch, *, collect: bool = False) -> Iterator[TreePass]:
        """Within it, attention works on this batch; `collect` keeps the keys and values of its tokens."""
        tree = TreePass(batch, self.cache, make_blocks(batch, BLOCK_TOKENS), collect=collect)
        with running_pass(tree):
            yield tree

    def agrees(self, session: TransformersSession) -> bool:
        """Whether a small forest scores as its spans do in rows of their own: if not, rows are used.

        Models whose layers keep a state, or whose attention is not the usual one, are found out so.
        """
        if not attention_is_usual(self.model.config):
            return False
        spans = [Span((*range(3, 10), *tail), 6) for tail in ((1, 2, 5, 4), (1, 2, 6), (3, 4, 5), (2,))]
        expected = session.score_batch(spans)
        forest = build_forest(SpanTable.of(spans))
        collector = Collector(forest)
        found: dict[int, ScoredTokens] = {}
        try:
            # Six tokens a batch: the chain is computed in pieces and stays resident over several batches.
            for batch, logprobs, greedy in session.score_forest(plan_forest(forest, 6)):
                found.update(collector.add(batch, logprobs, greedy))
        except (TreeNotPossibleError, AttributeError, TypeError, ValueError, KeyError, RuntimeError):
            return False
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.2
        return all(
            np.allclose(found[number].logprobs, span.logprobs, atol=tolerance, rtol=tolerance)
            for number, span in enumerate(expected)
        )


def attention_is_usual(config: Any) -> bool:
    """Whether all layers attend fully or in a sliding window, in a form that is handed to the attention function."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    usual = kinds <= {"full_attention", "sliding_attention"} and config._attn_implementation != "eager"
    # Where angles depend on a text's length, a long text has other keys for a prefix than a short one.
    return usual and stretched_from(config) == UNBOUNDED


class Attention(Protocol):
    """What a pass of the model needs for its attention."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """From [rows, heads, tokens, size] to [rows, tokens, heads, size]."""
        ...


_running: list[Attention] = []
"""The pass at work. Models offer no other way to hand something to their attention function."""


@contextmanager
def running_pass(attention: Attention) -> Iterator[None]:
    """Within it, `attention` does the attention of models that have "evalkit_tree" installed."""
    _running.append(attention)
    try:
        yield
    finally:
        _running.pop()


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention implementation, with the signature that Transformers asks for."""
    if not _running or any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise TreeNotPossibleError(type(module).__name__)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return _running[-1].attend(module.layer_idx, query, key, value, scale, sliding_window), None


class TreeNotPossibleError(RuntimeError):
    """The model's attention has parts that a tree pass does not know."""


AttentionInterface.register(IMPLEMENTATION, tree_attention)
