"""Hold prompts back while what they share with another is being read, for engines that cache only what is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from evalkit.scoring.shared import common_length

LEAST_SHARED = 16
"""Tokens below which waiting costs more than reading them again."""
REMEMBERED = 256
"""Prompts that were read last, in which the beginning of a new one is looked for."""


class Waves:
    """Which prompts may begin. A prompt waits for one that runs if it would find more of itself in the cache then."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[int, ...]] = {}
        self._held: dict[int, tuple[tuple[int, ...], int]] = {}
        """Prompts that wait, each with the key of the one that it waits for."""
        self._read: deque[tuple[int, ...]] = deque(maxlen=REMEMBERED)

    def begin(self, key: int, ids: tuple[int, ...]) -> bool:
        """Whether a prompt may begin; else it is held until `ended` gives its key."""
        known = max((common_length(ids, other) for other in self._read), default=0)
        blocker, most = None, known + LEAST_SHARED - 1
        for other, tokens in self._running.items():
            if (shared := common_length(ids, tokens)) > most:
                blocker, most = other, shared
        if blocker is None:
            self._running[key] = ids
        else:
            self._held[key] = (ids, blocker)
        return blocker is None

    def ended(self, key: int, *, read: bool = True) -> Iterator[int]:
        """Note that a prompt is done, and was `read`, or is not wanted any more; keys of those that may begin now."""
        self._held.pop(key, None)
        ids = self._running.pop(key, None)
        if ids is None:
            return
        if read:
            self._read.append(ids)
        for waiting, (tokens, blocker) in list(self._held.items()):
            if blocker == key:
                del self._held[waiting]
                if self.begin(waiting, tokens):
                    yield waiting

    def forget(self) -> None:
        """The cache was emptied."""
        self._read.clear()
