"""Guesses at the next tokens of a text, taken from the text itself.

The model reads the guesses along with the last token and says which of them it would have chosen, so a text that
repeats itself, its prompt or its examples grows by several tokens a pass. Every token is still the model's choice
(prompt lookup decoding, Saxena 2023, a form of speculative decoding, Leviathan et al. 2022, arXiv:2211.17192).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_MATCH = 4
"""Tokens at the text's end that are compared with it, two at least."""


def continuation(ids: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """What followed the latest of the longest earlier matches of the text's end: `most` tokens, or none.

    Where the match is so late that fewer tokens follow, the text is repeating itself: they are repeated too.
    """
    if most < 1 or len(ids) <= MOST_MATCH:
        return ids[:0]
    ends = np.flatnonzero((ids[1:-1] == ids[-1]) & (ids[:-2] == ids[-2])) + 1
    for back in range(2, MOST_MATCH):
        longer = ends[ends >= back]
        longer = longer[ids[longer - back] == ids[-1 - back]]
        if not len(longer):
            break
        ends = longer
    return np.resize(ids[ends[-1] + 1 :], most) if len(ends) else ids[:0]


class Drafter:
    """Guesses for one growing text, more of them while they come true.

    `ahead` is the most tokens that it guesses now: doubled when all were right, else one more than were right.
    """

    def __init__(self, prompt: Sequence[int], room: int, most: int) -> None:
        self._ids = np.empty(len(prompt) + room, np.int64)
        self._ids[: len(prompt)] = prompt
        self._length, self._most = len(prompt), most
        self.ahead = min(2, most)

    def push(self, tokens: Sequence[int]) -> None:
        """Append tokens that were chosen."""
        self._ids[self._length : self._length + len(tokens)] = tokens
        self._length += len(tokens)

    def guess(self, most: int) -> list[int]:
        """At most so many next tokens, at most `ahead`."""
        return continuation(self._ids[: self._length], min(most, self.ahead)).tolist()  # type: ignore[no-any-return]

    def learn(self, guessed: int, right: int) -> None:
        """How many of the last guesses were asked, and how many the model chose."""
        if guessed:
            self.ahead = min(self._most, 2 * guessed if right == guessed else right + 1)
