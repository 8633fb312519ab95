"""Keys and values of running sequences: one shared prefix, and a slot of its own for what each has behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalkit_transformers.attention import attention_with_lse, merge_attention
from evalkit_transformers.tree import Resident, Store

ROOM_STEP = 32


class Slots:
    """Attention of generation steps. The first `active` slots hold running sequences, the rest are free."""

    def __init__(self, chain: Mapping[int, Resident], prefix: int) -> None:
        self.chain, self.prefix = chain, prefix
        self.active = self.slots = self.room = 0
        self.lengths: list[int] = []
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._masks: dict[Any, tuple[Tensor, Tensor | None, Tensor | None]] = {}
        """By window and device: layers may differ in both."""

    @contextmanager
    def admitting(self, units: tuple[tuple[int, int], ...]) -> Iterator[Store]:
        """The next free slots for new sequences, each a range of tokens of one packed row that is computed within."""
        self._make_room(self.active + len(units), max(last - first for first, last in units))

        def store(layer: int, key: Tensor, value: Tensor) -> None:
            if layer not in self._keys:
                self._keys[layer] = self._buffer(key)
                self._values[layer] = self._buffer(value)
            for slot, (first, last) in enumerate(units, start=self.active):
                self._keys[layer][slot, :, : last - first] = key[0, :, first:last]
                self._values[layer][slot, :, : last - first] = value[0, :, first:last]

        yield store
        self.lengths[self.active :] = [last - first for first, last in units]
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

    def begin_step(self, counts: Sequence[int]) -> Tensor:
        """Prepare for `counts` new tokens in the active slots; the tokens' positions, [tokens], slot after slot."""
        self._masks = {}
        new, starts = torch.tensor(counts), torch.tensor(self.lengths[: self.active])
        self._longest = int((starts + new).max())
        self._make_room(self.active, self._longest)
        self._slot = torch.arange(self.active).repeat_interleave(new)
        self._offset = torch.arange(len(self._slot)) - (new.cumsum(0) - new)[self._slot]
        self._place = starts[self._slot] + self._offset
        # As a rectangle: shorter slots repeat their last token.
        columns = torch.arange(max(counts)).minimum(new[:, None] - 1)
        self._padded = columns + (new.cumsum(0) - new)[:, None]
        self._moved: dict[torch.device, tuple[Tensor, ...]] = {}
        return self._place + self.prefix

    def _layout(self, device: torch.device) -> tuple[Tensor, ...]:
        """Slot, place and offset of each new token, and the rectangle of them: copied once a step, not once a layer."""
        if device not in self._moved:
            self._moved[device] = tuple(x.to(device) for x in (self._slot, self._place, self._offset, self._padded))
        return self._moved[device]

    def grow(self, slot: int, tokens: int) -> None:
        """Keep the first `tokens` of a slot's new ones."""
        self.lengths[slot] += tokens

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of the new tokens. Shapes [1, heads, tokens, size]; result [1, tokens, heads, size].

        What pads the pass, behind the slots' tokens, attends to nothing.
        """
        more = query.shape[2] - len(self._place)
        query, key, value = (side[:, :, : len(self._place)] for side in (query, key, value))
        slot, place, *_ = self._layout(key.device)
        self._keys[layer][slot, :, place] = key[0].transpose(0, 1)
        self._values[layer][slot, :, place] = value[0].transpose(0, 1)
        # Query heads that share a key head stand side by side: [key heads, group, tokens, size].
        grouped = query[0].unflatten(0, (key.shape[1], -1))
        own_mask, chain_mask, unseen = self._mask(window, grouped)
        output, lse = self._own(layer, grouped, own_mask, scale)
        if self.prefix:
            # All tokens read the one prefix: they and a group's heads become queries of a single attention.
            folded = grouped.flatten(1, 2)[None]
            shared, shared_lse = attention_with_lse(folded, *self.chain[layer].part(0, self.prefix), chain_mask, scale)
            if unseen is not None:
                shared_lse = shared_lse.masked_fill(unseen, -torch.inf)
            shape = grouped.shape[:3]
            output = merge_attention(output, lse, shared[0].unflatten(1, shape[1:]), shared_lse[0].view(shape))
        return pad(output.permute(2, 0, 1, 3).flatten(1, 2)[None], (0, 0, 0, 0, 0, more))

    def _own(self, layer: int, grouped: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Attention over the slots' own tokens, a row a slot: output and log-sum-exp, laid out as `grouped` is."""
        part = (slice(self.active), slice(None), slice(self._longest))
        slot, _, offset, padded = self._layout(grouped.device)
        # [active, key heads, group * most new tokens, size]
        rows = grouped[:, :, padded].permute(2, 0, 1, 3, 4).flatten(2, 3)
        output, lse = attention_with_lse(rows, self._keys[layer][part], self._values[layer][part], mask, scale)
        output, lse = (side.unflatten(2, (-1, padded.shape[1])) for side in (output, lse))
        return output[slot, :, :, offset].permute(1, 2, 0, 3), lse[slot, :, :, offset].permute(1, 2, 0)

    def _make_room(self, slots: int, tokens: int) -> None:
        """Have room for so many sequences of so many tokens: in steps, as most sequences end before their limit."""
        if slots <= self.slots and tokens <= self.room:
            return
        self.slots, self.room = slots, tokens + ROOM_STEP if tokens > self.room else self.room
        for buffers in (self._keys, self._values):
            for layer, full in buffers.items():
                buffers[layer] = self._buffer(full)
                buffers[layer][: self.active, :, : full.shape[2]] = full[: self.active]

    def _buffer(self, like: Tensor) -> Tensor:
        # Zeros, because what is masked still enters sums, with weight 0: it must not be NaN.
        return like.new_zeros((self.slots, like.shape[1], self.room, like.shape[3]))

    def _mask(self, window: int | None, grouped: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a group's queries see: additive masks over own tokens [active, 1, queries, longest] and over the prefix.

        The third says which queries see nothing of the prefix. Without a window, all see all of it.
        """
        name = (window, grouped.device)
        if name not in self._masks:
            group = grouped.shape[1]
            place = self._place[self._padded][:, None, :, None]
            at = torch.arange(self._longest)
            own = additive((at <= place) & in_window(place - at, window), grouped).repeat(1, 1, group, 1)
            shared = unseen = None
            if window is not None:
                distance = (self._place + self.prefix)[:, None] - torch.arange(self.prefix)
                seen = in_window(distance, window).repeat(group, 1)
                shared, unseen = additive(seen, grouped)[None, None], ~seen.any(-1).to(grouped.device)
            self._masks[name] = own, shared, unseen
        return self._masks[name]


def in_window(distance: Any, window: int | None) -> Any:
    """Which distances, in tokens, a sliding window covers."""
    return distance >= 0 if window is None else distance < window


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as numbers to add to scores, in the dtype and on the device of `like`."""
    mask = torch.zeros(allowed.shape, dtype=like.dtype)
    return mask.masked_fill_(~allowed, -torch.inf).to(like.device)
