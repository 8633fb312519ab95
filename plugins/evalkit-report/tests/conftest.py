"""What the tests share: run folders with chosen answers, real runs, and a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.reading.finished import Run, open_runs
from evalkit.results import Sample
from evalkit.runner import evaluate
from evalkit.testing.browser import headless_chromium

SPEC = {"tasks": ["quiz"], "engine": "some-engine", "model": "some-model", "seed": 1234}
Make = Callable[..., Path]


class Rows:
    """Rows of sample files."""

    @staticmethod
    def choice(doc_id: int, question: str, chosen: int, gold: int) -> dict[str, Any]:
        """A multiple-choice row with the choices red, green and blue."""
        choices = ("red", "green", "blue")
        logprobs = [-1.0 if index == chosen else -3.0 for index in range(3)]
        sample = Sample("quiz", doc_id, {"q": question}, gold, (), (), "none", logprobs, {"acc": float(chosen == gold)})
        pairs = [[f"{question}\nAnswer:", f" {word}"] for word in choices]
        return {**sample.to_dict(), "arguments": pairs, "resps": [[[value, False]] for value in logprobs]}

    @staticmethod
    def generated(doc_id: int, prompt: str, text: str, target: str) -> dict[str, Any]:
        """A row with a generated answer."""
        sample = Sample("talk", doc_id, {"q": prompt}, target, (), (), "none", text, {"exact": float(text == target)})
        return {**sample.to_dict(), "arguments": [[prompt, {"until": []}]], "resps": [[text]]}

    @staticmethod
    def failed(doc_id: int, question: str, error: str) -> dict[str, Any]:
        """A row whose request failed."""
        row = {**Rows.choice(doc_id, question, 0, 0), "metrics": [], "error": error}
        return {key: value for key, value in row.items() if key != "acc"}


@pytest.fixture
def rows() -> type[Rows]:
    """Makes rows of sample files."""
    return Rows


@pytest.fixture
def make_run(tmp_path: Path) -> Make:
    """`make_run("a", quiz=[rows])`: a finished run with these samples."""

    def make(name: str, spec: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **tasks: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        manifest = {"format": 1, "created": "2026-01-01", "status": "finished", "spec": {**SPEC, **(spec or {})}}
        results = {"results": {task: {"acc,none": 0.5, "acc_stderr,none": 0.1} for task in tasks}, **(more or {})}
        (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        for task, rows in tasks.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"samples_{task}.jsonl").write_text(lines, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def opened(make_run: Make) -> Callable[..., list[Run]]:
    """`opened(a=[rows], b=[rows])`: runs of one task."""
    return lambda **runs: open_runs([make_run(name, quiz=rows) for name, rows in runs.items()])


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a multiple-choice, a generation and a perplexity task with the fake engine."""
    pytest.importorskip("evalkit_tasks_starter")
    path = tmp_path_factory.mktemp("real") / "run"
    evaluate("starter", engine="evalkit.testing.fake:Fake", model="any", limit=25, output=str(path))
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with headless_chromium() as browser:
        yield browser
