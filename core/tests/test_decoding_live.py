"""Live generation: whatever arrives, joins and is withdrawn in between, each request has its own answer, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.decoding import Limits, live, live_with_backoff
from evalkit.decoding.live import common_length
from evalkit.errors import OutOfMemoryError
from evalkit.model import Model
from evalkit.requests import GenerationOutput, GenerationPart, GenerationRequest
from evalkit.scoring.shared import LEAST_SHARED
from evalkit.sessions import DecodeRequest
from evalkit.testing.fake import Fake, FakeSession
from evalkit.testing.toy import LIMITS, Letters, Toy, asked, choose, toy_requests

Answered = dict[int, list[GenerationPart | GenerationOutput]]


def answer(feed: Iterator[DecodeRequest | int | None], toy: Toy, wants_parts: Any = lambda index: True) -> Answered:
    """All answers by the number of their request."""
    found: Answered = {}
    run = live(toy, Letters(), feed, toy.limits, wants_parts, lambda request, sample: None, choose)  # type: ignore[arg-type]
    for given_ in run:
        if given_ is not None:
            found.setdefault(given_[0], []).append(given_[1])
    return found


@settings(deadline=None, max_examples=150)
@given(items=toy_requests(), limits=LIMITS, schedule=st.lists(st.integers(0, 4), max_size=12), data=st.data())
def test_arrivals_change_no_answer(
    items: list[DecodeRequest], limits: Limits, schedule: list[int], data: st.DataObject
) -> None:
    """Each request has the output that it has alone, after parts that spell its text; a withdrawn one may have none."""
    expected, _ = asked(items, limits)
    withdrawn = set(data.draw(st.lists(st.sampled_from(range(len(items))), max_size=3))) if items else set()

    def feed() -> Iterator[DecodeRequest | int | None]:
        pauses = iter(schedule)
        for item in items:
            yield item
            yield from [None] * next(pauses, 0)
            if item.index in withdrawn:
                yield item.index

    found = answer(feed(), Toy(limits))
    assert set(found) == set(expected)
    for index, answers in found.items():
        outputs = [given_ for given_ in answers if isinstance(given_, GenerationOutput)]
        parts = [given_ for given_ in answers if isinstance(given_, GenerationPart)]
        if index in withdrawn and outputs[-1].error == "withdrawn":
            continue
        (output,) = outputs
        assert answers[-1] is output
        assert replace(output, timing=None, alternatives=()) == replace(expected[index], timing=None, alternatives=())
        for sample, whole in enumerate((output, *output.alternatives)):
            assert "".join(part.text for part in parts if part.sample == sample) == whole.text


def test_requests_with_a_long_prefix_of_their_own_run_together() -> None:
    """A prefix that arrives again and again is computed once for those that wait and those that come meanwhile."""
    shared = tuple([1] * (LEAST_SHARED + 8))
    items = [DecodeRequest(n, (*shared, 1 + n % 5), GenerationRequest(max_new_tokens=4)) for n in range(12)]
    toy = Toy(Limits(rows=4, admitted_tokens=100))
    begun: list[int] = []
    begin = toy.begin
    toy.begin = lambda prefix: (begun.append(len(prefix)), begin(prefix))[1]  # type: ignore[method-assign]

    def feed() -> Iterator[DecodeRequest | None]:
        for item in items:
            yield item
            yield None

    assert len(answer(feed(), toy)) == 12
    # The first one is alone and knows of no prefix; from the second on it is known.
    assert begun == [0, len(shared)]


def test_a_request_of_another_kind_is_not_left_waiting_for_ever() -> None:
    """Requests that keep coming do not keep out one that belongs behind another prefix: those behind it wait for it."""
    ones, twos = tuple([1] * (LEAST_SHARED + 8)), tuple([2] * (LEAST_SHARED + 8))
    limits = Limits(rows=4, admitted_tokens=200)

    def item(index: int, prefix: tuple[int, ...]) -> DecodeRequest:
        return DecodeRequest(index, (*prefix, 1 + index % 5), GenerationRequest(max_new_tokens=6, min_new_tokens=6))

    def feed() -> Iterator[DecodeRequest | None]:
        yield from (item(0, ones), item(1, ones), None, item(2, twos), item(3, twos))
        for index in range(4, 30):
            yield item(index, ones)
            yield None

    run = live(
        Toy(limits),
        Letters(),
        feed(),
        limits,
        lambda index: False,
        lambda request, sample: None,
        choose,  # type: ignore[arg-type]
    )
    order = [given_[0] for given_ in run if given_ is not None]
    assert sorted(order) == list(range(30))
    assert max(order.index(2), order.index(3)) < 10


def test_memory_that_runs_out_loses_no_request() -> None:
    """With half the rows again and again, and at last alone: whoever does not fit alone is answered by an error."""
    items = [DecodeRequest(n, (1 + n % 5,) * (n + 1), GenerationRequest(max_new_tokens=3)) for n in range(9)]

    class Cramped(Toy):
        def admit(self, suffixes: list[tuple[int, ...]]) -> Any:
            if sum(map(len, suffixes)) > 6 or len(self.texts) + len(suffixes) > 2:
                raise OutOfMemoryError("full")
            return super().admit(suffixes)

    def run(feed: Any, rows: int) -> Any:
        limits = Limits(rows=rows, admitted_tokens=100)
        return live(
            Cramped(limits),
            Letters(),
            feed,
            limits,
            lambda index: False,
            lambda request, sample: None,
            choose,  # type: ignore[arg-type]
        )

    outputs = dict(given_ for given_ in live_with_backoff(run, iter(items), 8) if given_ is not None)
    assert sorted(outputs) == list(range(9))
    failed = [index for index, output in outputs.items() if isinstance(output, GenerationOutput) and output.error]
    assert sorted(failed) == [6, 7, 8]


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_common_length_is_that_of_a_plain_walk(one: list[int], other: list[int]) -> None:
    """Halving finds the first difference."""
    walk = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert common_length(tuple(one), tuple(other)) == walk


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def fake() -> Iterator[FakeSession]:
    with Fake().build(Model("any")) as session:
        yield session


def test_a_session_that_none_can_join_answers_what_waits(fake: FakeSession) -> None:
    """Without support of its own a session answers in batches, refuses what is bad, and drops what is withdrawn."""
    request = GenerationRequest(prompt="one", max_new_tokens=3)
    feed = [
        ("a", request),
        ("b", GenerationRequest(max_new_tokens=3)),
        None,
        ("c", request),
        ("c", None),
        ("d", request),
    ]
    found = dict(fake.generate_live(iter(feed)))
    (expected,) = fake.generate([request])
    assert found["a"] == found["d"] == expected
    assert "exactly one of" in str(found["b"].error)
    assert found["c"].error == "withdrawn"
