"""Token ids as texts: pieces, offsets and keys."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.testing.fake import ByteTokenizer
from evalkit_http.openai.logprobs import Scored, top_logprobs
from evalkit_http.openai.texts import Texts, distinct_keys, offsets

BYTES = Texts(ByteTokenizer())
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(TEXT)
def test_pieces_are_the_text(text: str) -> None:
    """One a token, whatever characters a text has; and offsets count their characters."""
    ids = BYTES.encode([text])[0]
    pieces = BYTES.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == BYTES.decode(ids)
    places = zip(offsets(pieces), pieces, strict=True)
    assert all(text[offset:].startswith(piece) for offset, piece in places)


@given(st.lists(st.integers(0, 257)))
def test_bytes_that_are_no_text_have_pieces_too(ids: list[int]) -> None:
    """One a token."""
    assert len(BYTES.pieces(ids)) == len(ids)


@given(
    st.text(max_size=3), st.lists(st.tuples(st.integers(0, 99), st.text(max_size=2)), unique_by=lambda pair: pair[0])
)
def test_keys_differ(chosen: str, others: list[tuple[int, str]]) -> None:
    """From each other and from the chosen token's text, whatever tokens are called."""
    keys = distinct_keys(chosen, others)
    assert len({chosen, *keys}) == len(others) + 1


LOGPROB = st.floats(-100, 0)


@given(own=LOGPROB, top=st.lists(LOGPROB, min_size=1, max_size=5), chosen=st.integers(200, 205))
def test_the_greedy_token_and_no_other_has_the_largest_value(own: float, top: list[float], chosen: int) -> None:
    """Halves of characters have one text, and tokens may tie: the first of the top is the greedy one all the same."""
    ranked = tuple(zip(range(200, 200 + len(top)), sorted(top, reverse=True), strict=True))
    if chosen in dict(ranked):
        own = dict(ranked)[chosen]
    elif own > ranked[0][1]:
        own = ranked[0][1]
    piece = BYTES.spell(chosen)
    found = top_logprobs(BYTES, piece, Scored(chosen, own, ranked), 5)
    assert found[piece] == own
    assert (found[piece] == max(found.values())) is (chosen == ranked[0][0])


@pytest.mark.parametrize("value", [-math.inf, -1e300])
def test_impossible_tokens_have_a_value_that_json_holds(value: float) -> None:
    """OpenAI's -9999."""
    assert top_logprobs(BYTES, "a", Scored(97, value, ((98, -1.0),)), 1) == {"a": -9999.0, "b": -1.0}
