"""A toy session over cells, whose logits are made of what a token sees: what shares and moves cells is tested on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.cells import CellSession
from evalkit.testing.toy import Letters

SIZE = Letters.vocab_size


def scores_behind(text: Sequence[int]) -> NDArray[np.float32]:
    """What the toy model makes of a text; its end is rare."""
    logits = np.random.default_rng(list(text[-6:])).normal(size=SIZE).astype(np.float32)
    logits[0] -= 1.0
    return logits


class ToyCells(CellSession):
    """Keeps tokens and positions as cells, and answers with what each token sees; `most_cells` at a time."""

    def __init__(self, batch_tokens: int = 64, draft_tokens: int = 0, *, most_cells: int | None = None) -> None:
        super().__init__(Letters(), max_length=64, batch_tokens=batch_tokens)  # type: ignore[arg-type]
        self.draft_tokens, self.drafted_pass = draft_tokens, 12
        self.most_cells = most_cells
        self.cells: list[tuple[int, int]] = []
        self.most = 0

    def run(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits of what each token sees, which must be a text."""
        self.cells += zip(tokens.tolist(), positions.tolist(), strict=True)
        self.most = max(self.most, len(self.cells))
        assert self.most_cells is None or len(self.cells) <= self.most_cells
        assert mask.shape == (len(tokens), len(self.cells))
        found = []
        for row, seen in enumerate(mask):
            visible = sorted((self.cells[cell][1], self.cells[cell][0]) for cell in np.flatnonzero(seen))
            # A text's tokens are at 0, 1, 2, ... up to this one.
            assert [position for position, _ in visible] == list(range(positions[row] + 1))
            if row in rows:
                found.append(scores_behind([token for _, token in visible]))
        return np.array(found, np.float32).reshape(len(rows), SIZE)

    def keep(self, kept: NDArray[np.int64]) -> None:
        """Forget the other cells."""
        assert (np.diff(kept) > 0).all()
        self.cells = [self.cells[cell] for cell in kept]

    def gc(self) -> None:
        """Forget all cells."""
        self.forget_prefix()
        self.cells = []

    def close(self) -> None:
        """The same."""
        self.gc()
