"""The passes of continuous generation: a sequence a slot, all sharing the cells of one prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalkit_llamacpp.context import MOST_SEQUENCES, Floats

if TYPE_CHECKING:
    from evalkit_llamacpp.session import LlamaCppSession


class LlamaCppDecoder:
    """Sequence 0 is the prefix; what each slot has behind it is in a sequence of its own."""

    def __init__(self, session: LlamaCppSession) -> None:
        self.session = session
        self.context = session.context()

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Drop all sequences and read the prefix."""
        self.context.clear()
        self.prefix = len(prefix)
        self._free = list(range(1, MOST_SEQUENCES))
        self._sequences: list[int] = []
        self._lengths: list[int] = []
        self._fed: list[int] = []
        self._pass([0], [prefix], [0], [0])

    def admit(self, suffixes: list[tuple[int, ...]]) -> Floats:
        """Read new sequences; logits [sequences, vocabulary] behind each."""
        joining = [self._free.pop() for _ in suffixes]
        for sequence in joining:
            if self.prefix:
                self.context.copy(0, sequence, self.prefix)
        logits = self._pass(joining, suffixes, [self.prefix] * len(suffixes), [1] * len(suffixes))
        self._sequences += joining
        self._lengths += [self.prefix + len(suffix) for suffix in suffixes]
        return logits

    def step(self, fed: list[list[int]]) -> list[Floats]:
        """Read further tokens of every sequence; for each, logits [tokens, vocabulary]."""
        self._fed = [len(tokens) for tokens in fed]
        logits = self._pass(self._sequences, fed, self._lengths, self._fed)
        return np.split(logits, np.cumsum(self._fed)[:-1])

    def keep(self, slot: int, tokens: int) -> None:
        """Keep the first of a slot's new tokens."""
        self._lengths[slot] += tokens
        if tokens < self._fed[slot]:
            self.context.cut(self._sequences[slot], self._lengths[slot])

    def drop(self, slot: int) -> None:
        """Free a slot; the last one moves into its place."""
        self.context.cut(self._sequences[slot])
        self._free.append(self._sequences[slot])
        for side in (self._sequences, self._lengths):
            last = side.pop()
            if slot < len(side):
                side[slot] = last

    def _pass(
        self,
        sequences: list[int],
        parts: list[tuple[int, ...]] | list[list[int]],
        starts: list[int],
        wanted: list[int],
    ) -> Floats:
        """Read parts of sequences from positions `starts` on; logits at the last `wanted` tokens of each part."""
        lengths = np.array([len(part) for part in parts])
        tokens = np.array([token for part in parts for token in part], np.int32)
        offsets = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = (offsets + np.repeat(starts, lengths)).astype(np.int32)
        owners = np.repeat(sequences, lengths).astype(np.int32)
        flags = offsets >= np.repeat(lengths - wanted, lengths)
        self.session.count_computed(len(tokens))
        most, found = self.session.engine.n_batch, []
        for first in range(0, len(tokens), most):
            side = slice(first, first + most)
            ones = np.ones(len(tokens[side]), np.int32)
            # A copy, because the next pass overwrites them.
            found.append(self.context.decode(tokens[side], positions[side], owners[side], ones, flags[side]).copy())
        return np.concatenate(found) if found else np.empty((0, self.context.vocabulary), np.float32)
