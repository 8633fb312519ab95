"""CellSession: scoring and generation over one primitive, for backends whose attention mask is free to choose.

The cache is a row of cells, each the keys and values of one token. A pass reads tokens of many texts side by side
and says which cells each of them sees; their own cells are appended. That is all a backend has to do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from evalkit import decoding
from evalkit.requests import GenerationOutput
from evalkit.scoring import ScoredTokens, Scores, Span
from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.logits import target_scores
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit.sessions import DecodeRequest, TokenSession

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

PREFIX, FREE = -1, -2
"""Owners of cells that all sequences see, and of cells that none sees any more."""
LEAST_FREE = 256
"""Cells that are worth moving the others for."""


class CellSession(TokenSession):
    """A session over `run` and `keep`."""

    shares_prefixes = True
    joins_running = True
    rows = 16
    """Sequences that are generated at a time."""
    draft_tokens = 0
    drafted_pass = 0
    cache_tokens: int | None = None
    """As in `evalkit.decoding.Limits`; free cells, at most a quarter, come on top."""
    most_cells: int | None = None
    """Cells that there is room for, free ones included; None where there is no fixed number."""
    adjust: decoding.Adjust | None = None
    """What the checkpoint asks of every text that is generated: penalties, forbidden tokens."""

    # ── primitives ──────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def run(self, tokens: Ints, positions: Ints, mask: Bools, rows: Ints) -> Floats:
        """Read tokens [T]; logits [rows, vocabulary] behind those that `rows` names, in order.

        `mask` [T, cells + T] says what each token sees: first of the cells that are there, then of these tokens,
        whose cells are appended. Raises OutOfMemoryError.
        """

    @abstractmethod
    def keep(self, cells: Ints) -> None:
        """Keep these cells, in ascending order, and forget all others."""

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def score_forest(self, batches: Iterator[TreeBatch]) -> Iterator[tuple[TreeBatch, Scores]]:
        """Score tree batches, each in one pass; the chain that they share stays in the first cells."""
        self.keep(np.arange(0))
        cells = 0
        for batch in batches:
            if cells > batch.keep:
                self.keep(np.arange(batch.keep))
            size = len(batch.tokens)
            here = np.arange(size)
            mask = np.ones((size, batch.keep + size), bool)
            mask[:, batch.keep :] = (here[None] <= here[:, None]) & (here[:, None] < batch.reach[None])
            scores = self.score_pass(batch, mask)
            cells = batch.keep + batch.chain
            self.keep(np.arange(cells))
            yield batch, scores

    def score_pass(self, batch: TreeBatch, mask: Bools) -> Scores:
        """Read a batch and score its targets; an engine may do both on its device."""
        logits = self.run(batch.tokens.astype(np.int64), batch.positions, mask, batch.rows)
        return target_scores(logits, batch.target_rows, batch.targets, batch.tops)

    def _budget(self, spans: list[Span], batch_size: int | None) -> int:
        """What the caller's batch size asks for; where cells are few, never more than a pass."""
        budget = super()._budget(spans, batch_size)
        return budget if self.most_cells is None else min(budget, self.batch_tokens)

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans as a forest of their own."""
        forest = build_forest(SpanTable.of(spans))
        collector = Collector(forest)
        found: dict[int, ScoredTokens] = {}
        for batch, scores in self.score_forest(plan_forest(forest, self.batch_tokens)):
            self.count_computed(len(batch.tokens))
            found.update(collector.add(batch, scores))
        return [found[number] for number in range(len(spans))]

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate continuously; a prefix that prompts share is read once."""
        refused, plain = decoding.without_beams(requests)
        yield from refused
        yield from decoding.with_backoff(self._stream, plain, batch_size or self.rows)

    def _stream(self, items: list[DecodeRequest], rows: int) -> Iterator[tuple[int, GenerationOutput]]:
        yield from decoding.stream(self.decoder(), self.tokenizer, items, self._limits(rows), choose=self._choose)

    def decode_live(self, feed: decoding.Feed, wants_parts: Callable[[int], bool]) -> decoding.LiveAnswers:
        """Generate for a feed."""

        def run(left: decoding.Feed, rows: int) -> decoding.LiveAnswers:
            limits = self._limits(rows)
            return decoding.live(self.decoder(), self.tokenizer, left, limits, wants_parts, choose=self._choose)

        yield from decoding.live_with_backoff(run, feed, self.rows)

    def _choose(self, row: decoding.Row, logits: Floats) -> None:
        decoding.choose(self.tokenizer, row, logits, self.adjust)

    def decoder(self) -> decoding.Decoder:
        """What generates; an engine may have one that keeps sequences apart."""
        return _CellDecoder(self)

    def _limits(self, rows: int) -> decoding.Limits:
        return decoding.Limits(
            rows=rows,
            admitted_tokens=self.batch_tokens,
            draft_tokens=self.draft_tokens,
            drafted_pass=self.drafted_pass,
            cache_tokens=self.cache_tokens,
        )


class _CellDecoder(decoding.SequenceDecoder):
    """Who owns each cell, and what each sequence therefore sees."""

    def __init__(self, session: CellSession) -> None:
        self.session = session

    def reset(self) -> int:
        """Forget all cells."""
        self.session.keep(np.arange(0))
        self._owners = np.zeros(0, np.int64)
        self._next = 0
        return PREFIX

    def join(self) -> int:
        """Numbers are not used again: freed cells may still be there."""
        self._next += 1
        return self._next - 1

    def admit(self, suffixes: list[tuple[int, ...]]) -> Floats:
        """Read new sequences, the cells made compact before: answers of one token are followed by no step."""
        self._make_compact(sum(map(len, suffixes)))
        return super().admit(suffixes)

    def step(self, fed: list[list[int]]) -> list[Floats]:
        """Read further tokens of every sequence, the cells made compact before."""
        self._make_compact(sum(map(len, fed)))
        self._first = len(self._owners) + np.cumsum([0, *map(len, fed)])
        return super().step(fed)

    def forget(self, slot: int, first: int) -> None:
        """Free the cells of a slot's new tokens from `first` on."""
        self._owners[self._first[slot] + first : self._first[slot + 1]] = FREE

    def leave(self, sequence: int) -> None:
        """Free a sequence's cells."""
        self._owners[self._owners == sequence] = FREE

    def read(self, tokens: Ints, positions: Ints, owners: Ints, wanted: Bools) -> Floats:
        """Read tokens in passes that fit the budget: each sees the prefix and what its own sequence has before it."""
        self.session.count_computed(len(tokens))
        most, found = self.session.batch_tokens, []
        for first in range(0, len(tokens), most):
            part = slice(first, first + most)
            mask = self._mask(owners[part])
            rows = np.flatnonzero(wanted[part])
            found.append(self.session.run(tokens[part], positions[part], mask, rows))
            self._owners = np.concatenate([self._owners, owners[part]])
        return np.concatenate(found)

    def _mask(self, owners: Ints) -> Bools:
        here = np.arange(len(owners))
        before = (self._owners[None] == PREFIX) | (self._owners[None] == owners[:, None])
        among = (owners[None] == owners[:, None]) & (here[None] <= here[:, None])
        return np.concatenate([before, among], 1)

    def _make_compact(self, new: int) -> None:
        """Move the cells together where that is worth it, or new ones would not find room."""
        held, most = len(self._owners), self.session.most_cells
        free = int((self._owners == FREE).sum())
        is_full = most is not None and held + new > most
        if free and (is_full or (free >= LEAST_FREE and 4 * free > held)):
            kept = np.flatnonzero(self._owners != FREE)
            self.session.keep(kept)
            self._owners = self._owners[kept]
