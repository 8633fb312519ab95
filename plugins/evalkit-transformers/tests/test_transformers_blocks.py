"""Blocks of a tree batch see what the plan says, wherever they are cut."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.scoring import Span
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit_transformers import blocks
from evalkit_transformers.blocks import Block, make_blocks

token_lists = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=14), min_size=1, max_size=12)
QUERIES = torch.zeros((2, 3, 1, 4))


def batches(texts: list[list[int]], budget: int) -> list[TreeBatch]:
    """A plan for texts whose last tokens are scored."""
    spans = [Span(tuple(text), max(1, len(text) - 2)) for text in texts]
    return list(plan_forest(build_forest(SpanTable.of(spans)), budget))


def keys_of(block: Block, row: int, window: int | None) -> list[int]:
    """What a token of a block attends to: numbers of the resident chain's tokens, then of the batch's own from 1000."""
    seen = block.seen(window, QUERIES)
    tail = [] if seen.tail is None else np.arange(len(block.batch.tokens))[seen.tail].tolist()
    keys = [*range(seen.first, seen.last), *(1000 + at for at in tail)]
    rows = seen.mask.unflatten(0, (QUERIES.shape[1], -1))[:, row - block.first]
    assert (rows == rows[0]).all()
    return [key for key, score in zip(keys, rows[0].tolist(), strict=True) if score == 0]


def wanted(batch: TreeBatch, row: int, window: int | None) -> list[int]:
    """The same from the definition of a batch."""
    own = [at for at in range(row + 1) if batch.reach[at] > row]
    chain = [*range(batch.keep), *(batch.keep + at for at in own if at < batch.chain)]
    keys = [(key, key) for key in chain] + [(1000 + at, int(batch.positions[at])) for at in own if at >= batch.chain]
    return [key for key, place in keys if window is None or batch.positions[row] - place < window]


@given(token_lists, st.integers(2, 60), st.integers(1, 6), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 9)))
def test_every_token_sees_what_the_plan_says(
    texts: list[list[int]], budget: int, least: int, more: int, window: int | None
) -> None:
    """Blocks cover a batch in order, and every token sees its ancestors within the window, and nothing else."""
    with patch.multiple(blocks, LEAST_TOKENS=least, MOST_TOKENS=least + more):
        for batch in batches(texts, budget):
            found = make_blocks(batch)
            assert [block.first for block in found] == [0, *(block.last for block in found[:-1])]
            assert found[-1].last == len(batch.tokens)
            for block in found:
                assert 0 < block.last - block.first <= least + more
                for row in range(block.first, block.last):
                    assert keys_of(block, row, window) == wanted(batch, row, window)


def test_cuts_fall_between_texts() -> None:
    """Texts that share nothing are not cut apart while a block has room for whole ones."""
    texts = [[first, *range(10, 40)] for first in range(9)]
    (batch,) = batches(texts, 1000)
    assert {block.last for block in make_blocks(batch)} <= {last for _, last in batch.units}
