"""What is told of a sample: verdict, answer, confidence, and both runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evalkit
from evalkit.errors import EvalkitError
from evalkit.reading import samples
from evalkit.reading.aligned import aligned
from evalkit.reading.finished import Run, open_run, open_runs
from evalkit.testing.fake import Fake
from evalkit.testing.finished import choice_row, write_run

Open = Callable[..., list[Run]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """`opened(a=[rows], b=[rows])`: runs of one task."""
    return lambda **runs: open_runs([write_run(tmp_path / name, quiz=rows) for name, rows in runs.items()])


@pytest.mark.parametrize(
    ("value", "higher", "expected"),
    [(1.0, True, "r"), (0, True, "w"), (0.0, False, "r"), (1, False, "w"), (0.5, True, "o"), ([1, 2], True, "o")],
)
def test_verdict_follows_the_first_metric(value: Any, higher: bool, expected: str) -> None:
    """0 and 1 are right or wrong as the metric declares; whatever lies between is neither."""
    row = {"metrics": ["m", "other"], "m": value, "other": 1}
    assert samples.verdict(row, {"m": higher}) == expected


def test_failed_sample_is_neither_right_nor_wrong() -> None:
    """A request that failed is an error, and an absent sample is absent."""
    assert samples.verdict(choice_row(0, "?", 0, error="boom"), {}) == samples.ERROR
    assert samples.verdict(None, {}) == samples.MISSING


def test_choice_is_shown_as_text() -> None:
    """Answer and target of a multiple-choice sample are choices, not their numbers."""
    row = choice_row(3, "Sky?", chosen=1, gold=2)
    assert (samples.answer_text(row), samples.target_text(row)) == ("green", "blue")
    shown = samples.describe((row,))
    assert shown["prompt"] == "Sky?\nAnswer:"
    assert [answer["text"] for answer in shown["runs"][0]["answers"]] == [" red", " green", " blue"]
    assert sum(answer["share"] for answer in shown["runs"][0]["answers"]) == pytest.approx(1, abs=1e-3)


def test_requests_without_context_do_not_hide_the_prompt() -> None:
    """The extra requests of acc_mutual_info have no context; the prompt is still the one that all others share."""
    row = choice_row(0, "Sky?", 0, 0)
    row["arguments"] += [["", pair[1]] for pair in row["arguments"]]
    row["resps"] *= 2
    assert samples.describe((row,))["prompt"] == "Sky?\nAnswer:"
    assert samples.choice_logprobs(row) == [-1.0, -3.0, -3.0]


def test_two_prompts_are_both_shown() -> None:
    """Where runs asked differently, the second prompt is kept."""
    first, second = choice_row(0, "Sky?", 0, 0), choice_row(0, "Example. Sky?", 0, 0)
    shown = samples.describe((first, second))
    assert shown["runs"][1]["prompt"] == "Example. Sky?\nAnswer:"
    assert "prompt" not in shown["runs"][0]


@given(st.lists(st.floats(max_value=0, allow_nan=False), min_size=2, max_size=9))
def test_probabilities(logprobs: list[float]) -> None:
    """Shares add up to one, and the likeliest choice has the largest, impossible choices included."""
    shares = samples.probabilities(logprobs)
    assert math.isclose(sum(shares), 1)
    assert shares[logprobs.index(max(logprobs))] == max(shares)


@given(st.text(), st.booleans())
def test_preview_is_one_short_line(text: str, end: bool) -> None:
    """A preview fits a line of the list."""
    line = samples.preview(text, end=end)
    assert len(line) <= samples.PREVIEW
    assert "\n" not in line


def test_runs_are_aligned_by_document(opened: Open) -> None:
    """Rows of one document stand together; one that only one run has stands alone."""
    runs = opened(a=[choice_row(i, f"{i}?", 0, 0) for i in (0, 1, 3)], b=[choice_row(i, f"{i}?", 1, 0) for i in (1, 2)])
    found = [tuple(row and row["doc_id"] for row in pair) for pair in aligned(runs, "quiz")]
    assert found == [(0, None), (1, 1), (None, 2), (3, None)]


def test_other_documents_are_not_compared(opened: Open) -> None:
    """Two documents of one number but of other content are two lines."""
    runs = opened(a=[choice_row(0, "old?", 0, 0)], b=[choice_row(0, "new?", 0, 0)])
    assert [tuple(row is not None for row in pair) for pair in aligned(runs, "quiz")] == [(True, False), (False, True)]


def test_failed_document_stands_beside_every_filter(opened: Open) -> None:
    """A failed document has one row; it is set beside each filter of the other run."""
    both = [{**choice_row(0, "q?", 0, 0), "filter": name} for name in ("strict", "loose")]
    found = list(aligned(opened(a=both, b=[choice_row(0, "q?", 0, error="boom")]), "quiz"))
    assert [(a["filter"], b["error"]) for a, b in found if a and b] == [("strict", "boom"), ("loose", "boom")]


def test_damaged_row_is_named(tmp_path: Path) -> None:
    """A cut-off line gives the file and the line, in one sentence."""
    path = write_run(tmp_path / "a", quiz=[choice_row(0, "q?", 0, 0)])
    with (path / "samples_quiz.jsonl").open("a") as file:
        file.write('{"doc_id": 1, "do')
    with pytest.raises(EvalkitError, match=r"samples_quiz.jsonl, line 2 is damaged"):
        list(aligned([open_run(path, "a")], "quiz"))


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    """A run without results says how to complete it."""
    path = write_run(tmp_path / "a", quiz=[])
    (path / "results.json").unlink()
    with pytest.raises(EvalkitError, match=r"not finished\. Complete it with: evalkit resume"):
        open_run(path, "a")


def test_results_without_scores_are_refused(tmp_path: Path) -> None:
    """A results.json of another shape is one line, not a traceback."""
    path = write_run(tmp_path / "a", more={"results": None})
    with pytest.raises(EvalkitError, match="it holds no scores"):
        open_run(path, "a")


def test_run_named_twice_is_refused(tmp_path: Path) -> None:
    """A run beside itself says nothing."""
    path = write_run(tmp_path / "a", quiz=[])
    with pytest.raises(EvalkitError, match="named twice"):
        open_runs([path, path])


def test_choices_of_a_real_run_are_recognised(tmp_path: Path) -> None:
    """Sample files as evalkit writes them: every choice has its probability."""
    (tmp_path / "docs.jsonl").write_text('{"q": "Sky?", "c": ["red", "green", "blue"], "a": 2}\n', encoding="utf-8")
    (tmp_path / "quiz.yaml").write_text(
        "task: quiz\nkind: multiple_choice\ndataset: {files: {test: docs.jsonl}}\ntest_split: test\n"
        "prompt: q\nchoices: c\ngold: a\n",
        encoding="utf-8",
    )
    evalkit.evaluate(str(tmp_path / "quiz.yaml"), engine=Fake(), model="any", output=str(tmp_path / "run"))
    row = json.loads((tmp_path / "run" / "samples_quiz.jsonl").read_text(encoding="utf-8"))
    assert samples.choice_logprobs(row) == [answer[0][0] for answer in row["resps"]]
