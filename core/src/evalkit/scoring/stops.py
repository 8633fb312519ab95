"""Cut generated text at the first stop string, and notice a stop while tokens arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """The text before the first occurrence of each stop string."""
    for stop in stops:
        if stop:
            text = text.split(stop)[0]
    return text


class StopWatch:
    """Watches one growing sequence of token ids for stop strings.

    Only the tail is decoded again at each token, so the cost does not grow with the text. The tail begins
    at a token whose text was complete, because a character may span several tokens.
    """

    def __init__(self, stops: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self.decode = decode
        self.ids: list[int] = []
        self._window = max((len(stop) for stop in self.stops), default=0)
        self._start = 0

    def push(self, token_id: int) -> bool:
        """Add a token; whether a stop string is now complete."""
        self.ids.append(token_id)
        if not self.stops:
            return False
        tail = self.decode(self.ids[self._start :])
        if any(stop in tail for stop in self.stops):
            return True
        self._advance(tail)
        return False

    def _advance(self, tail: str) -> None:
        """Forget leading tokens once a stop string that is still incomplete cannot begin in them."""
        pending = len(self.ids) - self._start
        if pending <= 2 * self._window + 32:
            return
        middle = self._start + pending // 2
        kept = self.decode(self.ids[middle:])
        # A cut inside a character would show a replacement character: not a suffix, so wait for the next token.
        if len(kept) > self._window and tail.endswith(kept):
            self._start = middle
