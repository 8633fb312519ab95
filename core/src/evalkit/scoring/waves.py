"""Hold prompts back while what they share with another is being read, for engines that cache only what is read."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from evalkit.scoring.shared import common_length

LEAST_SHARED = 16
"""Tokens below which waiting costs more than reading them again."""
REMEMBERED = 256
"""Prompts that were read last, in which the beginning of a new one is looked for."""
Ids = tuple[int, ...]


class _Sorted:
    """Prompts in the order of their tokens, where the one that shares most with another stands beside its place."""

    def __init__(self) -> None:
        self._items: list[Ids] = []

    def add(self, ids: Ids) -> None:
        insort(self._items, ids)

    def remove(self, ids: Ids) -> None:
        del self._items[bisect_left(self._items, ids)]

    def nearest(self, ids: Ids) -> tuple[int, Ids]:
        """How many tokens are shared at most, and with which."""
        place = bisect_left(self._items, ids)
        beside = self._items[max(0, place - 1) : place + 1]
        return max(((common_length(ids, other), other) for other in beside), default=(0, ()))


class Waves:
    """Which prompts may begin. A prompt waits for one that runs if it would find more of itself in the cache then."""

    def __init__(self) -> None:
        self._running: dict[int, Ids] = {}
        self._in_work = _Sorted()
        self._held: dict[int, tuple[Ids, Ids]] = {}
        """Prompts that wait, each with the one that it waits for."""
        self._read: deque[Ids] = deque()
        self._known = _Sorted()
        """What was read, in the order of its tokens."""

    def begin(self, key: int, ids: Ids) -> bool:
        """Whether a prompt may begin; else it is held until `ended` gives its key."""
        known, _ = self._known.nearest(ids)
        shared, blocker = self._in_work.nearest(ids)
        if shared - known >= LEAST_SHARED:
            self._held[key] = (ids, blocker)
            return False
        self._running[key] = ids
        self._in_work.add(ids)
        return True

    def ended(self, key: int, *, read: bool = True) -> Iterator[int]:
        """Note that a prompt is done, and was `read`, or is not wanted any more; keys of those that may begin now."""
        self._held.pop(key, None)
        ids = self._running.pop(key, None)
        if ids is None:
            return
        self._in_work.remove(ids)
        if read:
            self._remember(ids)
        for waiting, (tokens, blocker) in list(self._held.items()):
            if blocker == ids:
                del self._held[waiting]
                if self.begin(waiting, tokens):
                    yield waiting

    def _remember(self, ids: Ids) -> None:
        if len(self._read) == REMEMBERED:
            self._known.remove(self._read.popleft())
        self._read.append(ids)
        self._known.add(ids)

    def forget(self) -> None:
        """The cache was emptied."""
        self._read.clear()
        self._known = _Sorted()
