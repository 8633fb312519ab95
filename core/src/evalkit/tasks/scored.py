"""What metrics look at: one document's answers, in the form its kind of task gives them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoredChoice:
    """Log-probabilities of a document's choices; `gold` holds the right indices (none where out of range)."""

    logprobs: tuple[float, ...]
    choices: tuple[str, ...]
    gold: tuple[int, ...]
    unconditional: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScoredTarget:
    """Log-probability of a document's target; `is_greedy`: greedy decoding would have produced it."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True, slots=True)
class ScoredGeneration:
    """A generated and filtered text beside the accepted targets."""

    text: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoredPage:
    """Log-probability of a whole text, with its length in the units that perplexities divide by."""

    logprob: float
    words: int
    bytes: int
