"""Attention over a prefix forest: one packed row holds many texts, and shared prefixes stay resident.

All layers but attention see a plain sequence of tokens, without padding. Attention is done block by block: a
block's tokens see the resident chain and, within the block, their own ancestors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import AttentionInterface

from evalkit.scoring import ScoredTokens, Span
from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit_transformers.attention import attention_by_products
from evalkit_transformers.blocks import Block, make_blocks
from evalkit_transformers.load import UNBOUNDED, stretched_from

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

IMPLEMENTATION = "evalkit_tree"
Store = Callable[[int, Tensor, Tensor], None]
"""Takes a layer's number, and the keys and values of a batch's own tokens, both [1, heads, tokens, size]."""


@dataclass(slots=True)
class Resident:
    """Keys and values of one layer, both [heads, room, size]: the chain, and behind it a block's own for a while."""

    keys: Tensor
    values: Tensor

    def write(self, at: int, key: Tensor, value: Tensor) -> int:
        """Put keys and values [heads, tokens, size] at a place; one past the last."""
        end: int = at + key.shape[1]
        if end > self.keys.shape[1]:
            self.keys, self.values = (_with_room(side, at, end + end // 4) for side in (self.keys, self.values))
        self.keys[:, at:end] = key
        self.values[:, at:end] = value
        return end

    def part(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Keys and values of some tokens, both [1, heads, tokens, size]."""
        return self.keys[None, :, first:last], self.values[None, :, first:last]


def _with_room(side: Tensor, kept: int, room: int) -> Tensor:
    larger = side.new_empty((side.shape[0], room, side.shape[2]))
    larger[:, :kept] = side[:, :kept]
    return larger


@dataclass(slots=True)
class TreePass:
    """What attention needs to know of the batch that is running."""

    batch: TreeBatch
    cache: dict[int, Resident]
    blocks: list[Block]
    store: Store | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of all tokens. Shapes [1, heads, tokens, size]; result [1, tokens, heads, size]."""
        if self.store is not None:
            self.store(layer, key, value)
        keys, values = key[0], value[0]
        resident = self.cache.setdefault(layer, Resident(keys[:, :0], values[:, :0]))
        resident.write(self.batch.keep, keys[:, : self.batch.chain], values[:, : self.batch.chain])
        # Query heads that share a key head stand side by side: [key heads, group, tokens, size].
        grouped = query[0].unflatten(0, (keys.shape[0], -1))
        # Zeros, because what pads the batch belongs to no block.
        output = query.new_zeros((query.shape[2], *grouped.shape[:2], values.shape[2]))
        for block in self.blocks:
            seen = block.seen(window, grouped)
            last = seen.last
            if seen.tail is not None:
                last = resident.write(last, keys[:, seen.tail], values[:, seen.tail])
            part = slice(block.first, block.last)
            # A group's heads become further queries of its key head, which spares copies of the keys.
            folded = grouped[:, :, part].flatten(1, 2)[None]
            attention = attention_by_products if seen.by_products else sdpa
            found = attention(folded, *resident.part(seen.first, last), seen.mask, scale=scale)
            output[part] = found[0].unflatten(1, (grouped.shape[1], -1)).permute(2, 0, 1, 3)
        return output.flatten(1, 2)[None]


class Tree:
    """A model's attention over tree batches: installed while a forest is scored, one batch after another."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache: dict[int, Resident] = {}

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
    def running(self, batch: TreeBatch, store: Store | None = None) -> Iterator[None]:
        """Within it, attention works on this batch; `store` is given the keys and values of its tokens."""
        with running_pass(TreePass(batch, self.cache, make_blocks(batch), store)):
            yield

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
            for batch, scores in session.score_forest(plan_forest(forest, 6)):
                found.update(collector.add(batch, scores))
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
