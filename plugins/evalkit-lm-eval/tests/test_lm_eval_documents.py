"""A document that lm-evaluation-harness cannot ask about is left out, and changes nothing for the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.runs.plan import make_plan
from evalkit.runs.spec import RunSpec

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


def _arc(number: int) -> dict[str, Any]:
    choices = {"text": [f"{number}a", f"{number}b"], "label": ["A", "B"]}
    return {"id": str(number), "question": f"What is {number}?", "choices": choices, "answerKey": "AB"[number % 2]}
