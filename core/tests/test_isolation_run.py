"""A run whose engine is in another process has the results of any run, whatever becomes of that process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from evalkit.errors import ConfigError, EngineDiedError
from evalkit.isolation import engine as isolated_engine
from evalkit.isolation.process import ChildProcess
from evalkit.runner import evaluate, resume
from evalkit.runs.infer import Progress

FAKE = "evalkit.testing.fake:Fake"


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """The processes that runs start, which find the sources under test."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))
    sources = os.pathsep.join(path for path in sys.path if Path(path, "evalkit").is_dir())
    started: list[ChildProcess] = []

    def start(python: str, name: str, variables: dict[str, str]) -> ChildProcess:
        started.append(ChildProcess(python, name, {**variables, "PYTHONPATH": sources}))
        return started[-1]

    monkeypatch.setattr(isolated_engine, "ChildProcess", start)
    return started


@pytest.fixture
def quiz(tmp_path: Path) -> str:
    """Forty questions in a file."""
    lines = "".join(f'{{"question": "{n} and {n}", "answer": "{2 * n}"}}\n' for n in range(40))
    (tmp_path / "quiz.jsonl").write_text(lines, encoding="utf-8")
    task = tmp_path / "quiz.yaml"
    task.write_text(
        "task: quiz\nkind: generate\ndataset: {files: {test: quiz.jsonl}}\ntest_split: test\n"
        "prompt: 'Question: {{question}} Answer:'\nanswer: '{{answer}}'\nmax_new_tokens: 8\nmetrics: [exact_match]\n",
        encoding="utf-8",
    )
    return str(task)


def test_scores_are_those_of_the_engine_here(quiz: str, tmp_path: Path, children: list[ChildProcess]) -> None:
    """Isolation changes no score, and the process ends with the run."""
    here = evaluate(quiz, engine=FAKE, model="any", output=str(tmp_path / "here"))
    there = evaluate(quiz, engine=FAKE, model="any", isolate=True, output=str(tmp_path / "there"))
    assert there.results == here.results
    assert there.tokens == here.tokens
    assert len(children) == 1
    assert not children[0].is_alive()


def test_a_death_costs_no_answer(quiz: str, tmp_path: Path, children: list[ChildProcess]) -> None:
    """With restarts the run goes on; each answer that was there is kept."""
    expected = evaluate(quiz, engine=FAKE, model="any", output=str(tmp_path / "here")).results

    def kill(progress: Progress) -> None:
        if progress.done in (5, 20) and children[-1].is_alive():
            os.kill(children[-1].pid, signal.SIGKILL)

    found = evaluate(
        quiz,
        engine=FAKE,
        engine_args={"delay": 0.01},
        model="any",
        isolate=True,
        restarts=2,
        on_progress=kill,
        output=str(tmp_path / "there"),
    )
    assert found.results == expected
    assert len(children) == 3


def test_without_restarts_a_resumed_run_completes(quiz: str, tmp_path: Path, children: list[ChildProcess]) -> None:
    """The run stops with the cause; what was answered is in its journal."""
    expected = evaluate(quiz, engine=FAKE, model="any", output=str(tmp_path / "here")).results

    def kill(progress: Progress) -> None:
        if progress.done == 7:
            os.kill(children[-1].pid, signal.SIGSEGV)

    with pytest.raises(EngineDiedError, match="SIGSEGV"):
        evaluate(
            quiz,
            engine=FAKE,
            engine_args={"delay": 0.01},
            model="any",
            isolate=True,
            on_progress=kill,
            output=str(tmp_path / "there"),
        )
    assert resume(tmp_path / "there").results == expected


def test_what_the_engine_refuses_leaves_no_run(quiz: str, tmp_path: Path, children: list[ChildProcess]) -> None:
    """An option that the engine does not have is refused as it is without isolation."""
    with pytest.raises(ConfigError, match="no option 'speed'"):
        evaluate(quiz, engine=FAKE, engine_args={"speed": 1}, model="any", isolate=True, output=str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()
    assert not children[0].is_alive()
