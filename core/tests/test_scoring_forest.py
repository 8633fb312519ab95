"""Forest and planner against a naive forest: each distinct token once, every scored token seen rightly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.scoring.forest import SpanTable, build_forest, fresh_tokens
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit.scoring.spans import Span
from evalkit.testing.fake import Fake


@st.composite
def spans(draw: st.DrawFn) -> list[Span]:
    """Spans over a small alphabet, so that prefixes are shared, repeated and contained in one another."""
    found = []
    stems = draw(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4))
    for _ in range(draw(st.integers(1, 25))):
        ids = (*draw(st.sampled_from(stems)), *draw(st.lists(st.integers(0, 2), min_size=2, max_size=9)))
        found.append(Span(ids, draw(st.integers(1, len(ids) - 1))))
    return found


def naive_nodes(texts: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """All distinct prefixes that need a forward pass."""
    return {text[:end] for text in texts for end in range(1, len(text) + 1)}


@given(spans())
def test_unique_tokens_are_the_distinct_prefixes(found: list[Span]) -> None:
    """The forest feeds each distinct prefix of what the spans feed exactly once."""
    forest = build_forest(SpanTable.of(found))
    assert forest.unique == len(naive_nodes([span.fed for span in found]))
    assert forest.requested == sum(len(span.fed) for span in found)
    assert forest.fed.sum() == forest.unique


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12))
def test_fresh_tokens_add_up_to_the_distinct_prefixes(sequences: list[list[int]]) -> None:
    """Shared prefixes count once: as many tokens as there are distinct non-empty prefixes."""
    prefixes = {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}
    fresh = fresh_tokens(sequences)
    assert sum(fresh) == len(prefixes)
    assert all(0 <= new <= len(sequence) for new, sequence in zip(fresh, sequences, strict=True))


@given(spans())
def test_every_span_is_spelled_along_its_path(found: list[Span]) -> None:
    """From its leaf up to the root, the nodes spell the span."""
    forest = build_forest(SpanTable.of(found))
    for index, span in enumerate(found):
        node, spelled = int(forest.leaf[index]), ()
        while node != forest.root:
            source = found[int(forest.spelled_by[node])].ids
            spelled = source[int(forest.begin[node]) : int(forest.end[node])] + spelled
            assert forest.end[forest.parent[node]] == forest.begin[node]
            node = int(forest.parent[node])
        assert spelled == span.ids


def seen_by(batch: TreeBatch, chain: list[int], row: int) -> tuple[int, ...]:
    """The text up to and including the token at `row`, put together as an engine's attention sees it."""
    own = [int(token) for at, token in enumerate(batch.tokens[: row + 1]) if batch.reach[at] > row]
    return tuple(chain[: batch.keep] + own)


@given(spans(), st.integers(1, 40))
def test_plan_computes_every_prefix_once_and_scores_every_token(found: list[Span], budget: int) -> None:
    """Whatever the budget: each prefix is computed once, within the budget, and each scored token has its slot."""
    forest = build_forest(SpanTable.of(found))
    computed: list[tuple[int, ...]] = []
    scored: set[tuple[int, ...]] = set()
    slots: list[int] = []
    chain: list[int] = []
    for batch in plan_forest(forest, budget):
        assert 0 < len(batch.tokens) <= budget
        assert batch.keep <= len(chain)
        chain = [*chain[: batch.keep], *batch.tokens[: batch.chain].tolist()]
        texts = [seen_by(batch, chain, row) for row in range(len(batch.tokens))]
        assert [len(text) - 1 for text in texts] == batch.positions.tolist()
        computed += texts
        slots += batch.slots.tolist()
        for row, target in zip(batch.rows[batch.target_rows].tolist(), batch.targets.tolist(), strict=True):
            scored.add((*texts[row], target))
    assert sorted(computed) == sorted(naive_nodes([span.fed for span in found]))
    assert scored == {span.ids[: end + 1] for span in found for end in range(span.start, len(span.ids))}
    assert sorted(slots) == list(range(len(scored)))


@given(spans(), st.integers(2, 60))
def test_units_do_not_see_each_other(found: list[Span], budget: int) -> None:
    """No token is seen by another unit's, all see the chain, and units cover all tokens behind it."""
    for batch in plan_forest(build_forest(SpanTable.of(found)), budget):
        place = batch.chain
        assert (batch.reach[:place] == len(batch.tokens)).all()
        for first, last in batch.units:
            assert first == place
            assert (batch.reach[first:last] <= last).all()
            place = last
        assert place == len(batch.tokens)


words = st.text(alphabet="ab ", min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=12), st.integers(1, 64), st.booleans())
def test_scores_do_not_depend_on_the_plan(pairs: list[tuple[str, str]], budget: int, reverse: bool) -> None:
    """Trees of any budget and order give what rows of their own give, token by token."""
    requests = [LoglikelihoodRequest(context, continuation) for context, continuation in pairs]
    expected = Fake().build(Model("x")).loglikelihood(requests)
    session = Fake(trees=True, batch_tokens=budget).build(Model("x"))
    order = requests[::-1] if reverse else requests
    found = session.loglikelihood(order)
    assert (found[::-1] if reverse else found) == expected
    counts = session.token_counts()
    assert counts.computed == counts.unique <= counts.requested


@pytest.mark.parametrize("most", [1, 2, 3])
def test_memory_that_runs_out_changes_no_score(most: int) -> None:
    """Batches shrink until they fit; what was scored before is not asked again."""
    requests = [LoglikelihoodRequest(f"question {n // 4}:", f" answer {n}") for n in range(40)]
    expected = Fake().build(Model("x")).loglikelihood(requests)
    session = Fake(trees=True, max_rows=most).build(Model("x"))
    assert session.loglikelihood(requests) == expected


def test_large_token_ids_sort_by_value() -> None:
    """Ids beyond two bytes keep their order and identity."""
    found = [Span((70_000, 1, 2), 1), Span((1, 70_000, 3), 1), Span((70_000, 1, 3), 2)]
    forest = build_forest(SpanTable.of(found))
    assert forest.unique == 4
    assert np.array_equal(forest.table.tokens[:3], [70_000, 1, 2])
