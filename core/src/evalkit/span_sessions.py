"""SpanSession: spans scored over one or two primitives, in trees or in rows, with back-off on memory and counters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from evalkit.engine import ContinuousSession
from evalkit.errors import OutOfMemoryError, one_line
from evalkit.requests import TokenCounts
from evalkit.scoring import ScoredTokens, Scores, Span, plan_batches, run_with_backoff
from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import SpanTable, build_forest, fresh_tokens
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit.scoring.resident import ResidentPrefix

LEAST_BATCH_TOKENS = 16


class SpanSession(ContinuousSession):
    """What TokenSession scores with. Scores depend neither on batches nor on order."""

    is_encoder_decoder = False
    shares_prefixes = False
    """Whether the session implements `score_forest`, for the model that it holds."""
    _resident: ResidentPrefix | None = None

    def __init__(self, *, max_length: int, batch_tokens: int) -> None:
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.counts = TokenCounts()

    # ── primitives ──────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans in one pass. Raises OutOfMemoryError, and is then called with fewer."""

    def score_forest(self, batches: Iterator[TreeBatch]) -> Iterator[tuple[TreeBatch, Scores]]:
        """Run tree batches in order; yield each with the scores of its targets.

        Called instead of `score_batch` where `shares_prefixes` is true. Raises OutOfMemoryError, and is then
        called anew with smaller batches of what is left.
        """
        raise TypeError(f"{type(self).__name__} says that it shares prefixes, but has no score_forest")

    def make_room(self, longest: int, total: int) -> None:
        """Told before passes begin: tokens of the longest text, answer included, and of all texts together."""

    # ── what is kept and counted ────────────────────────────────────────────────────────────────────────
    def keep_prefixes(self, wanted: bool = True) -> None:
        """Where prefixes are shared, keep that of a scoring call for the next one."""
        self.forget_prefix()
        self._resident = ResidentPrefix(self) if wanted else None

    def forget_prefix(self) -> None:
        """Let go of what `keep_prefixes` kept: engines call it where they empty or free their cache."""
        if self._resident is not None:
            self._resident.forget()

    def count_computed(self, tokens: int) -> None:
        """Add tokens that went through the model, padding included."""
        self.counts += TokenCounts(computed=tokens)

    def _count_answered(self, requested: int, fresh: int) -> None:
        """Note what an answer would have cost alone, and how many of its tokens are new.

        With each answer, not before: a run that is killed and resumed counts none twice.
        """
        self.counts += TokenCounts(requested=requested, unique=fresh)

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def _score(self, spans: list[Span], batch_size: int | None) -> Iterator[tuple[int, ScoredTokens | str]]:
        """Score spans, each yielded when it is done; one that does not fit the memory alone yields its error."""
        if not spans:
            return
        longest = max(span.width for span in spans)
        self.make_room(longest, longest)
        if self.shares_prefixes and not self.is_encoder_decoder:
            if self._resident is not None:
                yield from self._score_resident(self._resident, spans, batch_size)
            else:
                yield from self._score_trees(spans, batch_size)
        else:
            yield from self._score_rows(spans, batch_size)

    def _score_resident(
        self, resident: ResidentPrefix, spans: list[Span], batch_size: int | None
    ) -> Iterator[tuple[int, ScoredTokens | str]]:
        """The same behind the prefix that the last call left, without it where memory runs out."""
        left = dict(enumerate(spans))
        try:
            for number, scored, fresh in resident.score(spans, self._budget(spans, batch_size)):
                self._count_answered(len(left.pop(number).fed), fresh)
                yield number, scored
        except OutOfMemoryError:
            numbers = list(left)
            for place, answer in self._score_trees(list(left.values()), batch_size):
                yield numbers[place], answer

    def _budget(self, spans: list[Span], batch_size: int | None) -> int:
        return self.batch_tokens if batch_size is None else batch_size * max(len(span.fed) for span in spans)

    def _score_trees(self, spans: list[Span], batch_size: int | None) -> Iterator[tuple[int, ScoredTokens | str]]:
        """Each distinct token once. Where memory runs out, what is left is planned anew with half the budget."""
        widest = max(len(span.fed) for span in spans)
        budget = self._budget(spans, batch_size)
        left = dict(enumerate(spans))
        fresh: list[int] = []
        while left:
            numbers = list(left)
            forest = build_forest(SpanTable.of(list(left.values())))
            fresh = fresh or forest.fresh.tolist()
            collector = Collector(forest)
            try:
                for batch, scores in self.score_forest(plan_forest(forest, budget)):
                    self.count_computed(len(batch.tokens))
                    for place, scored in collector.add(batch, scores):
                        number = numbers[place]
                        self._count_answered(len(left.pop(number).fed), fresh[number])
                        yield number, scored
            except OutOfMemoryError as error:
                if budget <= LEAST_BATCH_TOKENS:
                    message = f"out of memory in batches of {budget} tokens: {one_line(error)}"
                    yield from ((number, message) for number in left)
                    return
                budget = min(budget, widest * len(left)) // 2
                self.batch_tokens = min(self.batch_tokens, budget)

    def _score_rows(self, spans: list[Span], batch_size: int | None) -> Iterator[tuple[int, ScoredTokens | str]]:
        """One padded row a span, for models whose prefixes cannot be shared."""
        fed = [(*(span.source or ()), *span.fed) for span in spans]
        fresh = fresh_tokens(fed)
        # Longest first, so that memory runs out at once or never; ids break ties, so that batches do not
        # depend on the order of the documents.
        order = sorted(range(len(spans)), key=lambda i: (-len(fed[i]), fed[i], spans[i].ids))
        widths = [spans[i].width for i in order]
        budget = (lambda: self.batch_tokens) if batch_size is None else (lambda: 1 << 62)
        for batch in plan_batches(widths, max_tokens=budget, max_rows=batch_size):
            for index, scored in self._run_batch([order[i] for i in batch], spans):
                self._count_answered(len(fed[index]), fresh[index])
                yield index, scored

    def _run_batch(self, indices: list[int], spans: list[Span]) -> Iterator[tuple[int, ScoredTokens | str]]:
        def attempt(part: list[int]) -> list[ScoredTokens]:
            try:
                return self.score_batch([spans[i] for i in part])
            except OutOfMemoryError:
                padded = len(part) * max(spans[i].width for i in part)
                self.batch_tokens = max(1, min(self.batch_tokens, padded // 2))
                raise

        while indices:
            done, failure = 0, ""
            try:
                for index, scored in run_with_backoff(indices, attempt):
                    done += 1
                    yield index, scored
            except OutOfMemoryError as error:
                failure = one_line(error)
            if failure:
                # Halves run in order: the first request that is not done is the one that does not fit alone.
                yield indices[done], f"out of memory for this request alone: {failure}"
                done += 1
            indices = indices[done:]
