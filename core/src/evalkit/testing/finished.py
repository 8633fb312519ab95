"""Finished runs with chosen answers, for the tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.requests import GenerationOutput, GenerationRequest, LoglikelihoodOutput, LoglikelihoodRequest
from evalkit.results import Sample
from evalkit.runs.folder import ESCAPED

COLOURS = (" red", " green", " blue")
SPEC = {"tasks": ["quiz"], "engine": "some-engine", "model": "some-model", "seed": 1234}


def choice_row(doc_id: int, question: str, chosen: int, gold: int = 0, *, error: str | None = None) -> dict[str, Any]:
    """A row of a multiple-choice task with three colours; with `error` its request failed."""
    logprobs = [-1.0 if number == chosen else -3.0 for number in range(len(COLOURS))]
    requests = tuple(LoglikelihoodRequest(f"{question}\nAnswer:", colour) for colour in COLOURS)
    outputs = tuple(LoglikelihoodOutput(logprob) for logprob in logprobs)
    metrics = {} if error else {"acc": float(chosen == gold)}
    filtered = None if error else logprobs
    return Sample("quiz", doc_id, {"q": question}, gold, requests, outputs, "none", filtered, metrics, error).to_dict()


def generated_row(doc_id: int, prompt: str, text: str, target: str) -> dict[str, Any]:
    """A row with a generated answer."""
    asked, answered = (GenerationRequest(prompt),), (GenerationOutput(text),)
    metrics = {"exact": float(text == target)}
    return Sample("talk", doc_id, {"q": prompt}, target, asked, answered, "none", text, metrics).to_dict()


def write_run(
    folder: Path,
    spec: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **tasks: Sequence[Mapping[str, Any]],
) -> Path:
    """A finished run of these rows in a new `folder`; `more` goes into results.json."""
    folder.mkdir(parents=True)
    asked = {**SPEC, "tasks": list(tasks), **(spec or {})}
    manifest = {"format": 1, "created": "2026-01-01", "status": "finished", "spec": asked}
    scores = {task: {"acc,none": 0.5, "acc_stderr,none": 0.1} for task in tasks}
    results = {"results": scores, "versions": dict.fromkeys(tasks, "1"), **(more or {})}
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for task, rows in tasks.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"samples_{task}.jsonl").write_text(text, encoding="utf-8", errors=ESCAPED, newline="\n")
    return folder
