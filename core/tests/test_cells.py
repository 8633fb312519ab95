"""A session over cells: every token sees exactly its own text, however texts share passes and cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import cells
from evalkit.requests import GenerationRequest
from evalkit.scoring import Span
from evalkit.testing.toy_cells import ToyCells, scores_behind

SPANS = st.lists(
    st.tuples(st.lists(st.integers(1, 3), min_size=2, max_size=30), st.integers(1, 29)).map(
        lambda pair: Span(tuple(pair[0]), min(pair[1], len(pair[0]) - 1))
    ),
    min_size=1,
    max_size=10,
)


@settings(deadline=None)
@given(SPANS, st.integers(1, 50))
def test_scores_are_those_of_each_text_alone(spans: list[Span], budget: int) -> None:
    """Whatever is shared and however it is cut."""
    for span, scored in zip(spans, ToyCells(budget).score_batch(spans), strict=True):
        behind = [scores_behind(span.ids[:end]) for end in range(span.start, len(span.ids))]
        expected = [
            float(logits[token]) - float(np.log(np.exp(logits.astype(np.float64)).sum()))
            for logits, token in zip(behind, span.targets, strict=True)
        ]
        assert scored.logprobs == pytest.approx(expected, abs=1e-5)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(st.integers(1, 3), max_size=40),
    st.integers(1, 4),
    st.integers(1, 50),
    st.integers(0, 6),
)
def test_texts_are_those_of_each_request_alone(
    tails: list[list[int]], prefix: list[int], batch_size: int, budget: int, draft_tokens: int
) -> None:
    """Whatever is running beside it, guessed ahead, or moved together in the cache."""
    requests = [GenerationRequest(input_ids=[*prefix, *tail], max_new_tokens=12) for tail in tails]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "LEAST_FREE", 3)
        outputs = ToyCells(budget, draft_tokens).generate(requests, batch_size=batch_size)
    for request, output in zip(requests, outputs, strict=True):
        text = list(request.input_ids or ())
        for token in output.token_ids:
            assert token == int(scores_behind(text).argmax())
            text.append(token)
        assert output.token_ids[-1] == 0 or len(output.token_ids) == 12


def test_free_cells_are_used_again() -> None:
    """The cache does not grow with the number of answers."""
    session = ToyCells()
    requests = [GenerationRequest(input_ids=[1, 2, number % 3 + 1], max_new_tokens=40) for number in range(200)]
    session.generate(requests, batch_size=2)
    assert session.most < 2 * (cells.LEAST_FREE + 2 * 64)


def test_answers_that_end_at_once_leave_room() -> None:
    """Prompts that join again and again, with no step between, find the cells of those that have left."""
    session = ToyCells(32, most_cells=100)
    session.cache_tokens = 90
    requests = [
        GenerationRequest(input_ids=[*([number % 3 + 1] * 20), number % 2 + 1], max_new_tokens=1)
        for number in range(40)
    ]
    assert all(output.error is None for output in session.generate(requests, batch_size=4))


def test_a_large_batch_size_fits_the_cells() -> None:
    """Scoring with a batch size takes no more tokens at a time than there is room for."""
    session = ToyCells(16, most_cells=60)
    spans = [Span((1, *(number >> bit & 1 for bit in range(6)), *[2] * 20), 1) for number in range(20)]
    assert len(list(session._score(spans, 16))) == len(spans)


def test_beams_are_refused_alone() -> None:
    """Beam search is not there: that request gets an error, the one beside it an answer."""
    outputs = ToyCells().generate([GenerationRequest(input_ids=[1], max_new_tokens=2, num_beams=b) for b in (2, 1)])
    assert "num_beams" in (outputs[0].error or "")
    assert outputs[1].error is None
