"""What every command says about a run that was hurt: one line and status 2, or it is repaired; nothing is lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import FAKE, Done, Evalkit, clean_environment

from evalkit.cli.main import main
from evalkit.runs.journal import count_answers

OLD = Path(__file__).parent / "data" / "old-run"
"""Made by an early version of evalkit, before run.json had hashes and results.json intervals."""
SAMPLES = "samples_starter_arithmetic.jsonl"
READERS = (
    ("show", "{run}"),
    ("compare", "{run}", "{run}"),
    ("export", "{run}", "out.csv"),
    ("export", "{run}", "out.json", "--task", "starter_arithmetic"),
    ("export", "{run}", "out.md"),
)


@pytest.fixture
def evalkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Evalkit:
    """The command line within this process: this page calls it a hundred times."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["evalkit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capfd.readouterr()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), output, errors)

    return call


@pytest.fixture
def run(evalkit: Evalkit, tmp_path: Path) -> Path:
    """A finished run."""
    done = evalkit("run", "starter_arithmetic", *FAKE, "--limit", 4, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the run of an early version."""
    return Path(shutil.copytree(OLD, tmp_path / "old-run"))


def _content(folder: Path) -> dict[str, bytes]:
    """Every file, but for what merely looking may touch."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.lock"}


def _one_line(done: Done, *words: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), (words, done.stdout, done.stderr)
    assert done.stderr.startswith("evalkit: "), (words, done.stderr)
    assert done.stderr.count("\n") == 1, (words, done.stderr)


def _lose(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def _cut(name: str, share: float) -> Callable[[Path], None]:
    def cut(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])

    return cut


def _write(name: str, text: str) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        (run / name).write_text(text, encoding="utf-8")

    return write


def _drop_last_line(run: Path) -> None:
    lines = (run / SAMPLES).read_bytes().splitlines(keepends=True)
    (run / SAMPLES).write_bytes(b"".join(lines[:-1]))


# ── files that are lost or damaged ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "hurt",
    [
        _lose(SAMPLES),
        _cut(SAMPLES, 0.7),
        _cut(SAMPLES, 0.0),
        _drop_last_line,
        _lose("results.json"),
        _cut("results.json", 0.5),
        _write("results.json", "{}"),
        _write("results.json", '{"results": 3}'),
    ],
    ids=["no samples", "cut", "empty", "a line less", "no results", "cut results", "empty results", "no scores"],
)
def test_what_scoring_wrote_is_made_again(evalkit: Evalkit, run: Path, hurt: Callable[[Path], None]) -> None:
    """Readers that need it say so in one line, with the command that makes it again: byte by byte as it was."""
    before = _content(run)
    hurt(run)
    hurt_content = _content(run)
    failed = 0
    for words in READERS:
        done = evalkit(*(word.format(run=run) for word in words))
        if done.returncode:
            _one_line(done, *words)
            assert f"evalkit resume {run}" in done.stderr
            failed += 1
        (run.parent / words[-1]).unlink(missing_ok=True)
    assert failed >= 2
    assert _content(run) == hurt_content
    done = evalkit("resume", run, "--json")
    assert done.returncode == 0, done.stderr
    after = _content(run)
    assert after[SAMPLES] == before[SAMPLES]
    assert json.loads(after["results.json"])["results"] == json.loads(before["results.json"])["results"]
    assert json.loads(after["results.json"])["tokens"] == json.loads(before["results.json"])["tokens"]


def test_a_changed_sample_file_is_made_again(evalkit: Evalkit, run: Path) -> None:
    """One flipped bit that leaves the size as it was."""
    before = (run / SAMPLES).read_bytes()
    (run / SAMPLES).write_bytes(before.replace(b"ribbons", b"ribbonz", 1))
    assert evalkit("resume", run).returncode == 0
    assert (run / SAMPLES).read_bytes() == before


