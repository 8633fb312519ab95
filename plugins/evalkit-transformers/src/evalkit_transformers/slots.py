"""Keys and values of running sequences: one shared prefix, and a slot of its own for what each has behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evalkit_transformers.attention import attention_with_lse, merge_attention
from evalkit_transformers.tree import Resident


class Slots:
    """Attention of generation steps. The first `active` slots hold running sequences, the rest are free."""

    def __init__(self, chain: Mapping[int, Resident], prefix: int, slots: int, room: int) -> None:
        self.chain, self.prefix = chain, prefix
        self.slots, self.room = slots, room
        self.active = 0
        self.lengths: list[int] = [0] * slots
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._masks: dict[Any, tuple[Tensor, Tensor | None]] = {}
        # By window and device: layers may differ in both.

    def admit(self, computed: dict[int, tuple[Tensor, Tensor]], units: tuple[tuple[int, int], ...]) -> None:
        """Put newly computed sequences, each a range of tokens of one packed row, into the next free slots."""
        for layer, (key, value) in computed.items():
            if layer not in self._keys:
                self._keys[layer] = self._buffer(key)
                self._values[layer] = self._buffer(value)
            for slot, (first, last) in enumerate(units, start=self.active):
                self._keys[layer][slot, :, : last - first] = key[0, :, first:last]
                self._values[layer][slot, :, : last - first] = value[0, :, first:last]
        for slot, (first, last) in enumerate(units, start=self.active):
            self.lengths[slot] = last - first
        self.active += len(units)

    def drop(self, slot: int) -> None:
        """Free a slot; the last active sequence moves into it."""
        last = self.active - 1
        if slot != last:
            for buffers in (self._keys, self._values):
                for buffer in buffers.values():
                    buffer[slot, :, : self.lengths[last]] = buffer[last, :, : self.lengths[last]]
            self.lengths[slot] = self.lengths[last]
        self.active = last

    def begin_step(self) -> Tensor:
        """Make room for one more token in every active slot; the tokens' positions, [active, 1]."""
        self._masks = {}
        self._place = torch.tensor(self.lengths[: self.active])
        for slot in range(self.active):
            self.lengths[slot] += 1
        return (self._place + self.prefix)[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of one new token a sequence. Shapes [active, heads, 1, size]; result [active, 1, heads, size]."""
        count, heads, _, size = query.shape
        kv_heads = key.shape[1]
        every, place = torch.arange(count, device=key.device), self._place.to(key.device)
        self._keys[layer][every, :, place] = key[:, :, 0]
        self._values[layer][every, :, place] = value[:, :, 0]
        longest = max(self.lengths[:count])
        own_mask, chain_mask = self._mask(window, count, longest, query)
        grouped = query.reshape(count, kv_heads, heads // kv_heads, size)
        keys, values = self._keys[layer][:count, :, :longest], self._values[layer][:count, :, :longest]
        output, lse = attention_with_lse(grouped, keys, values, own_mask, scale)
        if self.prefix:
            # All sequences read the one prefix: they become queries of a single attention.
            folded = grouped.transpose(0, 1).reshape(1, kv_heads, -1, size)
            repeated = None if chain_mask is None else chain_mask.repeat_interleave(heads // kv_heads, 0)[None, None]
            chain = self.chain[layer].part(0, self.prefix)
            shared, shared_lse = attention_with_lse(folded, *chain, repeated, scale)
            shared = shared.reshape(kv_heads, count, -1, shared.shape[-1]).transpose(0, 1)
            shared_lse = shared_lse.reshape(kv_heads, count, -1).transpose(0, 1)
            output = merge_attention(output, lse, shared, shared_lse)
        return output.reshape(count, 1, heads, -1)

    def _buffer(self, like: Tensor) -> Tensor:
        return like.new_zeros((self.slots, like.shape[1], self.room, like.shape[3]))

    def _mask(self, window: int | None, count: int, longest: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Additive masks: [active, 1, 1, longest] over own tokens, [active, prefix] over the prefix or none."""
        name = (window, query.device)
        if name not in self._masks:
            place = self._place[:, None]
            at = torch.arange(longest)[None]
            own = additive((at <= place) & in_window(place - at, window), query)[:, None, None]
            distance = place + self.prefix - torch.arange(self.prefix)[None]
            shared = None if window is None else additive(in_window(distance, window), query)
            self._masks[name] = own, shared
        return self._masks[name]


def in_window(distance: Any, window: int | None) -> Any:
    """Which distances, in tokens, a sliding window covers."""
    return distance >= 0 if window is None else distance < window


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as numbers to add to scores, in the dtype and on the device of `like`."""
    mask = torch.zeros(allowed.shape, dtype=like.dtype)
    return mask.masked_fill_(~allowed, -torch.inf).to(like.device)
