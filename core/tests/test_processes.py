"""A process that is started leaves what it printed, and words for how it ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from evalkit.errors import PluginError
from evalkit.processes import LoggedProcess
from evalkit.testing.waiting import eventually


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go where the test can see them."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))


def started(program: str) -> LoggedProcess:
    return LoggedProcess([sys.executable, "-c", program], "test", os.environ)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('almost'); raise SystemExit(3)", "it ended with status 3; its last lines: almost. The whole log: "),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV ended it (a fault in native code"),
    ],
)
def test_an_end_is_explained(program: str, words: str) -> None:
    """The status or the signal with its likely cause, the last lines and the log."""
    assert words in started(program).epitaph()


def test_the_tail_is_bounded() -> None:
    """A program that prints without end costs a few lines of an error."""
    process = started("print('x\\n' * 100_000)")
    assert process.wait(60)
    assert len(process.tail()) == 15


def test_kill_ends_what_it_started() -> None:
    """The whole group goes, not the first process alone."""
    process = started(
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
        "import time; time.sleep(60)"
    )
    while not process.tail():
        assert process.is_alive()
    process.kill()
    child = Path(f"/proc/{process.tail()[0]}/status")
    # Whoever adopts it may not have waited for it yet.
    eventually(lambda: not child.exists() or "\tZ" in child.read_text(encoding="utf-8"))
    assert process._process.returncode == -signal.SIGKILL


def test_what_is_no_program_is_one_line_and_leaves_no_log(tmp_path: Path) -> None:
    """The error names the program."""
    with pytest.raises(PluginError, match=r"/no/such/python cannot be started \(No such file or directory\)"):
        LoggedProcess(["/no/such/python"], "test", os.environ)
    assert list((tmp_path / "cache" / "logs").iterdir()) == []
