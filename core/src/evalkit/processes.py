"""A program in a process group of its own: what it prints is kept, it can be ended, and its death is explained."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from evalkit.cache import cache_dir
from evalkit.errors import PluginError

TAIL_LINES = 15
TAIL_BYTES = 1 << 14
KEPT_LOGS = 20
PATIENCE = 10.0
"""Seconds that a process has to end by itself."""
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
CAUSES = {
    signal.SIGILL: "a library was built for another processor",
    signal.SIGSEGV: "a fault in native code, often libraries that do not fit together",
    signal.SIGBUS: "shared memory or a disk is full, or a file of weights is cut",
    signal.SIGABRT: "a library gave up",
    signal.SIGKILL: "somebody ended it, or the system did for want of memory",
    signal.SIGTERM: "somebody ended it",
}


class LoggedProcess:
    """`words` as a process whose output goes to a log file; `name` is how the file's name begins.

    Raises PluginError where it cannot be started.
    """

    dying_seconds: ClassVar[float] = PATIENCE
    """How long one that fails is given to end, so that its end can be told."""

    def __init__(
        self, words: Sequence[str], name: str, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        self.log = _log_file(name)
        self._killed_before = _out_of_memory_kills()
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    list(words),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=pass_fds,
                    env=dict(environment),
                    start_new_session=True,
                )
        except OSError as error:
            self.forget_log()
            raise PluginError(f"{words[0]} cannot be started ({error.strerror}). Check that it is a program") from error

    @property
    def pid(self) -> int:
        """Its number; also that of its process group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_alive()

    def kill(self) -> None:
        """End it and all that it started at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def forget_log(self) -> None:
        """Remove the log of a process that ended as it should."""
        self.log.unlink(missing_ok=True)

    def epitaph(self) -> str:
        """How it ended, the likely cause, and its last lines."""
        self.wait(self.dying_seconds)
        return f"{self._ending()}{self.last_words()}"

    def last_words(self) -> str:
        """Its last lines and where the log is, as the end of a message."""
        said = self.tail()
        last = f"; its last lines: {' | '.join(said)}" if said else ""
        return f"{last}. The whole log: {self.log}"

    def _ending(self) -> str:
        code = self._process.returncode
        if code is None:
            return "it does not answer"
        if code >= 0:
            return f"it ended with status {code}"
        cause = CAUSES.get(signal.Signals(-code), "no common cause")
        if -code == signal.SIGKILL and _out_of_memory_kills() > self._killed_before:
            cause = "the system ended it for want of memory"
        return f"{signal.Signals(-code).name} ended it ({cause})"

    def tail(self) -> list[str]:
        """The last lines of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()][-TAIL_LINES:]


def inherited() -> dict[str, str]:
    """This process's environment without what belongs to its own Python."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


def _log_file(name: str) -> Path:
    folder = cache_dir() / "logs"
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=folder)
    os.close(handle)
    return Path(path)


def _out_of_memory_kills() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = MEMORY_EVENTS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
