"""Guesses at a text's next tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evalkit.scoring.drafts import MOST_MATCH, Drafter, continuation

TEXTS = st.lists(st.integers(0, 3), max_size=40)


def naive(ids: list[int], most: int) -> list[int]:
    """The latest of the longest matches, by looking everywhere."""
    for length in range(MOST_MATCH, 1, -1) if len(ids) > MOST_MATCH and most > 0 else ():
        for end in range(len(ids) - 1, length - 1, -1):
            if ids[end - length : end] == ids[-length:]:
                followed = ids[end:]
                return [followed[place % len(followed)] for place in range(most)]
    return []


@given(TEXTS, st.integers(0, 9))
def test_the_latest_of_the_longest_matches_goes_on(ids: list[int], most: int) -> None:
    """A guess is what followed the latest of the longest earlier matches, as a search everywhere finds it."""
    assert continuation(np.array(ids, np.int64), most).tolist() == naive(ids, most)


def test_a_text_that_repeats_itself_is_guessed_to_go_on() -> None:
    """A loop is continued past the end of what is there."""
    assert continuation(np.array([9, 1, 2, 1, 2, 1, 2]), 5).tolist() == [1, 2, 1, 2, 1]


@given(TEXTS, st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=5), st.integers(0, 8))
def test_a_drafter_guesses_from_all_that_it_was_given(prompt: list[int], parts: list[list[int]], most: int) -> None:
    """Tokens that were pushed count as those of the prompt do."""
    drafter = Drafter(prompt, sum(map(len, parts)), most)
    for part in parts:
        drafter.push(part)
    ids = [*prompt, *(token for part in parts for token in part)]
    assert drafter.guess(99) == naive(ids, min(2, most))
    assert len(drafter.guess(1)) <= 1


def test_more_is_guessed_while_guesses_come_true() -> None:
    """The number of guesses doubles up to its limit, and falls to one more than were right."""
    drafter = Drafter([1, 2] * 9, 0, 8)
    lengths = []
    for wrong in (0, 0, 0, 5, 3, 0):
        guessed = len(drafter.guess(99))
        lengths.append(guessed)
        drafter.learn(guessed, guessed - wrong)
    assert lengths == [2, 4, 8, 8, 4, 2]
    drafter.learn(0, 0)
    assert len(drafter.guess(99)) == 4
