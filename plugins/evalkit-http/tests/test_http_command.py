"""`evalkit serve` and its module: errors in one line, and nothing heavy for who only looks."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from evalkit_http.sockets import bind

HEAVY = {"fastapi", "uvicorn", "httpx", "starlette", "prometheus_client", "sse_starlette", "psutil", "torch", "numpy"}


def run(*words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), "EVALKIT_TOKENS"),
        (("--max-completed-jobs", "0"), "max_completed_jobs"),
        (("--device", "cuda:0", "--device", "cuda:0"), "each once"),
        (("--state-dir", "/proc/nothing"), "--state-dir"),
        (("--token-file", "none.txt"), "none.txt"),
        (("--host", "203.0.113.7", "--allow-unauthenticated"), "cannot be bound"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_said_in_one_line(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """Exit status 2, one line, and no folder of jobs."""
    done = run("-m", "evalkit", "serve", "--port", "0", *words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The error names the address and the options."""
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        done = run("-m", "evalkit_http.launch_server", "--port", port, folder=tmp_path)
    assert done.returncode != 0
    assert f"127.0.0.1:{port} cannot be bound" in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_at_commands_loads_no_web_library(tmp_path: Path) -> None:
    """The plugin is imported by every command; a server's libraries load when one starts."""
    program = (
        "import sys, evalkit_http.plugin, evalkit_http.commands\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = run("-c", program, folder=tmp_path)
    assert not set(ast.literal_eval(done.stdout)) & HEAVY


def test_ctrl_c_ends_the_server_in_order(tmp_path: Path) -> None:
    """One line on stderr, and success: nothing was lost."""
    command = [sys.executable, "-m", "evalkit", "serve", "--port", "0"]
    pipe = subprocess.PIPE
    # What starts the tests in the background may have Ctrl-C ignored, which processes inherit.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, preexec_fn=heeded) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
        assert httpx.get(f"{url}/ready", timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "ended; the next server on this folder continues its jobs\n")
    assert (tmp_path / "runs" / "service" / "jobs.sqlite").is_file()
