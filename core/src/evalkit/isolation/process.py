"""Start, watch and end the process of an isolated session, and say why it died."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from evalkit.cache import cache_dir
from evalkit.isolation.channel import Channel

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


class ChildProcess:
    """`evalkit.isolation.child` under another Python, in a process group of its own."""

    def __init__(self, python: str, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = _log_file(name)
        self._killed_before = _out_of_memory_kills()
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [python, "-u", "-m", "evalkit.isolation.child", str(to_child), str(from_child)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(to_child, from_child),
                env={**_inherited(), **(environment or {})},
                start_new_session=True,
            )
        os.close(to_child)
        os.close(from_child)
        self.channel = Channel(to_parent, from_parent)

    @property
    def pid(self) -> int:
        """Its number; also that of its process group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and all that it started: first by closing the pipe, then by force. May be called more than once."""
        self.channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()

    def forget_log(self) -> None:
        """Remove the log of a process that ended as it should."""
        self.log.unlink(missing_ok=True)

    def epitaph(self) -> str:
        """How it ended, the likely cause, and its last lines."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        said = self.tail()
        last = f"; its last lines: {' | '.join(said)}" if said else ""
        return f"{self._ending()}{last}. The whole log: {self.log}"

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


def _log_file(name: str) -> Path:
    folder = cache_dir() / "logs"
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=folder)
    os.close(handle)
    return Path(path)


def _inherited() -> dict[str, str]:
    """This process's environment without what belongs to its own Python."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


def _out_of_memory_kills() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = MEMORY_EVENTS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
