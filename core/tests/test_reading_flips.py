"""Examples of a comparison show what was asked, what is right, and what each run answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.reading.flips import Flip, flips
from evalkit.runs.compare_row import Row

BASE: dict[str, Any] = {"filter": "none", "higher_is_better": True, "documents": 2, "baseline": 0, "value": 0}


def row(task: str, metric: str, **fields: Any) -> Row:
    return Row(run="b", task=task, metric=metric, difference=0.0, **{**BASE, **fields})


def write(run: Path, task: str, samples: list[dict[str, Any]]) -> None:
    run.mkdir(exist_ok=True)
    common = {"metrics": [], "doc_hash": "", "doc": {}}
    lines = [json.dumps({"doc_id": number, "filter": "none", **common, **s}) for number, s in enumerate(samples)]
    (run / f"samples_{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def choice(*logprobs: float) -> dict[str, Any]:
    prompt = "Say what is right, as shown.\n\nQuestion: one\nAnswer: a\n\nQuestion: which of the two?\nAnswer:"
    pairs = [[value, False] for value in logprobs]
    texts = (" no", " certainly not")
    return {
        "target": 1,
        "arguments": [[prompt, text] for text in texts],
        "resps": [[p] for p in pairs],
        "filtered_resps": pairs,
    }


def text(answer: str) -> dict[str, Any]:
    asked = [["What is 1 + 1, please?\n\nAnswer:", {"until": []}]]
    return {"target": "2", "arguments": asked, "resps": [[f"I think {answer}"]], "filtered_resps": [answer]}


def test_choices(tmp_path: Path) -> None:
    """The last question of the prompt, texts in place of numbers, and the choice that the metric itself looks at."""
    write(tmp_path / "a", "t", [choice(-3, -4), choice(-1, -9)])
    write(tmp_path / "b", "t", [choice(-3, -30), choice(-1, -9)])
    by_norm = flips(row("t", "acc_norm", worse=(0,)), tmp_path / "a", tmp_path / "b", 3)
    question = "Question: which of the two? Answer:"
    assert by_norm == [Flip("t", 0, "worse", question, "certainly not", "certainly not", "no")]
    (by_sum,) = flips(row("t", "acc", better=(0,)), tmp_path / "a", tmp_path / "b", 3)
    assert (by_sum.change, by_sum.baseline, by_sum.answer) == ("better", "no", "no")


def test_texts(tmp_path: Path) -> None:
    """What the filter left of an answer, cut to a line; as many documents of each kind as were asked for."""
    write(tmp_path / "a", "t", [text("2"), text("2"), text("3"), text("x" * 500)])
    write(tmp_path / "b", "t", [text("3"), text("4"), text("2"), text("2")])
    found = flips(row("t", "exact_match", worse=(0, 1), better=(2, 3)), tmp_path / "a", tmp_path / "b", 1)
    assert [(flip.doc_id, flip.baseline, flip.answer) for flip in found] == [(0, "2", "3"), (2, "3", "2")]
    assert found[0].question == "What is 1 + 1, please?"
    assert len(flips(row("t", "exact_match", better=(3,)), tmp_path / "a", tmp_path / "b", 1)[0].baseline) < 120


def test_scores_of_targets_and_of_whole_texts(tmp_path: Path) -> None:
    """A target has its probability for an answer; a text that was only read has none."""
    scored = {
        "target": " x",
        "arguments": [["Say x", " x"]],
        "resps": [[[-2.5, True]]],
        "filtered_resps": [[-2.5, True]],
    }
    read = {"target": None, "arguments": [["A page."]], "resps": [[-9.5]], "filtered_resps": [-9.5]}
    for name in ("a", "b"):
        write(tmp_path / name, "t", [scored])
        write(tmp_path / name, "p", [read])
    (flip,) = flips(row("t", "acc", worse=(0,)), tmp_path / "a", tmp_path / "b", 3)
    assert flip.answer == "log-probability -2.5000, the likeliest"
    assert flips(row("p", "word_perplexity", worse=(0,)), tmp_path / "a", tmp_path / "b", 3) == []


def test_groups(tmp_path: Path) -> None:
    """Examples of a group are those of its tasks, no more than asked for."""
    for name in ("a", "b"):
        for task in ("t", "u"):
            write(tmp_path / name, task, [text("2"), text("3")])
    parts = (row("t", "acc", worse=(0,)), row("u", "acc", worse=(0, 1), better=()))
    found = flips(row("all", "acc", parts=parts), tmp_path / "a", tmp_path / "b", 2)
    assert [(flip.task, flip.doc_id) for flip in found] == [("t", 0), ("u", 0)]
