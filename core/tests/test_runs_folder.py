"""A run folder has one writer, appears whole or not at all, and its files are never half written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evalkit.errors import DiskFullError, RunError, RunLockedError, RunNotFoundError
from evalkit.runs.folder import (
    MANIFEST,
    RunFolder,
    default_path,
    disk_errors,
    find_run,
    list_runs,
    runs_root,
)

if TYPE_CHECKING:
    from conftest import Holding


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A new run folder, locked."""
    made = RunFolder.create(tmp_path / "run", {"status": "running"})
    yield made
    made.release()


# ── creating ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_new_folder_holds_its_manifest(folder: RunFolder) -> None:
    """run.json says what was asked, in a format of known number."""
    assert json.loads((folder.path / MANIFEST).read_text()) == {"format": 1, "status": "running"}
    assert folder.manifest()["status"] == "running"
    assert folder.locked


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    """`--output` may name a folder that is there already, and any number of missing ones above it."""
    (tmp_path / "made").mkdir()
    RunFolder.create(tmp_path / "made", {}).release()
    RunFolder.create(tmp_path / "a" / "b" / "c", {}).release()
    assert [run.name for run in list_runs(tmp_path)] == ["made", "c"]


def test_an_existing_run_is_not_overwritten(folder: RunFolder) -> None:
    """The error names the command that completes it."""
    folder.release()
    with pytest.raises(RunError, match=r"already holds a run. Complete it with: evalkit resume .*run, or choose"):
        RunFolder.create(folder.path, {})
    assert folder.manifest()["status"] == "running"


@pytest.mark.parametrize("is_file", [True, False])
def test_other_things_are_not_overwritten(tmp_path: Path, is_file: bool) -> None:
    """A file, or a folder with anything in it, is refused and left alone."""
    target = tmp_path / "target"
    if is_file:
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty. Choose another --output"):
        RunFolder.create(target, {})
    assert (target if is_file else target / "mine.txt").read_text() == "mine"


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that would not have room for its first answers leaves no folder."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(DiskFullError, match=r"less than 32 MiB free"):
        RunFolder.create(tmp_path / "a" / "run", {})
    assert list(tmp_path.iterdir()) == []


def test_removing_leaves_nothing(folder: RunFolder) -> None:
    """A run that failed before its first answer disappears, open files included."""
    folder.append_line("samples.jsonl", "{}")
    folder.remove()
    assert not folder.path.exists()


# ── one writer ──────────────────────────────────────────────────────────────────────────────────────────────
def _locked(folder: RunFolder) -> bool:
    return folder.locked


def test_a_second_process_is_refused(tmp_path: Path, held_elsewhere: Holding) -> None:
    """While another process writes, nobody else does; once it is killed, its lock is gone."""
    folder = RunFolder.create(tmp_path / "run", {})
    folder.release()
    with held_elsewhere(folder.path) as process:
        assert _locked(folder)
        with pytest.raises(RunLockedError, match=r"another process is writing to .*run. Wait for it, or stop it first"):
            folder.lock()
        process.kill()
        process.wait()
        assert not _locked(folder)
        folder.lock()
    folder.release()


def test_looking_at_a_lock_does_not_take_it(folder: RunFolder) -> None:
    """`evalkit runs` beside a running evaluation sees it and lets it go on."""
    folder.release()
    watcher = RunFolder.open(folder.path)
    assert not _locked(watcher)
    folder.lock()
    assert _locked(watcher)
    assert _locked(folder)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_manifest_fields_are_replaced(folder: RunFolder) -> None:
    """Only the given fields change."""
    folder.update_manifest(status="finished", more=[1])
    assert folder.manifest() == {"format": 1, "status": "finished", "more": [1]}


def test_lines_appear_when_they_are_committed(folder: RunFolder) -> None:
    """A sample file is there whole or not at all; texts are written as they are."""
    folder.append_line("samples.jsonl", '{"text": "naïve\u2028"}')
    folder.append_line("samples.jsonl", "{}")
    assert not (folder.path / "samples.jsonl").exists()
    folder.commit()
    assert (folder.path / "samples.jsonl").read_bytes().decode() == '{"text": "naïve\u2028"}\n{}\n'
    assert not list(folder.path.glob("*.part"))


