"""A model's fingerprint changes with its files, and with nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.runs import environment
from evalkit.runs.environment import fingerprint


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with a file larger than twice what is read at each end."""
    monkeypatch.setattr(environment, "FINGERPRINT_BYTES", 64)
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.bin").write_bytes(bytes(range(256)))
    return folder


def _write(path: str, offset: int, data: bytes) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        content = bytearray((model / path).read_bytes())
        content[offset : offset + len(data)] = data
        (model / path).write_bytes(content)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _write("config.json", 1, b" "),
        _write("sub/weights.bin", 0, b"\xff"),
        _write("sub/weights.bin", 255, b"\x00"),
        _write("sub/weights.bin", 256, b"\x00"),
        lambda model: (model / "config.json").rename(model / "other.json"),
        lambda model: (model / "new.json").write_text(""),
        lambda model: (model / "config.json").unlink(),
    ],
)
def test_a_changed_model_has_another_fingerprint(model: Path, change: Callable[[Path], object]) -> None:
    """Contents at both ends, sizes and names count."""
    before = fingerprint(str(model))
    change(model)
    assert fingerprint(str(model)) != before


def test_a_copied_model_has_the_same_fingerprint(model: Path, tmp_path: Path) -> None:
    """Neither place nor time matters: a run can go on beside a copy of its model."""
    before = fingerprint(str(model))
    shutil.copytree(model, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "config.json", (0, 0))
    assert fingerprint(str(tmp_path / "copy")) == before
    assert before is not None


def test_a_file_has_a_fingerprint_and_a_hub_id_has_none(model: Path) -> None:
    """A single file is a model, too; what is not on this disk cannot be compared."""
    assert fingerprint(str(model / "config.json")) != fingerprint(str(model / "sub" / "weights.bin"))
    assert fingerprint("org/model") is None
