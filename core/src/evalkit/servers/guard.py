"""Runs a server, and ends all that came of it when its owner says so or is gone: `guard.py FD SECONDS COMMAND...`.

FD is a pipe that nobody writes to: it closes when the owner closes it, or dies in whatever way. The server and what
it started then get TERM and, SECONDS later, KILL; also where they left the process group, or where the server died
first. The guard ends as the server ended. It is run by its path: it imports nothing of evalkit, and starts at once.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STEP = 0.05
ORPHAN_SECONDS = 2.0
PROC = Path("/proc")


def descendants(root: int, *, ended: bool = False) -> set[int]:
    """Numbers of all processes that came of `root`; if `ended`, also of those that nobody has waited for yet."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may itself hold spaces and parentheses.
            state, parent = (
                (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            )
            if ended or state not in "ZX":
                children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


class Guard:
    """A server and what came of it."""

    def __init__(self, owner: int, patience: float, command: list[str]) -> None:
        self.owner, self.patience = owner, patience
        self.status: int | None = None
        """How the server ended, once it has."""
        self.told = False
        """Whether this process was sent TERM."""
        self._woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._tell)
        # What loses its parent becomes this process's child, wherever it hides.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.server = self._start(command)

    def _tell(self, *_: object) -> None:
        self.told = True

    def _start(self, command: list[str]) -> int:
        guard = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.close(self.owner)
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guard:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]} cannot be started ({error.strerror})", file=sys.stderr, flush=True)
        finally:
            os._exit(127)

    def watch(self) -> None:
        """Return once the server has ended, the owner is gone, or this process was told to end."""
        while self.status is None and not self.told:
            ready, _, _ = select.select([self.owner, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 1024)
                self._reap()
            if self.owner in ready:
                return

    def end_all(self) -> None:
        """Ask all to end, then make them."""
        end(descendants(os.getpid()), signal.SIGTERM)
        # Without the server, what it started has nothing left to do.
        deadline = time.monotonic() + (self.patience if self.status is None else min(ORPHAN_SECONDS, self.patience))
        while self._left() and time.monotonic() < deadline:
            time.sleep(STEP)
        # Again and again: one of them may start another meanwhile.
        while left := self._left():
            end(left)
            time.sleep(STEP)

    def _left(self) -> set[int]:
        self._reap()
        return descendants(os.getpid(), ended=True)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.server:
                    self.status = found[1]


def _prctl(option: int, value: int) -> None:
    """Set an option of this process, where the system is Linux."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end(pids: set[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes, as far as they are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def main() -> None:
    """Guard the command that this process was given."""
    guard = Guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
    guard.watch()
    was_asked = guard.status is None
    guard.end_all()
    if was_asked or guard.status is None:
        sys.exit(0)
    if os.WIFSIGNALED(guard.status):
        _end_by(os.WTERMSIG(guard.status))
    sys.exit(os.waitstatus_to_exitcode(guard.status))


def _end_by(number: int) -> None:
    """End as the server did, so that who started this process learns of the signal; without a second core dump."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
