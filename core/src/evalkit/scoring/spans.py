"""A span: token ids of which the tail is scored. Every scoring request becomes one or more spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """Score `ids[start:]`, each token given all before it; the model is fed `ids[:-1]`.

    `source` is what an encoder-decoder model reads in its encoder; `ids` are then the decoder's. `tops` most
    likely tokens are wanted beside each scored one.
    """

    ids: tuple[int, ...]
    start: int
    source: tuple[int, ...] | None = None
    tops: int = 0

    @property
    def fed(self) -> tuple[int, ...]:
        """The tokens that go through the (decoder) model."""
        return self.ids[:-1]

    @property
    def targets(self) -> tuple[int, ...]:
        """The scored tokens."""
        return self.ids[self.start :]

    @property
    def width(self) -> int:
        """Tokens that one pass of this span costs, the encoder's included."""
        return len(self.ids) - 1 + len(self.source or ())


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """Log-probability of each scored token of a span; `is_greedy`: each was the most likely one.

    `top` holds, for each scored token, the most likely ones at its place: (token id, log-probability), best first.
    """

    logprobs: tuple[float, ...]
    is_greedy: bool
    top: tuple[tuple[tuple[int, float], ...], ...] | None = None


class Top(NamedTuple):
    """The most likely tokens at the place of each target, best first; both arrays are [targets, tops]."""

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]

    def pairs(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        """For each target its (token id, log-probability)."""
        rows = zip(self.ids.tolist(), self.logprobs.tolist(), strict=True)
        return tuple(tuple(zip(ids, logprobs, strict=True)) for ids, logprobs in rows)


class Scores(NamedTuple):
    """Log-probability of each target of a pass, whether it is the most likely token, and those that are, if wanted."""

    logprobs: NDArray[np.float64]
    greedy: NDArray[np.bool_]
    top: Top | None = None

    def part(self, first: int, last: int) -> ScoredTokens:
        """Those of one span, whose targets stand side by side."""
        top = self.top and Top(self.top.ids[first:last], self.top.logprobs[first:last]).pairs()
        return ScoredTokens(tuple(self.logprobs[first:last].tolist()), bool(self.greedy[first:last].all()), top)


def truncated_span(context: tuple[int, ...], continuation: tuple[int, ...], limit: int) -> Span:
    """The span of a pair, keeping the last `limit` fed tokens as lm-evaluation-harness does.

    The continuation must itself fit: `len(continuation) <= limit`.
    """
    ids = (context + continuation)[-(limit + 1) :]
    return Span(ids, len(ids) - len(continuation))
