"""Which ports a server listens on: the kernel's word, so that it may choose one itself."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENING = "0A"


def can_be_told() -> bool:
    """Whether this system says which process listens where."""
    return any(table.is_file() for table in TABLES)


def listening(pids: Iterable[int]) -> set[int]:
    """The TCP ports on which these processes listen."""
    inodes = set().union(*(_sockets(pid) for pid in pids))
    found = set()
    for table in TABLES:
        with suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[9] in inodes:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                    found.add(match[1])
    return found


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """A port that is free now; another process may be quicker to take it."""
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        return int(chosen.getsockname()[1])
