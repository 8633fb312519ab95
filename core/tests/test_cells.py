"""A session over cells: every token sees exactly its own text, however texts share passes and cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evalkit import cells
from evalkit.cells import CellSession
from evalkit.requests import GenerationRequest
from evalkit.scoring import Span

SIZE = 7


class Letters:
    """A tokenizer of which a token is a letter; the first ends a text."""

    prefix_token_id = 1
    eos_token_ids = frozenset({0})
    eos_text = None
    vocab_size = SIZE

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        return [[".abcdef".index(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(".abcdef"[token] for token in ids if not (skip_special and token == 0))


def scores_behind(text: Sequence[int]) -> NDArray[np.float32]:
    """What the toy model makes of a text; its end is rare."""
    logits = np.random.default_rng(list(text[-6:])).normal(size=SIZE).astype(np.float32)
    logits[0] -= 1.0
    return logits


class Toy(CellSession):
    """Keeps tokens and positions as cells, and answers with what each token sees."""

    def __init__(self, batch_tokens: int = 64, draft_tokens: int = 0) -> None:
        super().__init__(Letters(), max_length=64, batch_tokens=batch_tokens)  # type: ignore[arg-type]
        self.draft_tokens, self.drafted_pass = draft_tokens, 12
        self.cells: list[tuple[int, int]] = []
        self.most = 0

    def run(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        self.cells += zip(tokens.tolist(), positions.tolist(), strict=True)
        self.most = max(self.most, len(self.cells))
        assert mask.shape == (len(tokens), len(self.cells))
        found = []
        for row, seen in enumerate(mask):
            visible = sorted((self.cells[cell][1], self.cells[cell][0]) for cell in np.flatnonzero(seen))
            # A text's tokens are at 0, 1, 2, ... up to this one.
            assert [position for position, _ in visible] == list(range(positions[row] + 1))
            if row in rows:
                found.append(scores_behind([token for _, token in visible]))
        return np.array(found, np.float32).reshape(len(rows), SIZE)

    def keep(self, kept: NDArray[np.int64]) -> None:
        assert (np.diff(kept) > 0).all()
        self.cells = [self.cells[cell] for cell in kept]

    def gc(self) -> None:
        self.cells = []

    def close(self) -> None:
        self.cells = []


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
    for span, scored in zip(spans, Toy(budget).score_batch(spans), strict=True):
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
        outputs = Toy(budget, draft_tokens).generate(requests, batch_size=batch_size)
    for request, output in zip(requests, outputs, strict=True):
        text = list(request.input_ids or ())
        for token in output.token_ids:
            assert token == int(scores_behind(text).argmax())
            text.append(token)
        assert output.token_ids[-1] == 0 or len(output.token_ids) == 12


def test_free_cells_are_used_again() -> None:
    """The cache does not grow with the number of answers."""
    session = Toy()
    requests = [GenerationRequest(input_ids=[1, 2, number % 3 + 1], max_new_tokens=40) for number in range(200)]
    session.generate(requests, batch_size=2)
    assert session.most < 2 * (cells.LEAST_FREE + 2 * 64)


def test_beams_are_refused_alone() -> None:
    """Beam search is not there: that request gets an error, the one beside it an answer."""
    outputs = Toy().generate([GenerationRequest(input_ids=[1], max_new_tokens=2, num_beams=b) for b in (2, 1)])
    assert "num_beams" in (outputs[0].error or "")
    assert outputs[1].error is None
