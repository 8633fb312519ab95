"""Generation: what running sequences have in common is in the cells, what each has behind it in a slot of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evalkit_gptqmodel.attention import additive, running_pass
from evalkit_gptqmodel.memory import computing

if TYPE_CHECKING:
    from evalkit_gptqmodel.session import GPTQModelSession

ROOM_STEP = 32
PIECE = 512
"""Queries of a new sequence that attend at a time."""


class SlotDecoder:
    """Sequences behind one prefix, in slots 0, 1, ... without gaps; the passes that `evalkit.decoding` asks for."""

    def __init__(self, session: GPTQModelSession) -> None:
        self.session = session
        self.prefix = 0
        self.lengths: list[int] = []

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Drop all sequences and read the prefix, in passes that fit the budget."""
        session, most = self.session, self.session.batch_tokens
        session.keep(np.arange(0))
        for first in range(0, len(prefix), most):
            tokens = np.array(prefix[first : first + most], np.int64)
            at = np.arange(first, first + len(tokens))
            session.count_computed(len(tokens))
            session.run(tokens, at, np.arange(first + len(tokens)) <= at[:, None], np.zeros(0, np.int64))
        self.prefix = len(prefix)
        self.lengths = []
        self.slots = _Slots()

    def admit(self, suffixes: list[tuple[int, ...]]) -> NDArray[np.float32]:
        """Read new sequences in one pass; logits [sequences, vocabulary] behind each."""
        lengths = [len(suffix) for suffix in suffixes]
        with self._computing(_Joining(self.slots, self._prefix, lengths, len(self.lengths))):
            logits = self._read(suffixes, [self.prefix] * len(suffixes), np.cumsum(lengths) - 1)
        self.lengths += lengths
        return logits

    def step(self, fed: list[list[int]]) -> list[NDArray[np.float32]]:
        """Read further tokens of every sequence in one pass; for each, logits [tokens, vocabulary]."""
        counts = [len(tokens) for tokens in fed]
        with self._computing(_Step(self.slots, self._prefix, self.lengths, counts)):
            starts = [self.prefix + length for length in self.lengths]
            logits = self._read(fed, starts, np.arange(sum(counts)))
        return np.split(logits, np.cumsum(counts)[:-1])

    def keep(self, slot: int, tokens: int) -> None:
        """Keep the first of a slot's new tokens."""
        self.lengths[slot] += tokens

    def drop(self, slot: int) -> None:
        """Free a slot; the last one moves into its place."""
        last = len(self.lengths) - 1
        with torch.inference_mode():
            self.slots.move(last, slot, self.lengths[last])
        self.lengths[slot] = self.lengths[last]
        self.lengths.pop()

    def _read(self, parts: Any, starts: list[int], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        tokens = np.array([token for part in parts for token in part], np.int64)
        self.session.count_computed(len(tokens))
        positions = np.concatenate([np.arange(start, start + len(p)) for start, p in zip(starts, parts, strict=True)])
        logits: NDArray[np.float32] = self.session.logits(tokens, positions, rows).float().cpu().numpy()
        return logits

    def _prefix(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix; none of the kind of `key` and `value` where there is no prefix."""
        return self.session.cells.first(layer, self.prefix) if self.prefix else (key[:, :0], value[:, :0])

    @contextmanager
    def _computing(self, attention: Any) -> Iterator[None]:
        with computing(self.session.device), running_pass(attention):
            yield


class _Slots:
    """Keys and values of sequences behind the prefix, layer by layer, [key heads, slots, room, size].

    On a CPU in float32, in which they are multiplied: to convert them in every step would take longer.
    """

    def __init__(self) -> None:
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def room(self, layer: int, key: Tensor, value: Tensor, slots: int, tokens: int) -> tuple[Tensor, Tensor]:
        """The buffers of a layer, with room for so many sequences of so many tokens."""
        sides = self.buffers.get(layer) or (_buffer(key, 0, 0), _buffer(value, 0, 0))
        have = sides[0].shape[1:3]
        if slots > have[0] or tokens > have[1]:
            want = max(slots, have[0]), tokens + ROOM_STEP if tokens > have[1] else have[1]
            larger = _buffer(key, *want), _buffer(value, *want)
            for new, old in zip(larger, sides, strict=True):
                new[:, : have[0], : have[1]] = old
            sides = self.buffers[layer] = larger
        return sides

    def move(self, source: int, target: int, tokens: int) -> None:
        """Put one slot's tokens into another."""
        for side in (side for sides in self.buffers.values() for side in sides if source != target):
            side[:, target, :tokens] = side[:, source, :tokens]


def _buffer(like: Tensor, slots: int, room: int) -> Tensor:
    # Zeros, because what is masked still enters sums, with weight 0: it must not be NaN.
    dtype = torch.float32 if like.device.type == "cpu" else like.dtype
    return torch.zeros((like.shape[1], slots, room, like.shape[3]), dtype=dtype, device=like.device)


class _Joining:
    """Attention of new sequences, one after another in a packed row: each sees the prefix and itself."""

    def __init__(self, slots: _Slots, prefix: Any, lengths: list[int], first_slot: int) -> None:
        self.slots, self.prefix, self.lengths, self.first_slot = slots, prefix, lengths, first_slot

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of all tokens, whose keys and values go into the next slots."""
        slots = self.first_slot + len(self.lengths)
        keys, values = self.slots.room(layer, key, value, slots, max(self.lengths))
        prefix_keys, prefix_values = self.prefix(layer, key[0], value[0])
        output, first = [], 0
        for slot, length in enumerate(self.lengths, start=self.first_slot):
            part = slice(first, first + length)
            own_keys, own_values = key[0, :, part], value[0, :, part]
            keys[:, slot, :length], values[:, slot, :length] = own_keys, own_values
            both = torch.cat([prefix_keys, own_keys], 1), torch.cat([prefix_values, own_values], 1)
            output.append(_causal(query[0, :, part], *both, scale, window))
            first += length
        return torch.cat(output)[None]


def _causal(query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None) -> Tensor:
    """Attention of the last tokens of one text, [heads, tokens, size], a piece at a time; [tokens, heads, size]."""
    before, group = keys.shape[1] - query.shape[1], query.shape[0] // keys.shape[0]
    output = []
    for first in range(0, query.shape[1], PIECE):
        piece = query[:, first : first + PIECE]
        last = before + first + piece.shape[1]
        distance = torch.arange(before + first, last)[:, None] - torch.arange(last)
        mask = additive(_sees(distance, window), query).repeat(group, 1)
        folded = piece.unflatten(0, (-1, group)).flatten(1, 2)[None]
        seen = keys[None, :, :last], values[None, :, :last]
        found = scaled_dot_product_attention(folded, *seen, attn_mask=mask, scale=scale)
        output.append(found[0].unflatten(1, (group, -1)).permute(2, 0, 1, 3).flatten(1, 2))
    return torch.cat(output)


class _Step:
    """Attention of a few more tokens of every sequence: all at once, as a rectangle [sequences, most new tokens]."""

    def __init__(self, slots: _Slots, prefix: Any, lengths: list[int], counts: list[int]) -> None:
        self.slots, self.prefix = slots, prefix
        new, starts = torch.tensor(counts), torch.tensor(lengths)
        firsts = new.cumsum(0) - new
        self.longest, self.most = int((starts + new).max()), max(counts)
        self.slot = torch.arange(len(counts)).repeat_interleave(new)
        self.offset = torch.arange(len(self.slot)) - firsts[self.slot]
        self.place = starts[self.slot] + self.offset
        # Sequences with fewer new tokens repeat their last one.
        self.padded = firsts[:, None] + torch.arange(self.most).minimum(new[:, None] - 1)
        self._masks: dict[Any, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of the new tokens, whose keys and values go into their slots."""
        device, sequences = key.device, len(self.padded)
        keys, values = self.slots.room(layer, key, value, sequences, self.longest)
        keys[:, self.slot, self.place] = key[0].to(keys.dtype)
        values[:, self.slot, self.place] = value[0].to(values.dtype)
        keys, values = (side[:, :sequences, : self.longest].float() for side in (keys, values))
        shared_keys, shared_values = (side.float() for side in self.prefix(layer, key[0], value[0]))
        group = query.shape[1] // key.shape[1]
        # [key heads, sequences, group * most, size]: a group's heads become further queries of its key head.
        rows = query[0].float().unflatten(0, (-1, group))[:, :, self.padded.to(device)].transpose(1, 2).flatten(2, 3)
        shared = torch.matmul(rows.flatten(1, 2), shared_keys.transpose(-1, -2)).unflatten(1, (sequences, -1))
        scores = torch.cat([shared, torch.matmul(rows, keys.transpose(-1, -2))], -1) * scale
        weights = (scores + self._mask(window, shared_keys.shape[1], group, device)).softmax(-1)
        of_prefix, of_own = weights.split([shared_keys.shape[1], self.longest], -1)
        output = torch.matmul(of_own, values)
        output += torch.matmul(of_prefix.flatten(1, 2), shared_values).unflatten(1, (sequences, -1))
        # Back to one row of tokens: [tokens, key heads, group, size].
        output = output.unflatten(2, (group, self.most)).permute(1, 3, 0, 2, 4)[self.slot, self.offset]
        return output.flatten(1, 2)[None].to(query.dtype)

    def _mask(self, window: int | None, prefix: int, group: int, device: torch.device) -> Tensor:
        """What the queries see of the prefix and of their own tokens, to be added; made once a pass."""
        name = (window, group, device)
        if name not in self._masks:
            own = self.place[self.padded][..., None] - torch.arange(self.longest)
            shared = self.place[self.padded][..., None] + prefix - torch.arange(prefix)
            seen = _sees(torch.cat([shared, own], -1), window)
            mask = additive(seen, torch.empty(0, device=device))
            self._masks[name] = mask.repeat(1, group, 1)
        return self._masks[name]


def _sees(distance: Tensor, window: int | None) -> Tensor:
    """Which tokens at these distances behind a token it sees."""
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)
