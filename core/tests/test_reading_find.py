"""Samples are found by verdict and text, in one run and between two."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import ConfigError, RunError
from evalkit.reading.find import chosen_task, find, whole
from evalkit.reading.finished import Run, open_runs
from evalkit.reading.samples import texts
from evalkit.testing.finished import choice_row as row
from evalkit.testing.finished import write_run


@pytest.fixture
def pair(tmp_path: Path) -> list[Run]:
    """Two runs: right or wrong, one request failed, and a document that only the second has."""
    first = [row(0, "Sky?", 0), row(1, "Grass?", 1), row(2, "NAÏVE?", 0), row(3, "Sea?", 0)]
    second = [
        row(0, "Sky?", 1),
        row(1, "Grass?", 0),
        row(2, "NAÏVE?", 0),
        row(3, "Sea?", 0, error="Too long"),
    ]
    return open_runs(
        [write_run(tmp_path / "a", quiz=first), write_run(tmp_path / "b", quiz=[*second, row(4, "Sun?", 0)])]
    )


def ids(runs: Sequence[Run], **wanted: Any) -> list[int]:
    return [found.doc_id for found in find(runs, "quiz", **wanted)]


@pytest.mark.parametrize(
    ("only", "found"),
    [(None, [0, 1, 2, 3, 4]), ("right", [0, 2, 3]), ("wrong", [1]), ("error", []), ("flipped", [0, 1])],
)
def test_verdicts_are_of_the_first_run(pair: list[Run], only: str | None, found: list[int]) -> None:
    """Flipped is between runs; a failed request is no flip."""
    assert ids(pair, only=only) == found


def test_failed_requests_are_found(pair: list[Run]) -> None:
    """They have a verdict of their own."""
    assert ids(pair[1:], only="error") == [3]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sKY", [0]),
        ("naïve", [2]),
        ("NAÏVE?", [2]),
        ("too long", [3]),
        ("green", [0, 1, 2, 3, 4]),
        ("doc_hash", []),
        ("sun", [4]),
    ],
)
def test_search_is_in_texts_of_any_run(pair: list[Run], text: str, found: list[int]) -> None:
    """Prompts, choices and errors, in any case; names of fields are no texts."""
    assert ids(pair, search=text) == found


@given(
    st.lists(st.text(st.characters(codec=None), max_size=6), min_size=1, max_size=5),
    st.text(st.characters(codec=None), min_size=1, max_size=2),
)
def test_search_misses_nothing(questions: list[str], text: str) -> None:
    """Whatever characters a prompt holds and however JSON writes them: what is found is what reading all would find."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(number, question, 0) for number, question in enumerate(questions)]
        runs = open_runs([write_run(Path(folder) / "a", quiz=rows)])
        held = [found["doc_id"] for found in rows if any(text.lower() in part.lower() for part in texts(found))]
        assert ids(runs, search=text) == held


def test_a_found_sample_is_read_whole(pair: list[Run]) -> None:
    """The rows of both runs, and None where a run lacks the document."""
    (found,) = find(pair, "quiz", doc_id=2)
    assert whole(pair, "quiz", found) == (row(2, "NAÏVE?", 0), row(2, "NAÏVE?", 0))
    (last,) = find(pair, "quiz", doc_id=4)
    assert (last.verdicts, whole(pair, "quiz", last)[0]) == ("-r", None)


@pytest.mark.parametrize(
    ("only", "message"), [("wrnog", "is right, wrong, error or flipped"), ("flipped", "with --against RUN")]
)
def test_what_cannot_be_found_is_refused(pair: list[Run], only: str, message: str) -> None:
    """One line says what can."""
    with pytest.raises(ConfigError, match=message):
        ids(pair[:1], only=only)


def test_the_task_may_be_left_out_where_there_is_one(tmp_path: Path) -> None:
    """With several, the message names them; a misspelt one is guessed."""
    one, two = open_runs([write_run(tmp_path / "one", quiz=[]), write_run(tmp_path / "two", quiz=[], talk=[])])
    assert chosen_task(one, None) == "quiz"
    with pytest.raises(ConfigError, match=r"has 2 tasks\. Choose one with: --samples quiz\|talk"):
        chosen_task(two, None)
    with pytest.raises(ConfigError, match="Did you mean 'talk'"):
        chosen_task(two, "tlak")


def test_a_damaged_line_is_named(pair: list[Run]) -> None:
    """File, line and what to do."""
    with pair[0].sample_files["quiz"].open("a") as file:
        file.write('{"doc_id": 9, "do')
    for wanted in ({}, {"search": "x"}):
        with pytest.raises(RunError, match=r"samples_quiz\.jsonl, line 5 is damaged"):
            ids(pair, **wanted)
