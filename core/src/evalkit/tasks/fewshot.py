"""Few-shot examples: where they come from, and which ones each document gets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.errors import ConfigError

Doc = dict[str, Any]
DEFAULT_SEED = 1234


@dataclass(frozen=True, slots=True)
class FewShot:
    """How many examples by default, from which split (or listed `samples`), and how they are drawn.

    "random" draws anew for every document, "first_n" gives all documents the same first examples. A `fixed` number
    belongs to the task: a run cannot change it.
    """

    n: int = 0
    split: str | None = None
    samples: tuple[Doc, ...] = ()
    sampler: Literal["random", "first_n"] = "random"
    fixed: bool = False


NO_EXAMPLES = FewShot(fixed=True)
"""Always 0-shot, as where lm-evaluation-harness says `num_fewshot: 0`."""


class Drawer:
    """Draws examples for one document after another. The shots depend on the order: draw in document order.

    `may_hold_doc`: the pool may hold the evaluated document itself, which then is no example for itself.
    """

    def __init__(
        self, pool: Sequence[Doc], sampler: Literal["random", "first_n"], seed: int, *, may_hold_doc: bool
    ) -> None:
        self.pool = list(pool)
        self.sampler = sampler
        self.may_hold_doc = may_hold_doc
        self._random = random.Random(seed)

    def draw(self, doc: Doc, n: int) -> list[Doc]:
        """The `n` examples of `doc`. Raises ConfigError where the pool is too small."""
        if n == 0:
            return []
        return self._first(doc, n) if self.sampler == "first_n" else self._sample(doc, n)

    def _first(self, doc: Doc, n: int) -> list[Doc]:
        pool = self._others(doc) if self.may_hold_doc else self.pool
        return self._enough(pool, n)[:n]

    def _sample(self, doc: Doc, n: int) -> list[Doc]:
        if not self.may_hold_doc:
            return self._random.sample(self._enough(self.pool, n), n)
        drawn = [d for d in self._random.sample(self._enough(self.pool, n + 1), n + 1) if d != doc][:n]
        if len(drawn) == n:
            return drawn
        # Several documents equal this one: lm-evaluation-harness draws once more, from the others only.
        return self._random.sample(self._enough(self._others(doc), n), n)

    def _others(self, doc: Doc) -> list[Doc]:
        return [other for other in self.pool if other != doc]

    def _enough(self, pool: list[Doc], n: int) -> list[Doc]:
        if len(pool) < n:
            raise ConfigError(f"{n} few-shot examples needed, but the pool holds {len(pool)}. Lower --num-fewshot")
        return pool
