"""Few-shot examples are drawn as lm-evaluation-harness draws them, and none is the document itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evalkit.errors import ConfigError
from evalkit.tasks.fewshot import Drawer

POOL = [{"id": number} for number in range(12)]
SEEDS = st.integers(0, 2**32)


def _drawer(pool: list[dict[str, Any]] = POOL, seed: int = 1234, **options: Any) -> Drawer:
    return Drawer(pool, options.pop("sampler", "random"), seed, **{"may_hold_doc": False, **options})


def test_draws_are_those_of_one_generator() -> None:
    """One `random.Random(seed)` goes from document to document: each draw is its next `sample`."""
    drawer, reference = _drawer(), random.Random(1234)
    assert [drawer.draw({"id": n}, 3) for n in range(5)] == [reference.sample(POOL, 3) for _ in range(5)]


def test_known_draws() -> None:
    """The first draws with the default seed, written down: another Python must not change scores."""
    assert [doc["id"] for doc in _drawer().draw({}, 5)] == [7, 1, 0, 10, 9]


@given(SEEDS, st.integers(0, 11), st.integers(1, 11))
def test_a_pool_that_holds_the_document_is_drawn_from_with_one_more(seed: int, doc: int, n: int) -> None:
    """Of one example more than needed, the document itself is left out, else the last one."""
    found = _drawer(seed=seed, may_hold_doc=True).draw(POOL[doc], n)
    sampled = random.Random(seed).sample(POOL, n + 1)
    assert found == [other for other in sampled if other != POOL[doc]][:n]


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=10),
    SEEDS,
    st.integers(1, 6),
    st.sampled_from(["random", "first_n"]),
)
def test_a_document_is_no_example_for_itself(ids: list[int], seed: int, n: int, sampler: str) -> None:
    """However often the pool holds it, the document is not among its examples; there are exactly n."""
    pool = [{"id": number} for number in ids]
    assume(sum(doc != pool[0] for doc in pool) >= n)
    assume(len(pool) > n)
    found = _drawer(pool, seed, sampler=sampler, may_hold_doc=True).draw(pool[0], n)
    assert len(found) == n
    assert pool[0] not in found
    assert all(doc in pool for doc in found)


def test_several_equal_documents_draw_once_more_from_the_others() -> None:
    """Where too few are left, the generator samples again, from what differs only."""
    same, others = {"id": 0}, [{"id": 1}, {"id": 2}, {"id": 3}]
    pool = [same, same, same, *others]
    reference = random.Random(4)
    left = [doc for doc in reference.sample(pool, 4) if doc != same]
    assert len(left) < 3
    assert _drawer(pool, 4, may_hold_doc=True).draw(same, 3) == reference.sample(others, 3)


def test_first_n_gives_everyone_the_same() -> None:
    """The first examples of the pool; a pool that may hold the document skips it."""
    drawer = _drawer(sampler="first_n")
    assert drawer.draw(POOL[1], 3) == drawer.draw(POOL[8], 3) == POOL[:3]
    careful = _drawer(sampler="first_n", may_hold_doc=True)
    assert careful.draw(POOL[1], 3) == [POOL[0], POOL[2], POOL[3]]
    assert careful.draw(POOL[8], 3) == POOL[:3]


@pytest.mark.parametrize(
    ("sampler", "may_hold_doc", "fits"),
    [("random", False, 3), ("random", True, 2), ("first_n", False, 3), ("first_n", True, 2)],
)
def test_a_pool_that_is_too_small_is_an_error(sampler: str, may_hold_doc: bool, fits: int) -> None:
    """Fewer examples than asked for would be another benchmark: the error says how many there are."""
    pool = POOL[:3]
    assert len(_drawer(pool, sampler=sampler, may_hold_doc=may_hold_doc).draw(pool[0], fits)) == fits
    with pytest.raises(ConfigError, match=r"few-shot examples needed, but the pool holds \d\. Lower --num-fewshot"):
        _drawer(pool, sampler=sampler, may_hold_doc=may_hold_doc).draw(pool[0], fits + 1)


def test_equal_documents_can_make_a_pool_too_small() -> None:
    """A pool full of copies of the document holds no example for it."""
    pool = [{"id": 0}] * 5 + [{"id": 1}]
    with pytest.raises(ConfigError, match=r"pool holds 1"):
        _drawer(pool, may_hold_doc=True).draw({"id": 0}, 2)


def test_no_examples_draw_nothing() -> None:
    """Without examples the pool may be empty, and the generator stays where it is."""
    assert _drawer([]).draw({}, 0) == []
    drawer = _drawer()
    drawer.draw({}, 0)
    assert drawer.draw({}, 2) == _drawer().draw({}, 2)


@given(SEEDS, st.booleans(), st.integers(1, 11))
def test_a_limit_does_not_change_earlier_draws(seed: int, may_hold_doc: bool, limit: int) -> None:
    """The first documents get the same examples, whether others follow or not."""
    whole, cut = (_drawer(seed=seed, may_hold_doc=may_hold_doc) for _ in range(2))
    everything = [whole.draw(doc, 4) for doc in POOL]
    assert [cut.draw(doc, 4) for doc in POOL[:limit]] == everything[:limit]
