"""The answer cache from the command line: runs share it, and its own commands look after it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import Done, Evalkit, clean_environment

WORDS = ("run", "starter_arithmetic", "--engine", "evalkit.testing.fake:Fake", "--model", "model", "--cache")


@pytest.fixture
def cached(evalkit: Evalkit, tmp_path: Path) -> Evalkit:
    """`evalkit` with a cache of its own and a model in ./model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    return partial(evalkit, EVALKIT_CACHE_DIR=str(tmp_path / "cache"))


def _json(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _failed(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_cache_is_used_looked_at_and_cleared(cached: Evalkit, tmp_path: Path) -> None:
    """One run fills it, the next asks nothing; then its commands, in words and in JSON."""
    first = _json(cached(*WORDS, "--limit", 5, "--json"))
    second = cached(*WORDS, "--limit", 8)
    assert "; 5 answers from the cache" in second.stdout
    info = _json(cached("cache", "info", "--json"))
    assert (info["answers"], info["path"]) == (8, str(tmp_path / "cache" / "answers.sqlite"))
    assert info["limit"] == 2 * 2**30
    assert "of 2,048 MiB" in cached("cache", "info").stdout
    assert _json(cached("cache", "verify", "--json")) == {"whole": 8, "damaged": 0}
    assert _json(cached("cache", "prune", "--unused-days", 1, "--json")) == {"deleted": 0}
    with closing(sqlite3.connect(info["path"])) as db, db:
        db.execute("UPDATE answers SET output = '' WHERE rowid = 1")
    verified = cached("cache", "verify")
    assert (verified.returncode, verified.stdout) == (1, "7 answers are whole, 1 were damaged and are deleted\n")
    again = _json(cached(*WORDS, "--limit", 5, "--json"))
    assert (again["results"], first["from_cache"], again["from_cache"]) == (first["results"], 0, 4)
    assert cached("cache", "prune", "--max-mb", 0).stdout == "8 answers deleted\n"
    assert _json(cached("cache", "clear", "--json")) == {"deleted": 0}


def test_bad_input_is_one_line(cached: Evalkit, tmp_path: Path) -> None:
    """A wrong limit, a model that nobody can tell apart, a file that is no cache: cause and next step."""
    assert "is a number of MiB" in _failed(cached("cache", "info", EVALKIT_ANSWER_CACHE_MB="much"))
    assert "is a number of MiB" in _failed(cached(*WORDS, EVALKIT_ANSWER_CACHE_MB="0"))
    words = ["any" if word == "model" else word for word in WORDS]
    assert "'any' answers: " in _failed(cached(*words, HF_HUB_OFFLINE="1"))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "cache" / "answers.sqlite").write_bytes(b"no database" * 1000)
    for command in ("info", "verify", "prune"):
        assert "Start anew with: evalkit cache clear" in _failed(cached("cache", command))
    assert cached("cache", "clear").stdout == "0 answers deleted\n"
    assert _json(cached("cache", "info", "--json"))["answers"] == 0
    (tmp_path / "file").write_text("")
    assert "Set EVALKIT_CACHE_DIR" in _failed(cached("cache", "info", EVALKIT_CACHE_DIR=str(tmp_path / "file")))


def test_a_newer_versions_file_is_left_alone(cached: Evalkit, tmp_path: Path) -> None:
    """No command reads, mends or clears it, and a run does without."""
    path = tmp_path / "cache" / "answers.sqlite"
    _json(cached(*WORDS, "--limit", 2, "--json"))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 9")
    before = path.read_bytes()
    for command in ("info", "clear"):
        assert "made by another version of evalkit). Upgrade evalkit" in _failed(cached("cache", command))
    done = cached(*WORDS, "--limit", 2, "--json")
    assert json.loads(done.stdout)["from_cache"] == 0
    assert done.stderr.startswith("warning: the answer cache is not used: it was made by another version")
    assert path.read_bytes() == before


def test_runs_at_the_same_time_share_it(cached: Evalkit, docs: Callable[..., str], tmp_path: Path) -> None:
    """Six runs that overlap give what each gives alone, and none of them warns."""
    task = docs(*({"question": f"{n}?", "choices": ["a", "b"], "answer": 0} for n in range(12)))
    words = ("run", task, "quiz:WRITE", *WORDS[2:], "--json")
    alone = _json(cached(*words[:-2], "--json", PYTHONPATH=_path(tmp_path)))
    environment = clean_environment(EVALKIT_CACHE_DIR=str(tmp_path / "cache"), PYTHONPATH=_path(tmp_path))
    command = [sys.executable, "-m", "evalkit", *words]
    runs = [
        subprocess.Popen(
            [*command, "--limit", str(6 + n), "--output", f"run-{n}"],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in range(6)
    ]
    for process in runs:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert json.loads(output)["errors"] == 0
    again = _json(cached(*words, PYTHONPATH=_path(tmp_path)))
    assert (again["results"], again["from_cache"]) == (alone["results"], 11 * 3)


def _path(tmp_path: Path) -> str:
    return os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
