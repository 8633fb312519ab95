"""The passes of continuous generation: a sequence a slot, all sharing the cells of one prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalkit.decoding.sequences import Bools, Floats, Ints, SequenceDecoder

if TYPE_CHECKING:
    from evalkit_llamacpp.session import LlamaCppSession


class LlamaCppDecoder(SequenceDecoder):
    """Sequence 0 is the prefix; what each slot has behind it is in a sequence of its own."""

    def __init__(self, session: LlamaCppSession) -> None:
        self.session = session
        self.context = session.context()

    def reset(self) -> int:
        """Forget all sequences."""
        self.context.clear()
        self._free = list(range(1, self.context.sequences))
        return 0

    def join(self) -> int:
        """A free sequence that shares the prefix's cells."""
        sequence = self._free.pop()
        if self.prefix:
            self.context.copy(0, sequence, self.prefix)
        return sequence

    def forget(self, slot: int, first: int) -> None:
        """Cut a sequence behind what is kept of it."""
        self.context.cut(self.sequences[slot], self.lengths[slot])

    def leave(self, sequence: int) -> None:
        """Cut a sequence whole."""
        self.context.cut(sequence)
        self._free.append(sequence)

    def read(self, tokens: Ints, positions: Ints, owners: Ints, wanted: Bools) -> Floats:
        """Read tokens in passes of n_batch."""
        self.session.count_computed(len(tokens))
        most, found = self.session.engine.n_batch, []
        for first in range(0, len(tokens), most):
            side = slice(first, first + most)
            ones = np.ones(len(tokens[side]), np.int32)
            # A copy, because the next pass overwrites them.
            found.append(self.context.decode(tokens[side], positions[side], owners[side], ones, wanted[side]).copy())
        return np.concatenate(found)
