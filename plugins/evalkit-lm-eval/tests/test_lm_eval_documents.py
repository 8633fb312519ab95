"""A document that lm-evaluation-harness cannot ask about is left out, and changes nothing for the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.datasets import DatasetSpec
from evalkit.runs.plan import load_task, make_plan
from evalkit.runs.spec import RunSpec
from evalkit.tasks import Task
from evalkit.tasks.splits import needed

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")

pytestmark = pytest.mark.filterwarnings("ignore")

BAD = {"gold": {"answerKey": "Z"}, "choices": {"choices": {"text": [], "label": []}}}


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("fault", list(BAD))
def test_one_bad_document_is_left_out(fault: str, shots: int, tmp_path: Path) -> None:
    """Whatever the harness raises about it; the others are asked what they are asked without it."""
    good = [_arc(n) for n in range(4)]
    requests = {}
    for name, second in {"good": good[1], "bad": {**good[1], **BAD[fault]}}.items():
        folder = tmp_path / name / "allenai" / "ai2_arc" / "ARC-Easy"
        folder.mkdir(parents=True)
        for split, docs in {"test": [good[0], second, *good[2:]], "train": [_arc(n) for n in range(9)]}.items():
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, docs)))
        (folder / "validation.jsonl").write_text(json.dumps(good[0]))
        spec = RunSpec(
            tasks=["lm_eval:arc_easy"], engine="e", model="m", data_dir=str(tmp_path / name), num_fewshot=shots
        )
        planned = make_plan(spec).tasks["lm_eval:arc_easy"]
        assert [bool(item.error) for item in planned.docs] == [False, name == "bad", False, False]
        requests[name] = [[asked.request for asked in doc] for doc in planned.ask(1234, None)]
    assert requests["bad"] == [requests["good"][0], [], *requests["good"][2:]]


def test_picked_files_are_read_from_the_mirror_first(tmp_path: Path) -> None:
    """A task that names files of a repository has its documents in a mirror like any other."""
    folder = tmp_path / "allenai" / "c4" / "en"
    folder.mkdir(parents=True)
    (folder / "validation.jsonl").write_text(json.dumps({"text": "A page."}))
    task = _task("c4")
    assert task.load(task.split, str(tmp_path)) == [{"text": "A page."}]
    assert task.dataset.hub_files["validation"].startswith("en/c4-validation.00000")


def test_a_mirror_cannot_tell_the_tasks_of_a_builder_apart() -> None:
    """Ten tasks read their own files as "json": none of them may get another one's."""
    # Imported early, the hub's library would not see that the tests beside this one are offline.
    from evalkit_lm_eval.data import described

    files = {"validation": "hf://datasets/org/sums/two_digits.jsonl"}
    assert described("json", None, {"data_files": files}) == DatasetSpec("json")
    assert described("org/sums", None, {"data_files": files}).hub_files == files


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("arc_easy", ["test", "train"]),
        ("mmlu_anatomy", ["test", "dev"]),
        ("aime25", ["test"]),
        ("gsm8k_cot", ["test"]),
        ("wikitext", ["test"]),
    ],
)
def test_the_split_of_examples_is_fetched(name: str, splits: list[str]) -> None:
    """Where the harness draws some; not for tasks that are always 0-shot, or list theirs."""
    assert [item.split for item in needed([_task(name)])] == splits


def _task(name: str) -> Task:
    task = load_task(f"lm_eval:{name}")
    assert isinstance(task, Task)
    return task


def _arc(number: int) -> dict[str, Any]:
    choices = {"text": [f"{number}a", f"{number}b"], "label": ["A", "B"]}
    return {"id": str(number), "question": f"What is {number}?", "choices": choices, "answerKey": "AB"[number % 2]}
