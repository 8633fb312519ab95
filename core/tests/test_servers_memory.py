"""After a server's end, memory of accelerators is waited for, and not for ever."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from evalkit.servers import memory


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `nvidia-smi` that says what this file holds."""
    said = tmp_path / "said"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {said}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    said.write_text("12\n4000\n", encoding="utf-8")
    return said


def test_memory_that_comes_back_is_waited_for(gpus: Path) -> None:
    """The wait ends once every GPU is back where it was, but for what others may use."""
    before = memory.used()
    assert before == [12, 4000]
    gpus.write_text("80000\n4100\n", encoding="utf-8")
    back = threading.Timer(0.5, lambda: gpus.write_text("100\n4100\n", encoding="utf-8"))
    back.start()
    assert memory.wait_until_back(before)
    back.join()
    assert memory.used() == [100, 4100]


def test_the_wait_has_an_end(gpus: Path) -> None:
    """What somebody else took meanwhile is not waited for long."""
    gpus.write_text("80000\n4000\n", encoding="utf-8")
    started = time.monotonic()
    assert not memory.wait_until_back([12, 4000], seconds=0.3)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("said", ["[N/A]\n", "Failed to initialize NVML\n", ""])
def test_a_tool_that_does_not_tell_is_no_accelerator(gpus: Path, said: str) -> None:
    """Nothing is waited for."""
    gpus.write_text(said, encoding="utf-8")
    assert memory.used() == []
    assert memory.wait_until_back([])
