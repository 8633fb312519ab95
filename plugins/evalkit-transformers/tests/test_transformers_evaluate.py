"""Whole evaluations: the embedded model's known scores, the Python interface, and runs that are killed."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evalkit
from evalkit import engines
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.runs.journal import count_answers
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession

ANSWERS_BEFORE_THE_KILL = 40


@pytest.fixture(scope="module")
def smollm2(smollm2_path: str) -> Iterator[TransformersSession]:
    """A session on the real model in float32."""
    with Transformers(dtype="float32", device="cpu").model(smollm2_path).session() as session:
        assert isinstance(session, TransformersSession)
        yield session


def numbers(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """All numbers of a result, by task and metric."""
    return {
        f"{task}/{name}": value
        for task, row in results.items()
        for name, value in row.items()
        if isinstance(value, (int, float))
    }


def samples(folder: Path) -> dict[int, Any]:
    """What came back for each document."""
    lines = next(folder.glob("samples_*.jsonl")).read_text(encoding="utf-8").splitlines()
    return {row["doc_id"]: row["resps"] for row in map(json.loads, lines)}


# ── the embedded model ──────────────────────────────────────────────────────────────────────────────────
def test_the_model_knows_the_capital_of_france(smollm2: TransformersSession, smollm2_path: str) -> None:
    """Weights, tokenizer and positions fit together: the model continues a known sentence with sense."""
    output = smollm2.generate([GenerationRequest(prompt="The capital of France is", max_new_tokens=2)])[0]
    assert output.text == " Paris."
    paris, rome = smollm2.loglikelihood(
        [LoglikelihoodRequest("The capital of France is", f" {name}") for name in ("Paris", "Rome")]
    )
    assert paris.is_greedy
    assert paris.logprob > rome.logprob + 2


def test_the_starter_suite_runs(smollm2_path: str, tmp_path: Path) -> None:
    """`evalkit.evaluate` answers questions, problems and prose: finite metrics, no error, every token counted."""
    result = evalkit.evaluate(
        ["starter"],
        engine="transformers",
        model="smollm2-135m",
        model_args={"dtype": "float32"},
        limit=8,
        output=str(tmp_path / "run"),
    )
    found = numbers(result.results)
    assert {name.partition("/")[0] for name in found} >= {"starter_questions", "starter_arithmetic", "starter_prose"}
    assert all(math.isfinite(value) for value in found.values())
    assert found["starter_questions/acc,none"] >= 0.5
    assert 1 < found["starter_prose/word_perplexity,none"] < 1000
    assert result.errors == 0
    assert result.tokens is not None
    assert result.tokens.computed >= result.tokens.unique > 0


def test_hellaswag_has_its_known_scores(data_dir: str, smollm2_path: str, tmp_path: Path) -> None:
    """The first 100 documents in float32 score as in lm-evaluation-harness 0.4.13: acc 0.42, acc_norm 0.45."""
    bound = engines.Transformers(dtype="float32").model(smollm2_path)
    result = bound.run("hellaswag", limit=100, data_dir=data_dir, output=str(tmp_path / "run"))
    row = result.results["hellaswag"]
    assert (row["acc,none"], row["acc_norm,none"]) == (0.42, 0.45)
    assert result.errors == 0


# ── the Python interface ────────────────────────────────────────────────────────────────────────────────
def test_an_engine_with_a_model_runs_tasks(llama_path: Path, tmp_path: Path) -> None:
    """`engines.Transformers(...).model(path).run(...)` is `evaluate` with the same options."""
    bound = engines.Transformers(dtype="float32", device="cpu").model(str(llama_path), max_length=200)
    run = bound.run(["starter_questions"], limit=10, output=str(tmp_path / "one"))
    same = evalkit.evaluate(
        "starter_questions",
        engine="transformers",
        model=str(llama_path),
        engine_args={"dtype": "float32", "device": "cpu"},
        model_args={"max_length": 200},
        limit=10,
        output=str(tmp_path / "two"),
    )
    assert numbers(run.results) == pytest.approx(numbers(same.results))
    execution = json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))
    assert "LlamaForCausalLM" in json.dumps(execution)


def test_batch_size_changes_no_result(llama_path: Path, tmp_path: Path) -> None:
    """A run has the same answers whatever its batch size."""
    bound = Transformers(dtype="float32", device="cpu").model(str(llama_path))
    found = []
    for rows in (1, 7):
        folder = tmp_path / str(rows)
        bound.run(["starter_questions"], limit=12, batch_size=rows, output=str(folder))
        found.append(samples(folder))
    for doc_id, answers in found[0].items():
        for (one,), (other,) in zip(answers, found[1][doc_id], strict=True):
            assert one[0] == pytest.approx(other[0], abs=1e-4)


# ── runs that are killed ────────────────────────────────────────────────────────────────────────────────
def command(*words: str) -> subprocess.Popen[str]:
    """`evalkit` in a process of its own, on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def journal(folder: Path) -> dict[str, tuple[int, str]]:
    """Every answer in a journal with its row, which another writing would change."""
    db = sqlite3.connect(f"{(folder / 'journal.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return {key: (row, output) for row, key, output in db.execute("SELECT rowid, key, output FROM outputs")}
    finally:
        db.close()


def test_a_killed_run_is_resumed(llama_path: Path, tmp_path: Path) -> None:
    """After SIGKILL amid a real run, `evalkit resume` completes it: nothing is asked twice, no result changes."""
    folder = tmp_path / "killed"
    options = ("--engine-arg", "dtype=float32", "--engine-arg", "device=cpu", "--batch-size", "1")
    model = ("--engine", "transformers", "--model", str(llama_path))
    process = command("run", "starter_questions", *model, *options, "--output", str(folder))
    try:
        deadline = time.monotonic() + 120
        while count_answers(folder / "journal.sqlite") < ANSWERS_BEFORE_THE_KILL:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = journal(folder)
    total = json.loads((folder / "run.json").read_text(encoding="utf-8"))["requests"]
    assert ANSWERS_BEFORE_THE_KILL <= len(before) < total

    resumed = command("resume", str(folder), "--json")
    printed, messages = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, messages
    after = journal(folder)
    assert len(after) == total
    assert before.items() <= after.items()

    unbroken = Transformers(dtype="float32", device="cpu").model(str(llama_path))
    result = unbroken.run("starter_questions", batch_size=1, output=str(tmp_path / "unbroken"))
    assert numbers(json.loads(printed)["results"]) == pytest.approx(numbers(result.results))
    expected, found = samples(tmp_path / "unbroken"), samples(folder)
    assert found.keys() == expected.keys()
    for doc_id, answers in expected.items():
        for (one,), (other,) in zip(answers, found[doc_id], strict=True):
            assert one[0] == pytest.approx(other[0], abs=1e-4)
            assert one[1] == other[1]
