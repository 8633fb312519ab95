"""A server that is started is known to be ready and to be ours, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import ConfigError, EngineDiedError, PluginError, ServerStartError
from evalkit.servers import flags, guard, ports, wire
from evalkit.servers.interpreter import Interpreter, find_interpreter
from evalkit.servers.process import ServerCommand, ServerProcess
from evalkit.testing.waiting import eventually

SOURCES = os.pathsep.join(path for path in sys.path if Path(path, "evalkit").is_dir())
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go where the test can see them."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a process of its own behind."""
    before = guard.descendants(os.getpid())
    yield
    assert guard.descendants(os.getpid()) - before == set()


def start(*words: str, port: int = 0, chooses_port: bool = True, python: str = sys.executable) -> ServerProcess:
    def build(name: str, port: int) -> ServerCommand:
        own = ("-m", "evalkit.testing.server", "--served-model-name", name, "--port", str(port))
        return ServerCommand((*own, *words), {"PYTHONPATH": SOURCES})

    return ServerProcess("fake", Interpreter(python), build, port=port, chooses_port=chooses_port)


def ready(*words: str, chooses_port: bool = True) -> ServerProcess:
    server = start(*words, chooses_port=chooses_port)
    server.wait_ready(PATIENCE)
    return server


def wait_until_gone(pids: set[int]) -> None:
    eventually(lambda: not any(_is_running(pid) for pid in pids))


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.parametrize("chooses_port", [True, False])
def test_a_ready_server_is_our_own_and_answers(chooses_port: bool) -> None:
    """Its port is known, it lists the name that only we know, and it completes; stopping it frees the port."""
    server = ready(chooses_port=chooses_port)
    assert wire.models(server.port, 5) == [server.served_name]
    assert server.answers()
    assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
    server.stop()
    server.stop()
    assert not server.is_alive()
    assert not ports.is_taken(server.port)


def test_stopping_ends_what_left_the_group() -> None:
    """Workers of a server end with it, also those in sessions of their own."""
    server = ready("--workers", "2")
    started = guard.descendants(server.pid)
    assert len(started) == 3
    server.stop()
    wait_until_gone(started)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_is_explained_and_leaves_no_worker(number: signal.Signals) -> None:
    """A server that is ended by a signal is known by that signal; its workers are ended."""
    server = ready("--workers", "1")
    started = guard.descendants(server.pid)
    os.kill(_server_itself(server), number)
    assert f"{number.name} ended it (" in server.epitaph()
    assert "serving any" in server.epitaph()
    assert not server.answers()
    wait_until_gone(started)


def _server_itself(server: ServerProcess) -> int:
    return next(int(line.split()[-1]) for line in server.tail() if line.startswith("serving"))


def test_killing_leaves_no_worker() -> None:
    """By force, nothing stays either."""
    server = ready("--workers", "1")
    started = guard.descendants(server.pid)
    server.kill()
    wait_until_gone(started)


