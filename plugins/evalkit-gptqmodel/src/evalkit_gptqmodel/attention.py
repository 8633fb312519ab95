"""Attention over cells: the keys and values of all tokens that were read, and a mask that says who sees what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

IMPLEMENTATION = "evalkit_cells"
ROOM_STEP = 256


class Attention(Protocol):
    """What a pass of the model needs for its attention."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """From [1, heads, tokens, size] to [1, tokens, heads, size]."""
        ...


class NotPossibleError(RuntimeError):
    """The model's attention has parts that are not known here."""


class Cells:
    """The cells of all layers, keys and values both [key heads, room, size], of which the first `count` are in use."""

    def __init__(self) -> None:
        self.positions = np.zeros(0, np.int64)
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self._mask: NDArray[np.bool_] = np.zeros((0, 0), bool)
        self._positions = self.positions
        self._masks: dict[Any, Tensor] = {}

    @contextmanager
    def reading(self, mask: NDArray[np.bool_], positions: NDArray[np.int64]) -> Iterator[None]:
        """Within it, a pass reads tokens that see what `mask` [tokens, cells + tokens] says, and adds their cells."""
        self._mask, self._positions, self._masks = mask, positions, {}
        with running_pass(self):
            yield
        self.positions = np.concatenate([self.positions, positions])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of the tokens that are read."""
        keys, values = self._append(layer, key[0], value[0])
        # A group's heads become further queries of its key head, which spares copies of the keys.
        group = query.shape[1] // key.shape[1]
        folded = query[0].unflatten(0, (-1, group)).flatten(1, 2)[None]
        mask = self._additive(window, group, query)
        output = scaled_dot_product_attention(folded, keys[None], values[None], attn_mask=mask, scale=scale)
        return output[0].unflatten(1, (group, -1)).permute(2, 0, 1, 3).flatten(1, 2)[None]

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, these tokens' behind the others."""
        first = len(self.positions)
        last = first + key.shape[1]
        sides = self._buffers.get(layer) or (key[:, :0], value[:, :0])
        if last > sides[0].shape[1]:
            keys, values = (with_room(side, first, last + last // 4 + ROOM_STEP) for side in sides)
            sides = self._buffers[layer] = (keys, values)
        for side, new in zip(sides, (key, value), strict=True):
            side[:, first:last] = new
        return sides[0][:, :last], sides[1][:, :last]

    def first(self, layer: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer's first cells, [key heads, count, size]."""
        keys, values = self._buffers[layer]
        return keys[:, :count], values[:, :count]

    def _additive(self, window: int | None, group: int, like: Tensor) -> Tensor:
        """The mask as numbers to add, for a group's queries: [group * tokens, cells + tokens]. Made once a pass."""
        name = (window, group, like.device)
        if name not in self._masks:
            seen = self._mask
            if window is not None:
                at = np.concatenate([self.positions, self._positions])
                seen = seen & (self._positions[:, None] - at < window)
            self._masks[name] = additive(torch.from_numpy(seen), like).repeat(group, 1)
        return self._masks[name]

    def keep(self, cells: NDArray[np.int64]) -> None:
        """Keep these cells, in ascending order."""
        if len(cells) and cells[-1] + 1 != len(cells):
            for layer, sides in self._buffers.items():
                index = torch.from_numpy(cells).to(sides[0].device)
                self._buffers[layer] = (sides[0].index_select(1, index), sides[1].index_select(1, index))
        self.positions = self.positions[cells]

    def clear(self) -> None:
        """Give the memory back."""
        self.positions = self.positions[:0]
        self._buffers, self._masks = {}, {}


def with_room(side: Tensor, kept: int, room: int) -> Tensor:
    """A larger buffer [heads, room, size] that begins with the first `kept` tokens of `side`."""
    larger = side.new_zeros((side.shape[0], room, side.shape[2]))
    larger[:, :kept] = side[:, :kept]
    return larger


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as numbers to add to scores, in the dtype and on the device of `like`."""
    mask = torch.zeros(allowed.shape, dtype=like.dtype)
    return mask.masked_fill_(~allowed, -torch.inf).to(like.device)


def attention_is_usual(config: Any) -> bool:
    """Whether all layers attend fully or in a sliding window, with rotary angles that no text's length changes."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    rope = getattr(text, "rope_parameters", None) or {}
    return kinds <= {"full_attention", "sliding_attention"} and rope.get("rope_type") not in ("longrope", "dynamic")


_running: list[Attention] = []
"""The pass at work. Models offer no other way to hand something to their attention function."""


@contextmanager
def running_pass(attention: Attention) -> Iterator[None]:
    """Within it, `attention` does the attention of models that have "evalkit_cells" installed."""
    _running.append(attention)
    try:
        yield
    finally:
        _running.pop()


def cell_attention(
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
        raise NotPossibleError(type(module).__name__)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return _running[-1].attend(module.layer_idx, query, key, value, scale, sliding_window), None


AttentionInterface.register(IMPLEMENTATION, cell_attention)
