"""What a run cost and how fast it was: derived here, once, for results.json, terminals, pages and trackers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LABELS = (
    ("Tokens in", "tokens_in", 0),
    ("Tokens out", "tokens_out", 0),
    ("Tokens requested", "requested", 0),
    ("Tokens unique", "unique", 0),
    ("Tokens computed", "computed", 0),
    ("Computed / unique", "overhead", 2),
    ("Tokens in a second", "in_rate", 0),
    ("Tokens out a second", "out_rate", 0),
    ("Tokens computed a second", "computed_rate", 0),
    ("Seconds, loading the model", "load", 1),
    ("Seconds, inference", "inference", 1),
    ("Seconds, all", "total", 1),
    ("Joules", "joules", 0),
    ("Joules for 1,000 tokens", "joules_per_1000", 1),
)
"""What tables show: a name, the field of Cost, and decimals."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens, seconds and joules of a run. What the engine or the machine does not count is None.

    `tokens_in` are those of prompts and of continuations to score, `tokens_out` those that were generated; both
    together are `requested`. Rates are by the seconds of inference.
    """

    requested: int | None
    unique: int | None
    computed: int | None
    tokens_out: int | None
    load: float
    inference: float
    total: float
    joules: float | None = None
    counters: tuple[str, ...] = ()

    @property
    def tokens_in(self) -> int | None:
        """Tokens that the model was given."""
        if self.requested is None or self.tokens_out is None:
            return None
        return max(self.requested - self.tokens_out, 0)

    @property
    def overhead(self) -> float | None:
        """Tokens computed for each distinct one; 1 is the limit."""
        return self.computed / self.unique if self.computed and self.unique else None

    @property
    def in_rate(self) -> float | None:
        """Tokens in, a second."""
        return self._rate(self.tokens_in)

    @property
    def out_rate(self) -> float | None:
        """Tokens out, a second."""
        return self._rate(self.tokens_out)

    @property
    def computed_rate(self) -> float | None:
        """Tokens through the model, a second."""
        return self._rate(self.computed)

    @property
    def joules_per_1000(self) -> float | None:
        """Joules for 1,000 requested tokens."""
        return 1000 * self.joules / self.requested if self.joules is not None and self.requested else None

    def _rate(self, tokens: int | None) -> float | None:
        return tokens / self.inference if tokens is not None and self.inference > 0 else None

    def to_dict(self) -> dict[str, float | None]:
        """The object `speed` of results.json; joules only where there was a counter."""
        found: dict[str, float | None] = {
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_in_per_second": _rounded(self.in_rate),
            "tokens_out_per_second": _rounded(self.out_rate),
            "tokens_computed_per_second": _rounded(self.computed_rate),
            "computed_per_unique": _rounded(self.overhead),
        }
        return found if self.joules is None else {**found, "joules_per_1000_tokens": _rounded(self.joules_per_1000)}

    def numbers(self) -> Iterator[tuple[str, float]]:
        """What is known, named for trackers: "tokens/in", "speed/tokens_in_per_second", ..."""
        groups: dict[str, dict[str, float | None]] = {
            "tokens": {
                "requested": self.requested,
                "unique": self.unique,
                "computed": self.computed,
                "in": self.tokens_in,
                "out": self.tokens_out,
            },
            "seconds": {"load": self.load, "inference": self.inference, "total": self.total},
            "speed": {key: value for key, value in self.to_dict().items() if key not in ("tokens_in", "tokens_out")},
        }
        for group, values in groups.items():
            yield from ((f"{group}/{name}", float(value)) for name, value in values.items() if value is not None)
        if self.joules is not None:
            yield "joules", self.joules


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
