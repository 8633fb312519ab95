"""How much memory of accelerators is in use, to see that a server that ended has given its share back."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress

SLACK = 512
"""MiB by which others may grow meanwhile."""
SECONDS = 30.0
STEP = 0.25
QUERY = ("--query-gpu=memory.used", "--format=csv,noheader,nounits")


def used() -> list[int]:
    """MiB in use on each NVIDIA GPU; empty where there is none. A process's own memory is free once it has ended."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run([tool, *QUERY], capture_output=True, text=True, timeout=20, check=True)
        return [int(line) for line in done.stdout.splitlines() if line.strip()]
    return []


def wait_until_back(before: list[int], seconds: float = SECONDS) -> bool:
    """Wait until no GPU has more in use than before, for so many seconds; whether that is so."""
    deadline = time.monotonic() + seconds
    while any(now > then + SLACK for now, then in zip(used() if before else [], before, strict=False)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(STEP)
    return True
