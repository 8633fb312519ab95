"""Put scored tokens back together: which spans are finished after a batch, and what their scores are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evalkit.scoring.forest import Forest
from evalkit.scoring.planner import Slots, TreeBatch, span_slots
from evalkit.scoring.spans import ScoredTokens, Scores, Top


class Collector:
    """Takes the scores of tree batches and gives those of whole spans, each as soon as it is complete."""

    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        self.slots = Slots.of(forest)
        self._logprobs = np.zeros(self.slots.count)
        self._greedy = np.zeros(self.slots.count, bool)
        self._top: Top | None = None
        # A span is complete with its last token: those before it were scored with, or before, that one's batch.
        last = self.slots.first[forest.leaf] + forest.end[forest.leaf] - 1 - forest.scored_from[forest.leaf]
        self._is_last = np.zeros(self.slots.count, bool)
        self._is_last[last] = True
        self._ending: dict[int, list[int]] = {}
        for span, slot in enumerate(last.tolist()):
            self._ending.setdefault(slot, []).append(span)

    def add(self, batch: TreeBatch, scores: Scores) -> Iterator[tuple[int, ScoredTokens]]:
        """Take the scores of a batch's targets; yield `(span, scores)` of every span that is now complete."""
        self._logprobs[batch.slots] = scores.logprobs
        self._greedy[batch.slots] = scores.greedy
        if scores.top is not None:
            self._keep_top(batch, scores.top)
        for slot in batch.slots[self._is_last[batch.slots]].tolist():
            for span in self._ending[slot]:
                where = span_slots(self.forest, self.slots, span)
                logprobs, greedy = self._logprobs[where].tolist(), bool(self._greedy[where].all())
                top = self._top and Top(self._top.ids[where], self._top.logprobs[where]).pairs()
                yield span, ScoredTokens(tuple(logprobs), greedy, top)

    def _keep_top(self, batch: TreeBatch, top: Top) -> None:
        if self._top is None:
            shape = (self.slots.count, top.ids.shape[1])
            self._top = Top(np.zeros(shape, np.int64), np.zeros(shape))
        self._top.ids[batch.slots] = top.ids
        self._top.logprobs[batch.slots] = top.logprobs
