"""A server's feed on its way to the child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from evalkit.encoding import to_plain
from evalkit.engine import Feed
from evalkit.requests import GenerationOutput, GenerationPart, GenerationRequest


class LiveFeed:
    """A feed, and what of it is not answered."""

    def __init__(self, feed: Feed, wants_parts: Callable[[Any], bool]) -> None:
        self.feed, self.wants_parts = feed, wants_parts
        self.left: dict[int, tuple[Any, GenerationRequest]] = {}
        self.begun: set[int] = set()
        """Numbers of which parts are out."""
        self.ended = False
        self._numbers: dict[Any, int] = {}
        self._count = count()

    def arrived(self) -> list[list[Any]]:
        """Items for the child: all that the feed has now."""
        items: list[list[Any]] = []
        for arrival in self.feed:
            if arrival is None:
                return items
            key, request = arrival
            if request is not None:
                number = self._numbers[key] = next(self._count)
                self.left[number] = (key, request)
                items.append(self._item(number))
            elif key in self._numbers:
                items.append([self._numbers[key], None])
        self.ended = True
        return items

    def unanswered(self) -> list[list[Any]]:
        """Items for a new child: all that is not answered."""
        return [self._item(number) for number in self.left]

    def _item(self, number: int) -> list[Any]:
        key, request = self.left[number]
        return [number, to_plain(request), bool(self.wants_parts(key))]

    def answered(
        self, number: int, answer: GenerationPart | GenerationOutput
    ) -> Iterator[tuple[Any, GenerationPart | GenerationOutput]]:
        """An answer under its key."""
        key, _ = self.left[number]
        if isinstance(answer, GenerationPart):
            self.begun.add(number)
        else:
            del self.left[number]
            self._numbers.pop(key, None)
            self.begun.discard(number)
        yield key, answer