def test_a_guard_that_is_killed_takes_its_server_along() -> None:
    """The server does not outlive the process that watches it."""
    server = ready()
    started = guard.descendants(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    wait_until_gone(started)
    server.stop()


def test_a_parent_that_dies_takes_its_server_along(tmp_path: Path) -> None:
    """No server is left when the process of the run is killed, nor a worker of it."""
    script = (
        "import sys, time\n"
        "from evalkit.servers import guard\n"
        "from evalkit.servers.interpreter import Interpreter\n"
        "from evalkit.servers.process import ServerCommand, ServerProcess\n"
        "words = ('-m', 'evalkit.testing.server', '--workers', '1', '--served-model-name')\n"
        f"build = lambda name, port: ServerCommand((*words, name), {{'PYTHONPATH': {SOURCES!r}}})\n"
        "server = ServerProcess('fake', Interpreter(sys.executable), build)\n"
        f"server.wait_ready({PATIENCE})\n"
        "print(server.pid, *guard.descendants(server.pid), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        started = {int(word) for word in parent.stdout.readline().split()}
        assert len(started) == 3
        parent.kill()
    wait_until_gone(started)


# ── starts that fail ────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_that_dies_at_start_is_quoted() -> None:
    """The error holds the status, its last lines and the log."""
    with pytest.raises(EngineDiedError, match=r"'fake' ended before it was ready: .*status 1.*no kernel image.*\.log"):
        start("--trouble", "dies").wait_ready(PATIENCE)


@pytest.mark.parametrize("trouble", ["never-ready", "another-name"])
def test_a_server_that_does_not_get_ready_is_ended(trouble: str) -> None:
    """After its time it is ended, and the error says how to allow more."""
    with pytest.raises(ServerStartError, match=r"not ready after 3 seconds .* allow more with start_timeout"):
        start("--trouble", trouble).wait_ready(3)


def test_a_server_that_completes_nothing_is_not_waited_for() -> None:
    """What it says is in the error."""
    with pytest.raises(ServerStartError, match=r"refuses to complete a text \(404: .*Not Found"):
        start("--trouble", "refuses").wait_ready(PATIENCE)


def test_a_taken_port_is_found_before_the_start() -> None:
    """The error says whose it is and what to do."""
    stranger = ready()
    with pytest.raises(ConfigError, match=f"port {stranger.port} is taken by another server, which offers evalkit-"):
        start(port=stranger.port)
    stranger.stop()


def test_a_stranger_that_takes_the_port_meanwhile_is_found_out() -> None:
    """A server on the port that is not ours is never asked anything else."""
    ours = start("--trouble", "never-ready", port=ports.free_port())
    other = start("--port", str(ours.port))
    with pytest.raises(ServerStartError, match=f"port {ours.port} is taken by another server"):
        ours.wait_ready(PATIENCE)
    other.stop()


def test_a_program_that_is_not_there_is_named() -> None:
    """The log says what could not be started."""
    with pytest.raises(EngineDiedError, match=r"status 127.*/no/such/python cannot be started"):
        start(python="/no/such/python").wait_ready(PATIENCE)


def test_a_server_that_hangs_is_found_out_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is alive and does not answer counts as dead, and is ended by force."""
    monkeypatch.setattr("evalkit.servers.process.PROBE_SECONDS", 0.5)
    monkeypatch.setattr(ServerProcess, "dying_seconds", 0.5)
    monkeypatch.setattr("evalkit.servers.process.PATIENCE", 1.0)
    server = ready()
    os.kill(_server_itself(server), signal.SIGSTOP)
    assert not server.answers()
    assert server.epitaph().startswith("it does not answer")
    started = guard.descendants(server.pid)
    server.stop()
    wait_until_gone(started)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_length": 8, "--dtype": "auto"}, ["--max-length", "8", "--dtype", "auto"]),
        ({"eager": True, "prefix_caching": False, "quantization": None}, ["--eager", "--no-prefix-caching"]),
        ({"rope": {"factor": 2}, "modules": ["a", "b"]}, ["--rope", '{"factor": 2}', "--modules", "a", "b"]),
    ],
)
def test_options_become_words(values: dict[str, Any], words: list[str]) -> None:
    """As the command lines of such servers want them."""
    assert flags(values) == words


# ── the Python of a server ──────────────────────────────────────────────────────────────────────────────────
def test_this_python_is_taken_where_it_has_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of it says which packages there are."""
    monkeypatch.delenv("EVALKIT_FAKE_PYTHON", raising=False)
    found = find_interpreter("fake", "pydantic")
    assert found.python == sys.executable
    assert found.about["library"].startswith("pydantic 2.")
    assert set(found.about) == {"python", "library", "packages"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "which is not there"),
        ("#!/bin/sh\necho 'not I'\n", "is no working Python.*not I"),
        (f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "has no pydantic. Install it there"),
    ],
)
def test_a_wrong_python_is_refused(
    content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable, the program and what is wrong with it, before anything is started."""
    program = tmp_path / "python"
    if content is not None:
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("EVALKIT_FAKE_PYTHON", str(program))
    with pytest.raises(PluginError, match=rf"EVALKIT_FAKE_PYTHON.*{program}.*{words}"):
        find_interpreter("fake", "pydantic")


def test_without_the_library_an_environment_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the command."""
    monkeypatch.delenv("EVALKIT_NOSUCH_PYTHON", raising=False)
    monkeypatch.setenv("EVALKIT_ENVS", str(tmp_path))
    with pytest.raises(PluginError, match=r"needs no_such_library\. Make .* evalkit env create nosuch"):
        find_interpreter("nosuch", "no_such_library")
