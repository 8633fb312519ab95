"""A job's process: started in a group of its own, stopped as a group, and swept up after a crash of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from evalkit_http.security.tokens import without_tokens

WEBHOOK_SECRET = "EVALKIT_WEBHOOK_SECRET"
MARK = "EVALKIT_JOB_FOLDER"
"""In the environment of a job's process and of all that it starts: how they are found again."""
SWEEP_SECONDS = 30
SHUTDOWN_SIGNALS = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
SHUTDOWN_SECONDS = 3.0
# Without -P a file of the working folder, of a checkpoint, say, would be imported in place of a library.
PYTHON = (sys.executable, "-P", "-m")


def child_environment() -> dict[str, str]:
    """This process's environment without the secrets that only the server itself needs."""
    kept = without_tokens(os.environ)
    kept.pop(WEBHOOK_SECRET, None)
    return kept


async def start(words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> Process:
    """Start `evalkit WORDS...`; its output is appended to `log`.

    Call it in the thread that lives as long as the server: the child dies with the thread that started it.
    """
    command = (*PYTHON, "evalkit_http.service.child", str(os.getpid()), *words)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**child_environment(), **environment, MARK: str(folder.absolute())},
            start_new_session=True,
        )


async def follow(process: Process, stop: asyncio.Event, timeout: float | None) -> str:
    """Wait for what comes first: the process "ended", it is to "stop", or "timeout"."""
    ended, asked = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({ended, asked}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if ended in done and process.returncode in SHUTDOWN_SIGNALS:
        # Whoever stops a whole service may signal the job before the server: then the job is to be continued.
        await asyncio.wait({asked}, timeout=SHUTDOWN_SECONDS)
    asked.cancel()
    return "ended" if ended in done else "stop" if asked in done else "timeout"


async def stop(process: Process, seconds: float) -> None:
    """TERM to the whole group, then KILL to what is left of it after `seconds`."""
    _signal(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)
    # The leader may be gone while others of its group are not.
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def sweep(folder: Path) -> int:
    """Kill what processes of jobs below `folder` an earlier server left, and wait for their end; how many."""
    import psutil

    root = f"{folder.absolute()}{os.sep}"
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(root):
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=SWEEP_SECONDS)
    return len(found)
