"""Free memory is the least of what the machine and the container say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalkit import memory
from evalkit.errors import OutOfMemoryError


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_has_some_memory_left() -> None:
    """A plausible number of bytes."""
    found = memory.available_memory()
    assert found is not None
    assert 1 << 20 < found < 1 << 50


def test_the_machines_count_is_read(tmp_path: Path) -> None:
    """MemAvailable, in bytes; None where there is no such file."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     2048 kB\n", encoding="ascii")
    assert memory._machine(tmp_path / "meminfo") == 2048 * 1024
    assert memory._machine(tmp_path / "none") is None


def test_a_container_counts_what_its_files_take_as_free(tmp_path: Path) -> None:
    """The limit less what is used, and files in the cache can be given up; no limit is no answer."""
    assert memory._container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("700\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n", encoding="ascii")
    assert memory._container(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert memory._container(tmp_path) is None


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two answers the smaller one; of none, none."""
    for machine, container, expected in ((5, 3, 3), (5, None, 5), (None, None, None)):
        monkeypatch.setattr(memory, "_machine", lambda path, value=machine: value)
        monkeypatch.setattr(memory, "_container", lambda path, value=container: value)
        assert memory.available_memory() == expected


@pytest.mark.parametrize("words", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate", "std::bad_alloc"])
def test_a_failed_allocation_is_one_error(words: str) -> None:
    """Whatever a library says, and after it gave back what it keeps."""
    given = []
    with pytest.raises(OutOfMemoryError, match="on cuda:0"), memory.memory_errors("cuda:0", lambda: given.append(1)):
        raise RuntimeError(words)
    assert given == [1]
    with pytest.raises(OutOfMemoryError), memory.memory_errors("cpu"):
        raise MemoryError


def test_other_errors_stay_what_they_are() -> None:
    """A shape that does not fit has nothing to do with memory."""
    with pytest.raises(RuntimeError, match="shape"), memory.memory_errors("cpu", pytest.fail):
        raise RuntimeError("shape mismatch")
