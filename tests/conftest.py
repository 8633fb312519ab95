"""What the end-to-end tests share: the command line in a subprocess, and tasks and plugins made on the spot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Done, Evalkit, clean_environment


@pytest.fixture
def evalkit(tmp_path: Path) -> Evalkit:
    """Run `evalkit WORDS...` in an empty folder; the completed process."""

    def run(*words: object, **env: str) -> Done:
        command = [sys.executable, "-m", "evalkit", *map(str, words)]
        environment = clean_environment(**env)
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)

    return run


@pytest.fixture
def docs(tmp_path: Path) -> Callable[..., str]:
    """Write documents and a task over them; the task's `module:attribute`. Its folder goes on PYTHONPATH."""

    def make(*rows: dict[str, object], max_new_tokens: int = 8) -> str:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
        (tmp_path / "quiz.py").write_text(QUIZ.format(max_new_tokens=max_new_tokens), encoding="utf-8")
        return "quiz:QUIZ"

    return make


QUIZ = """
from pathlib import Path

from evalkit.tasks import DatasetSpec, Generate, MultipleChoice

ROWS = DatasetSpec("rows", files={{"test": str(Path(__file__).with_name("rows.jsonl"))}})
QUIZ = MultipleChoice(
    name="quiz",
    dataset=ROWS,
    test_split="test",
    prompt=lambda doc: doc["question"],
    choices=lambda doc: doc["choices"],
    gold=lambda doc: doc["answer"],
)
WRITE = Generate(
    name="write",
    dataset=ROWS,
    test_split="test",
    prompt=lambda doc: doc["question"],
    answer=lambda doc: str(doc["answer"]),
    max_new_tokens={max_new_tokens},
)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], Path]:
    """Make an installed plugin of a module's source; the folder to put on PYTHONPATH."""

    def make(name: str, source: str) -> Path:
        folder = tmp_path / "site"
        info = folder / f"{name}_dist-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[evalkit]\n{name} = {name}_plugin\n", encoding="utf-8")
        (folder / f"{name}_plugin.py").write_text(source, encoding="utf-8")
        return folder

    return make