def test_a_later_attempt_starts_its_files_anew(folder: RunFolder) -> None:
    """Lines of an attempt that was stopped do not stand before those of the next one."""
    folder.append_line("samples.jsonl", "old")
    folder.release()
    folder.lock()
    folder.append_line("samples.jsonl", "new")
    folder.commit()
    assert (folder.path / "samples.jsonl").read_text() == "new\n"


def test_half_a_surrogate_pair_can_be_written(folder: RunFolder) -> None:
    """A text that is no valid Unicode is escaped as JSON does it, and read back equal."""
    doc = {"text": "half \ud83d of it"}
    folder.write_json("a.json", doc)
    folder.append_line("b.jsonl", json.dumps(doc, ensure_ascii=False))
    folder.commit()
    assert folder.read_json("a.json") == doc
    assert json.loads((folder.path / "b.jsonl").read_text(encoding="utf-8")) == doc


def test_a_write_that_fails_keeps_the_old_file(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while run.json is written leaves the one before, and says how to go on."""

    def full(self: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(DiskFullError, match=r"Everything journaled is safe: free some space, then: evalkit resume"):
            folder.update_manifest(status="finished")
    assert folder.manifest()["status"] == "running"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EROFS, RunError), (errno.EACCES, RunError)],
)
def test_errors_of_the_disk_are_told_apart(number: int, kind: type[RunError]) -> None:
    """Full is one thing, read-only another."""
    with pytest.raises(RunError) as caught, disk_errors(Path("run")):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


@pytest.mark.parametrize("content", ["", "{", '{"format": 1', "\x00" * 10])
def test_a_damaged_manifest_is_a_run_error(folder: RunFolder, content: str) -> None:
    """No traceback, and the file's name."""
    (folder.path / MANIFEST).write_text(content)
    with pytest.raises(RunError, match=r"run\.json is damaged .* Start the run again"):
        folder.manifest()


@pytest.mark.parametrize("content", ['{"format": 2}', "{}", "[1]", "null"])
def test_a_manifest_of_another_format_is_refused(folder: RunFolder, content: str) -> None:
    """A run of a newer evalkit, or a run.json of something else, is not misread."""
    (folder.path / MANIFEST).write_text(content)
    with pytest.raises(RunError, match=r"has format .*, this evalkit reads 1|is damaged"):
        folder.manifest()


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_default_names_are_never_taken(tmp_path: Path) -> None:
    """Two runs of the same second get folders of their own; the label becomes a safe file name."""
    first = default_path("arc_easy-../../x y", tmp_path)
    assert first.parent == tmp_path
    assert first.name.endswith("-arc_easy-..-..-x-y")
    names = set()
    for _ in range(3):
        path = default_path("task", tmp_path)
        path.mkdir()
        names.add(path.name)
    assert len(names) == 3


def test_long_labels_are_cut(tmp_path: Path) -> None:
    """A hundred tasks do not make a name that no file system takes."""
    default_path("task-" * 100, tmp_path).mkdir()


def test_runs_are_found_by_path_name_or_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a name below EVALKIT_RUNS_DIR, or the newest."""
    monkeypatch.setenv("EVALKIT_RUNS_DIR", str(tmp_path / "runs"))
    with pytest.raises(RunNotFoundError, match=r"Start one with: evalkit run TASK"):
        find_run("latest")
    for name in ("b", "a"):
        RunFolder.create(tmp_path / "runs" / name, {}).release()
    outside = RunFolder.create(tmp_path / "outside", {})
    outside.release()
    assert find_run("b") == tmp_path / "runs" / "b"
    assert find_run(str(outside.path)) == outside.path
    assert find_run("latest") in list_runs(runs_root())
    for path in (find_run, lambda name: RunFolder.open(Path(name))):
        with pytest.raises(RunNotFoundError, match=r"See: evalkit runs"):
            path("missing")


def test_the_latest_run_is_the_one_written_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are listed oldest first."""
    monkeypatch.setenv("EVALKIT_RUNS_DIR", str(tmp_path))
    for name in ("z", "a"):
        folder = RunFolder.create(tmp_path / name, {})
        stamp = (tmp_path / name / MANIFEST).stat().st_ctime_ns
        while (tmp_path / name / MANIFEST).stat().st_ctime_ns == stamp:
            folder.update_manifest(again=True)
        folder.release()
    assert [path.name for path in list_runs(tmp_path)] == ["z", "a"]
    assert find_run("latest").name == "a"
