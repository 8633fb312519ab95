"""Requests, log-probabilities and metrics equal those of lm-evaluation-harness 0.4.13's `hf` model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import evalkit

JOBS = [
    ("hellaswag", 200, 0),
    ("piqa", 200, 0),
    ("winogrande", 200, 0),
    ("arc_easy", 200, 0),
    ("boolq", 200, 0),
    ("hellaswag", 100, 10),
]
TOLERANCE = 1e-3


@pytest.fixture(scope="session")
def theirs(harness: str, data_dir: str) -> dict[tuple[str, int], Any]:
    """What the harness gives, by task and number of examples."""
    from evalkit_smollm2.checkpoint import hf_checkpoint

    script = Path(__file__).with_name("harness_scores.py")
    command = [harness, str(script), hf_checkpoint(), data_dir, json.dumps(JOBS)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {(job["task"], job["shots"]): job for job in found}


@pytest.mark.parametrize(("task", "limit", "shots"), JOBS)
def test_equal_to_the_harness(
    task: str, limit: int, shots: int, theirs: dict[tuple[str, int], Any], data_dir: str, tmp_path: Path
) -> None:
    """Every request is the harness's, every log-probability within 1e-3 of its own, every metric equal."""
    result = evalkit.evaluate(
        task,
        engine="transformers",
        model="smollm2-135m",
        model_args={"dtype": "float32"},
        data_dir=data_dir,
        limit=limit,
        num_fewshot=shots,
        output=str(tmp_path / "run"),
    )
    expected = theirs[task, shots]
    samples = (tmp_path / "run" / f"samples_{task}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    rows = [
        (*arguments, *answer[0])
        for sample in map(json.loads, samples)
        for arguments, answer in zip(sample["arguments"], sample["resps"], strict=True)
    ]
    assert [row[:2] for row in rows] == [tuple(row[:2]) for row in expected["rows"]]
    worst = max(abs(row[2] - other[2]) for row, other in zip(rows, expected["rows"], strict=True))
    assert worst < TOLERANCE
    assert [row[3] for row in rows] == [row[3] for row in expected["rows"]]
    metrics = {key: value for key, value in expected["metrics"].items() if isinstance(value, float)}
    assert metrics
    for key, value in metrics.items():
        assert result.results[task][key] == pytest.approx(value, abs=1e-9), key
    print(f"{task} {shots}-shot: {len(rows)} requests, worst difference {worst:.2e}, {metrics}")
