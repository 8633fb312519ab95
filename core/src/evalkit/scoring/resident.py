"""A prefix that stays in an engine's cache from one scoring call to the next.

A run asks everything in one call, whose forest shares what there is to share. A server is asked little at a time, and
each call would read anew the examples that the one before it has just read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import Forest, SpanTable, build_forest
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit.scoring.spans import ScoredTokens, Scores, Span

if TYPE_CHECKING:
    from evalkit.span_sessions import SpanSession

LEAST = 16
"""Tokens from which on a prefix is worth keeping."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The tokens in the cache, and how a span that was scored from `start` on scored those behind it."""

    ids: tuple[int, ...] = ()
    start: int = 0
    scored: ScoredTokens | None = None

    def kept(self, spans: Sequence[Span]) -> int:
        """Leading tokens that all these spans share with the chain and need not be read for: 0 if too few."""
        shared = _shared([self.ids, *(span.ids for span in spans)])
        first = min(span.start for span in spans)
        if first <= shared:
            # Scores at depths up to that of the first token which is read come from before, where they are known.
            shared = shared - 1 if self._knows(first, max(span.tops for span in spans)) else first - 1
        # Each span has a token to be fed, and one to be scored behind it.
        shared = min(shared, *(len(span.ids) - 2 for span in spans))
        return shared if shared >= LEAST else 0

    def _knows(self, first: int, tops: int) -> bool:
        if self.scored is None or not self.scored.top:
            return False
        # Whether a token is the likeliest is told by the likeliest.
        return self.start <= first and len(self.scored.top[0]) >= max(tops, 1)

    def completed(self, span: Span, kept: int, rest: ScoredTokens) -> ScoredTokens:
        """All scores of a span of which `rest` are those behind the `kept` tokens."""
        if span.start > kept:
            return rest
        assert self.scored is not None
        assert self.scored.top is not None
        part = slice(span.start - self.start, kept + 1 - self.start)
        top = self.scored.top[part]
        greedy = all(likely[0][0] == token for likely, token in zip(top, span.ids[span.start :], strict=False))
        tops = None if rest.top is None else (*top, *rest.top)
        return ScoredTokens((*self.scored.logprobs[part], *rest.logprobs), greedy and rest.is_greedy, tops)


class ResidentPrefix:
    """Scores the spans of one call after another. `forget` it before the cache is used for anything else."""

    def __init__(self, session: SpanSession) -> None:
        self._session = session
        self._queue: deque[TreeBatch] = deque()
        self._passes: Generator[tuple[TreeBatch, Scores], None, None] | None = None
        self._chain = Chain()

    def forget(self) -> None:
        """Let go of the cache."""
        passes, self._passes, self._chain = self._passes, None, Chain()
        if passes is not None:
            passes.close()

    def score(self, spans: list[Span], budget: int) -> Iterator[tuple[int, ScoredTokens, int]]:
        """Yield `(number, scores, tokens that no call before had)` of each span. Raises OutOfMemoryError."""
        kept, before = self._chain.kept(spans), self._chain
        rest = [replace(span, ids=span.ids[kept:], start=max(span.start - kept, 1)) for span in spans]
        forest = build_forest(SpanTable.of(rest))
        chain = Chain(spans[0].ids[:kept] + _held(forest))
        earliest = min(range(len(spans)), key=lambda number: spans[number].start)
        collector, done = Collector(forest), False
        try:
            for batch, scores in self._run(plan_forest(forest, budget, holds_top=True), kept):
                self._session.count_computed(len(batch.tokens))
                for number, part in collector.add(batch, scores):
                    scored = before.completed(spans[number], kept, part)
                    if number == earliest:
                        chain = replace(chain, start=spans[number].start, scored=scored)
                    yield number, scored, int(forest.fresh[number])
            self._chain, done = chain, True
        finally:
            if not done:
                self.forget()

    def _run(self, batches: Iterator[TreeBatch], kept: int) -> Iterator[tuple[TreeBatch, Scores]]:
        for batch in batches:
            if self._passes is None:
                self._passes = self._endless()
            self._queue.append(replace(batch, keep=batch.keep + kept, positions=batch.positions + kept))
            yield next(self._passes)

    def _endless(self) -> Generator[tuple[TreeBatch, Scores], None, None]:
        """Passes over what is queued, batch by batch: as they never end, what is resident stays so between calls."""
        yield from self._session.score_forest(iter(self._queue.popleft, None))


def _held(forest: Forest) -> tuple[int, ...]:
    """The tokens that every text begins with, which a plan that holds them leaves in the cache."""
    tops = forest.children[forest.child_offsets[forest.root] : forest.child_offsets[forest.root + 1]]
    if len(tops) != 1:
        return ()
    table, top = forest.table, int(tops[0])
    first = int(table.offsets[forest.spelled_by[top]])
    return tuple(table.tokens[first : first + int(forest.fed[top])].tolist())


def _shared(texts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all texts begin with: those that the first and the last in order share."""
    pairs = zip(min(texts), max(texts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