@pytest.mark.parametrize(
    "hurt",
    [
        _write("run.json", ""),
        _cut("run.json", 0.5),
        _write("run.json", "[]"),
        _write("run.json", '{"format": 1, "spec": 3}'),
        _write("run.json", '{"format": 1, "model": 3}'),
        _write("run.json", '{"format": 1}'),
        _write("run.json", '{"format": 1, "spec": {}, "model": {}, "status": "finished"}'),
    ],
)
def test_without_its_run_json_no_command_breaks(evalkit: Evalkit, run: Path, hurt: Callable[[Path], None]) -> None:
    """What cannot be known is said in one line; no file of the run is touched."""
    hurt(run)
    content = _content(run)
    for words in (*READERS, ("resume", "{run}"), ("rerun", "{run}", "--output", "again")):
        if words[0] == "resume" and b"finished" in content["run.json"]:
            continue  # nothing is missing that resume would need
        done = evalkit(*(word.format(run=run) for word in words))
        if done.returncode:
            _one_line(done, *words)
        (run.parent / words[-1]).unlink(missing_ok=True)
    assert _content(run) == content
    assert not (run.parent / "again").exists()


def test_a_damaged_run_does_not_hide_the_others(evalkit: Evalkit, run: Path) -> None:
    """`evalkit runs` lists it as damaged, says why, and lists the rest."""
    shutil.copytree(run, run.parent / "other")
    (run / "run.json").write_text("{")
    done = evalkit("runs", run.parent, "--json")
    assert done.returncode == 0
    assert {row["run"]: row["state"] for row in json.loads(done.stdout)} == {"run": "damaged", "other": "finished"}
    assert done.stderr.startswith(f"warning: {run / 'run.json'} is damaged")
    assert done.stderr.count("\n") == 1


# ── a run of an older version ───────────────────────────────────────────────────────────────────────────────
def test_an_old_run_can_be_read(evalkit: Evalkit, old: Path) -> None:
    """By every command that reads, and none of them changes it."""
    before = _content(old)
    scores = json.loads(before["results.json"])["results"]
    for words in READERS:
        done = evalkit(*(word.format(run=old) for word in words))
        assert (done.returncode, done.stderr) == (0, ""), words
    shown = json.loads(evalkit("show", old, "--json").stdout)
    assert shown["results"]["results"] == scores
    (row,) = json.loads(evalkit("runs", old.parent, "--json").stdout)
    assert (row["state"], row["answers"]) == ("finished", "10/10")
    assert _content(old) == before
    assert json.loads(evalkit("resume", old, "--json").stdout)["results"] == scores
    assert _content(old) == before


def test_an_old_run_is_scored_again_from_its_answers(evalkit: Evalkit, old: Path) -> None:
    """Its results are lost and one answer is missing: only that one is asked, and the scores are those of then."""
    before = json.loads((old / "results.json").read_text(encoding="utf-8"))
    (old / "results.json").unlink()
    with closing(sqlite3.connect(old / "journal.sqlite")) as db, db:
        db.execute("DELETE FROM outputs WHERE rowid = 3")
        kept = db.execute("SELECT key, output FROM outputs").fetchall()
    done = evalkit("resume", old, "--json")
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    assert json.loads(done.stdout)["results"] == before["results"]
    with closing(sqlite3.connect(old / "journal.sqlite")) as db:
        now = db.execute("SELECT key, output FROM outputs").fetchall()
    assert set(kept) < set(now)
    assert len(now) == len(kept) + 1


def test_an_old_run_is_run_again_and_compared(evalkit: Evalkit, old: Path) -> None:
    """The new run asks the same; the documents pair up, and nothing differs."""
    again = old.parent / "again"
    assert evalkit("rerun", old, "--output", again).returncode == 0
    rows = json.loads(evalkit("compare", old, again, "--json").stdout)
    assert {row["difference"] for row in rows["rows"]} == {0}


# ── no room ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_that_may_not_grow_loses_no_answer(evalkit: Evalkit, tmp_path: Path) -> None:
    """The system stops a file from growing: one line and status 2; with room again the run is completed."""
    resource = pytest.importorskip("resource", reason="limits of files are Unix's own")
    words = ("-m", "evalkit", "run", "starter_arithmetic", *FAKE, "--limit", "100", "--output", "small")
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    _one_line(done)
    before = count_answers(tmp_path / "small" / "journal.sqlite")
    assert 0 < before < 100
    resumed = evalkit("resume", "small")
    assert resumed.returncode == 0, resumed.stderr
    assert count_answers(tmp_path / "small" / "journal.sqlite") == 100
