"""Token ids as the texts that OpenAI's answers hold: a piece a token, the offset of each, and keys that differ."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

from evalkit.scoring import Tokenizer

CUT = "\ufffd"
MOST_PARTS = 4
"""Bytes, and so tokens, that one character may be spread over."""


class Texts:
    """A tokenizer for many threads at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        # Tokenizers of libraries promise nothing to threads.
        self._lock = threading.Lock()
        self.spell = lru_cache(maxsize=200_000)(self._spell)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[tuple[int, ...]]:
        """Token ids of each text."""
        with self._lock:
            return [tuple(ids) for ids in self.tokenizer.encode_batch(texts, special=special)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids."""
        with self._lock:
            return self.tokenizer.decode(ids, skip_special=skip_special)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; together they are the text.

        Of a character that is spread over several tokens, the last of them adds all.
        """
        spelled = [self.spell(token) for token in ids]
        # Nearly always tokens are spelled in a text as they are alone.
        return spelled if "".join(spelled) == self.decode(ids) else self._pieces_in_context(ids)

    def _pieces_in_context(self, ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        start = done = 0
        for end in range(1, len(ids) + 1):
            before, text = self.decode(ids[start:done]), self.decode(ids[start:end])
            if text.endswith(CUT) and end < len(ids) and end - done < MOST_PARTS:
                pieces.append("")
                continue
            pieces.append(text[len(before) :])
            start, done = done, end
        return pieces

    def _spell(self, token: int) -> str:
        return self.decode([token])


def offsets(pieces: Iterable[str], start: int = 0) -> list[int]:
    """Where each piece begins in a text, `start` characters of which stand before the first."""
    return list(accumulate(map(len, pieces), initial=start))[:-1]


def distinct_keys(chosen: str, others: Sequence[tuple[int, str]]) -> list[str]:
    """A key for each of the other tokens, none equal to `chosen` or to another: its text, else `token_id:N`.

    Two tokens may have the same text (halves of characters have none), but an answer's object has one place for it.
    """
    taken = {chosen}
    keys = []
    for token, text in others:
        key = text
        while key in taken:
            key = f"token_id:{token}" if key == text else f"{key}'"
        taken.add(key)
        keys.append(key)
    return keys
