"""A span: token ids of which the tail is scored. Every scoring request becomes one or more spans."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Score `ids[start:]`, each token given all before it; the model is fed `ids[:-1]`.

    `source` is what an encoder-decoder model reads in its encoder; `ids` are then the decoder's.
    """

    ids: tuple[int, ...]
    start: int
    source: tuple[int, ...] | None = None

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
    """Log-probability of each scored token of a span; `is_greedy`: each was the most likely one."""

    logprobs: tuple[float, ...]
    is_greedy: bool


def truncated_span(context: tuple[int, ...], continuation: tuple[int, ...], limit: int) -> Span:
    """The span of a pair, keeping the last `limit` fed tokens as lm-evaluation-harness does.

    The continuation must itself fit: `len(continuation) <= limit`.
    """
    ids = (context + continuation)[-(limit + 1) :]
    return Span(ids, len(ids) - len(continuation))
