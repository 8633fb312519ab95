"""Score tree batches: a branch is a sequence, and a token belongs to the sequences of all branches behind it.

Sequence 0 holds the resident chain, and the way to where a batch was cut in two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evalkit.scoring import Scores
from evalkit.scoring.logits import target_scores
from evalkit.scoring.planner import TreeBatch
from evalkit.scoring.spans import Top
from evalkit_llamacpp.context import MOST_LOGITS, MOST_SEQUENCES, Context, Ints


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `first` to `last` of a batch, to be computed in one pass.

    Token i belongs to `counts[i]` sequences, named in `owners` one token after another. Before the pass, sequence k + 1
    shares the first `depths[k]` tokens of sequence 0, and sequence 0 is cut at `cut`.
    """

    first: int
    last: int
    owners: Ints
    counts: Ints
    depths: list[int]
    cut: int


def segments(batch: TreeBatch, most_tokens: int) -> Iterator[Segment]:
    """A batch in passes of so many tokens, of as many branches as there are sequences, and of few logits."""
    size, first = len(batch.tokens), 0
    ends = batch.reach == np.arange(1, size + 1)
    branches = np.concatenate([[0], np.cumsum(ends)])
    while first < size:
        last = min(size, first + most_tokens)
        # One sequence is the chain's, and one is left to the branch that a cut ends.
        last = min(last, int(np.searchsorted(branches, branches[first] + MOST_SEQUENCES - 2, side="right")) - 1)
        row = int(np.searchsorted(batch.rows, first))
        if row + MOST_LOGITS < len(batch.rows):
            last = min(last, int(batch.rows[row + MOST_LOGITS]))
        last = max(last, first + 1)
        yield _segment(batch, first, last)
        first = last


def _segment(batch: TreeBatch, first: int, last: int) -> Segment:
    part, here = slice(first, last), np.arange(last - first)
    # What is seen beyond this pass goes on in sequence 0.
    resident = (here + first < batch.chain) | (batch.reach[part] > last)
    reach = np.minimum(batch.reach[part], last) - first
    leaf = (reach == here + 1) & ~resident
    before = np.concatenate([[0], np.cumsum(leaf)])
    own = before[reach] - before[here]
    counts = own + resident
    owners = np.zeros(int(counts.sum()), np.int64)
    starts = np.cumsum(counts) - counts + resident
    inside = np.arange(int(own.sum())) - np.repeat(np.cumsum(own) - own, own)
    owners[np.repeat(starts, own) + inside] = np.repeat(before[here], own) + inside + 1
    covered = np.concatenate([[0], np.maximum.accumulate(reach)[:-1]])
    tops = np.flatnonzero(covered <= here)
    positions = batch.positions[part]
    above = tops[np.searchsorted(tops, np.flatnonzero(leaf), side="right") - 1]
    cut = int(positions[resident.argmax()]) if resident.any() else int(positions[0])
    return Segment(first, last, owners, counts, positions[above].tolist(), cut)


def score(context: Context, batch: TreeBatch, most_tokens: int) -> Scores:
    """The scores of the batch's targets."""
    count = len(batch.targets)
    found = Scores(np.zeros(count), np.zeros(count, bool))
    if batch.tops:
        found = found._replace(top=Top(np.zeros((count, batch.tops), np.int64), np.zeros((count, batch.tops))))
    order = np.argsort(batch.target_rows, kind="stable")
    sorted_rows = batch.target_rows[order]
    wanted = np.zeros(len(batch.tokens), bool)
    wanted[batch.rows] = True
    for segment in segments(batch, most_tokens):
        part = slice(segment.first, segment.last)
        context.cut(0, int(batch.positions[segment.first]))
        for number, depth in enumerate(segment.depths):
            context.copy(0, number + 1, depth)
        context.cut(0, segment.cut)
        logits = context.decode(batch.tokens[part], batch.positions[part], segment.owners, segment.counts, wanted[part])
        context.keep_only(0)
        row = int(np.searchsorted(batch.rows, segment.first))
        mine = order[slice(*np.searchsorted(sorted_rows, [row, row + len(logits)]))]
        scores = target_scores(logits, batch.target_rows[mine] - row, batch.targets[mine], batch.tops)
        found.logprobs[mine], found.greedy[mine] = scores.logprobs, scores.greedy
        if found.top and scores.top:
            found.top.ids[mine], found.top.logprobs[mine] = scores.top
    return found
