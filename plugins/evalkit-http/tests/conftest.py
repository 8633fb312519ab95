"""What the tests of the service share: servers on real sockets, in this process or in one that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from evalkit.plugins import get_plugins
from evalkit.testing.waiting import eventually
from evalkit_http.client import EvalClient
from evalkit_http.service.app import create_app
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.service import Service
from evalkit_http.sockets import address, bind

FAKE = {"model": "evalkit.testing.fake:Fake", "model_args": {"pretrained": "any"}}
QUICK = {**FAKE, "tasks": ["starter_questions"], "limit": 2}
WAIT = 120.0


def slow(seconds: float, **more: Any) -> dict[str, Any]:
    """A job that answers a document every `seconds`."""
    arguments = {"pretrained": "any", "delay": seconds}
    return {**FAKE, "model_args": arguments, "tasks": ["starter_arithmetic"], "limit": 40, **more}


@dataclass(slots=True)
class Running:
    """A server in a thread of this process."""

    url: str
    client: EvalClient
    service: Service
    stop: Callable[[], None]

    def run(self, **fields: Any) -> dict[str, Any]:
        """Submit a job and wait for its end."""
        return self.wait(self.client.evaluate(**fields)["job_id"])

    def wait(self, job: str) -> dict[str, Any]:
        """A job once it ended."""
        return self.client.wait_for_job(job, poll_interval=0.1, timeout=WAIT)

    def until(self, job: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """A job once something holds of it."""
        return eventually(lambda: info if holds(info := self.client.get_job(job)) else None)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see none of the user's own settings, and work in a folder of their own."""
    for name in [name for name in os.environ if name.startswith("EVALKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    get_plugins.cache_clear()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`serve(**settings)` starts a server; all are stopped at the end of the test."""
    started: list[Running] = []

    def start(**settings: Any) -> Running:
        given = {"state_dir": tmp_path / "state", "allow_references": True, "devices": ("cpu",), **settings}
        args = ServerArgs(free_port=True, **given)
        listener, service = bind(args.host, 0), Service(args)
        server = uvicorn.Server(uvicorn.Config(create_app(args, service), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(60)
            listener.close()
            running.client.close()

        running = Running(address(listener), EvalClient(address(listener)), service, stop)
        eventually(lambda: server.started or not thread.is_alive())
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()


@dataclass(slots=True)
class Killable:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Killable]]:
    """`spawn(*words)` runs `evalkit serve WORDS...` on a free port and the test's own folder."""
    started: list[Killable] = []

    def start(*words: str, port: int = 0) -> Killable:
        out = tmp_path / f"server-{len(started)}.txt"
        fixed = ("--port", str(port), "--state-dir", str(tmp_path / "state"), "--allow-references")
        with out.open("wb") as output:
            command = [sys.executable, "-m", "evalkit", "serve", *fixed, *words]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path)
        eventually(lambda: b"http://" in out.read_bytes() or process.poll() is not None)
        killable = Killable(process, out.read_text().partition(" at ")[2].partition(" ")[0])
        started.append(killable)
        return killable

    yield start
    for killable in started:
        with suppress(ProcessLookupError):
            killable.kill()
