"""A stop string is noticed the moment it is complete, however its characters are split into tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evalkit.scoring import StopWatch, cut_at_stops
from evalkit.testing.fake import ByteTokenizer

ALPHABET = "ab\né€😀"
TEXTS = st.text(ALPHABET, max_size=120)
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=3)
decode = ByteTokenizer().decode


def _stopped_at(tokens: Sequence[int], stops: Sequence[str]) -> int | None:
    """Tokens pushed when the watch found a stop; None where it found none."""
    watch = StopWatch(stops, decode)
    return next((count for count, token in enumerate(tokens, start=1) if watch.push(token)), None)


def _complete_at(text: str, stops: Sequence[str]) -> int | None:
    """Bytes of the text up to the end of the stop that is complete first."""
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    return len(text[: min(ends)].encode()) if ends else None


@given(TEXTS, STOPS)
@example("é" * 100 + "€", ["€"])
def test_a_stop_is_found_where_the_whole_text_has_it(text: str, stops: list[str]) -> None:
    """The watch answers what searching the whole decoded text would, and at the first token possible."""
    assert _stopped_at(list(text.encode()), stops) == _complete_at(text, stops)


@given(st.lists(st.sampled_from(["xy", "é", "€uro", "😀", "END", "EN", "D\n", "\n"]), min_size=30, max_size=120))
@example(["😀"] * 90 + ["EN", "D\n", "\n"])
@example(["xy"] * 99 + ["END"])
def test_a_stop_is_found_at_the_end_of_a_long_text(words: list[str]) -> None:
    """Forgetting old tokens never forgets the beginning of a stop, nor invents one."""
    text, stops = "".join(words), ["END\n\n", "€€"]
    assert _stopped_at(list(text.encode()), stops) == _complete_at(text, stops)


@pytest.mark.parametrize(
    ("before", "stop"),
    [
        ("😀" * 20, "😀" * 39 + "!"),  # half of the tail is shorter than the stop
        ("x" * 25, "😀" + "€" * 8 + "!"),  # the middle of the tail lies inside the stop's first character
    ],
)
def test_a_stop_that_has_begun_is_not_forgotten(before: str, stop: str) -> None:
    """Old tokens are forgotten only where a stop still incomplete cannot begin in them."""
    assert _stopped_at(list((before + stop).encode()), [stop]) == len((before + stop).encode())


@given(st.binary(max_size=150), st.sampled_from(["ab", "\n\n", "a"]))
def test_broken_characters_hide_no_stop(data: bytes, stop: str) -> None:
    """Bytes that are no text do not stop the watch from seeing what is."""
    assert (_stopped_at(list(data), [stop]) is not None) == (stop in decode(list(data)))


@pytest.mark.parametrize("letter", ["a", "é", "😀"])
def test_only_a_tail_is_decoded_again(letter: str) -> None:
    """The cost of a token does not grow with the text before it."""
    longest = 0

    def watched(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    watch = StopWatch(["12345", "no"], watched)
    assert not any(watch.push(token) for token in (letter * 1500).encode())
    assert longest < 100


def test_nothing_to_stop_at_never_stops() -> None:
    """No stops, or empty ones, are found nowhere; the tokens are kept all the same."""
    for stops in ([], [""]):
        watch = StopWatch(stops, decode)
        assert not any(watch.push(token) for token in b"any text")
        assert bytes(watch.ids) == b"any text"


@given(TEXTS, STOPS)
def test_cut_text_holds_no_stop(text: str, stops: list[str]) -> None:
    """What is left is the beginning of the text, holds no stop, and ends where one began."""
    cut = cut_at_stops(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)
    assert cut == text or any(text[len(cut) :].startswith(stop) for stop in stops)


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one two three", [" three", " two"], "one"),
        ("\nanswer", ["\n"], ""),
        ("no stop here", ["\n"], "no stop here"),
        ("kept", [""], "kept"),
        ("abcd", ["cd", "bc"], "ab"),
    ],
)
def test_cut_at_stops(text: str, stops: list[str], left: str) -> None:
    """Each stop cuts what the stops before it have left, as lm-evaluation-harness splits."""
    assert cut_at_stops(text, stops) == left
