"""Checkpoints: what is complete, and what is still being written."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import threading
import time
import zipfile
from pathlib import Path

import pytest

from evalkit.testing.waiting import eventually
from evalkit_http.service.checkpoints import Watch, missing

LONG_AGO = 1_600_000_000
JOB = "job"


def reason(watch: Watch, path: Path, job: str = JOB) -> str | None:
    """What a look at a job's checkpoint tells."""
    return asyncio.run(watch.reason(job, path))


def tensors(path: Path, *, cut: int = 0, size: int = 64) -> Path:
    """A safetensors file with one tensor, `cut` bytes short."""
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}})
    whole = struct.pack("<Q", len(header)) + header.encode() + bytes(size)
    path.write_bytes(whole[: len(whole) - cut])
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-5"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tensors(folder / "model.safetensors")
    return folder


def test_a_whole_checkpoint_lacks_nothing(checkpoint: Path) -> None:
    """Configuration and weights are there, and the weights are as long as their header says."""
    assert missing(checkpoint) is None


@pytest.mark.parametrize("cut", [1, 64, 100, 10_000])
def test_weights_that_are_cut_anywhere_are_seen(checkpoint: Path, cut: int) -> None:
    """A safetensors file without its last bytes, its data, or its header is not complete."""
    tensors(checkpoint / "model.safetensors", cut=cut)
    assert missing(checkpoint) == "model.safetensors is not complete"


def test_every_shard_of_the_index_must_be_there(checkpoint: Path) -> None:
    """The index names all shards; an index that is cut is not complete itself."""
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "second.safetensors"}}))
    assert missing(checkpoint) == "second.safetensors is missing"
    tensors(checkpoint / "second.safetensors")
    assert missing(checkpoint) is None
    index.write_text('{"weight_map": {"a": "mod')
    assert missing(checkpoint) == "model.safetensors.index.json is not complete"


@pytest.mark.parametrize("name", ["model.safetensors.tmp", "tmp-5/x", "a.incomplete", ".tmp_save"])
def test_temporary_files_mean_that_somebody_writes(checkpoint: Path, name: str) -> None:
    """Files that only a writer leaves for a while are waited for."""
    file = checkpoint / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert "still being written" in str(missing(checkpoint))


@pytest.mark.parametrize(
    ("gone", "says"), [("config.json", "config.json is missing"), ("model.safetensors", "there are no weights yet")]
)
def test_parts_that_every_checkpoint_has(checkpoint: Path, gone: str, says: str) -> None:
    """Neither configuration nor weights can be missing."""
    (checkpoint / gone).unlink()
    assert missing(checkpoint) == says


def test_single_files_and_older_formats(tmp_path: Path) -> None:
    """GGUF files have their magic, torch's zip files their end."""
    gguf, torch = tmp_path / "m.gguf", tmp_path / "m.bin"
    gguf.write_bytes(b"")
    assert missing(gguf) == "m.gguf is not complete"
    gguf.write_bytes(b"GGUF" + bytes(8))
    assert missing(gguf) is None
    with zipfile.ZipFile(torch, "w") as made:
        made.writestr("data.pkl", bytes(100))
    assert missing(torch) is None
    torch.write_bytes(torch.read_bytes()[:-5])
    assert missing(torch) == "m.bin is not complete"
    assert missing(tmp_path / "never") == "never does not exist yet"


def test_a_checkpoint_must_rest(checkpoint: Path) -> None:
    """What was written a moment ago may be written on; after the settling time it is ready."""
    watch = Watch(settle=0.2)
    assert "changed less than 0.2 s ago" in str(reason(watch, checkpoint))
    time.sleep(0.25)
    assert reason(watch, checkpoint) is None


def test_times_that_a_copy_sets_back_do_not_deceive(checkpoint: Path) -> None:
    """A file that is given an old time is as young as the moment it was given it."""
    for file in checkpoint.iterdir():
        os.utime(file, (LONG_AGO, LONG_AGO))
    assert reason(Watch(settle=60), checkpoint) is not None


def test_a_clock_that_goes_ahead_does_not_stop_it(checkpoint: Path) -> None:
    """Files from the future, as a file server's clock makes them, are ready once they do not change between looks."""
    later = time.time() + 10_000
    for file in (*checkpoint.iterdir(), checkpoint):
        os.utime(file, (later, later))
    watch = Watch(settle=0.1)
    assert reason(watch, checkpoint) is not None
    time.sleep(0.15)
    assert reason(watch, checkpoint) is None


def test_growing_files_start_the_wait_again(checkpoint: Path) -> None:
    """As long as some file grows, the checkpoint is not ready."""
    watch = Watch(settle=0.3)
    for _ in range(4):
        with (checkpoint / "optimizer.log").open("a") as file:
            file.write("x")
        assert reason(watch, checkpoint) is not None
        time.sleep(0.1)
    assert watch.waited(JOB) >= 0.3


def test_each_job_waits_from_its_own_first_look(tmp_path: Path) -> None:
    """A job does not inherit how long another one, which was cancelled since, waited for the same checkpoint."""
    watch = Watch(settle=0)
    reason(watch, tmp_path / "never", "first")
    time.sleep(0.1)
    reason(watch, tmp_path / "never", "second")
    assert watch.waited("first") >= 0.1 > watch.waited("second")
    watch.forget("first")
    assert ("first" in watch, "second" in watch) == (False, True)
    assert watch.waited("first") == 0


def test_a_look_that_hangs_is_not_waited_for(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not answer is told as such, at once the second time, and its answer counts when it comes."""
    answer = threading.Event()
    monkeypatch.setattr("evalkit_http.service.checkpoints.missing", lambda path: answer.wait(60) and None)
    watch = Watch(settle=0, patience=0.2)
    assert "does not answer" in str(reason(watch, checkpoint))
    started = time.monotonic()
    assert "does not answer" in str(reason(watch, checkpoint))
    assert time.monotonic() - started < 0.2
    answer.set()
    eventually(lambda: reason(watch, checkpoint) is None)
