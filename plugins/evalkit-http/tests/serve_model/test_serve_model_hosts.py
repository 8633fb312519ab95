"""Several hosts: two real processes over gloo, of which the second does what the first does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch")

NOTED = """
import json, os
from dataclasses import dataclass
from evalkit.testing.fake import Fake, FakeSession

class NotedSession(FakeSession):
    def _note(self, *what):
        with open(os.path.join(os.environ["NOTES"], "rank" + os.environ["RANK"]), "a") as file:
            print(json.dumps(what), file=file)

    def loglikelihood_continuous(self, requests, *, batch_size=None):
        asked = list(requests)
        self._note("score", [request.continuation for _, request in asked])
        for key, output in super().loglikelihood_continuous(asked):
            self._note("scored", key, output.logprob)
            yield key, output

    def generate_continuous(self, requests, *, batch_size=None):
        for key, output in super().generate_continuous(requests):
            self._note("text", output.text)
            yield key, output

@dataclass(slots=True)
class Noted(Fake):
    def build(self, model):
        return NotedSession(self, model)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def two_hosts(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """Rank 0's url, and both processes."""
    (tmp_path / "noted_engine.py").write_text(NOTED, encoding="utf-8")
    shared = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "NOTES": str(tmp_path),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    words = ["serve-model", "--engine", "noted_engine:Noted", "--model", "any", "--port", "0", "--json"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "evalkit", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert processes[0].stdout is not None
        text = "".join(processes[0].stdout.readline() for _ in range(5))
        assert text, processes[0].communicate()[1]
        yield json.loads(text)["url"], processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def notes(tmp_path: Path, rank: int) -> list[list[object]]:
    return [json.loads(line) for line in (tmp_path / f"rank{rank}").read_text(encoding="utf-8").splitlines()]


def test_the_second_host_does_what_the_first_does(tmp_path: Path) -> None:
    """Every call in the same order with the same results, sampled texts too; the end of one is the end of both."""
    with two_hosts(tmp_path) as (url, processes):
        with httpx.Client(base_url=url, timeout=60) as client:
            pairs = {"requests": [{"context": "a", "continuation": f" {word}"} for word in "bcd"]}
            assert client.post("/v1/eval/loglikelihood", json=pairs).status_code == 200
            for _ in range(3):
                sampled = client.post("/v1/completions", json={"prompt": ["x", "y"], "max_tokens": 5})
                assert sampled.status_code == 200
            scored = {"prompt": "abc", "logprobs": 1, "echo": True, "max_tokens": 1, "temperature": 0}
            assert client.post("/v1/completions", json=scored).status_code == 200
        processes[0].send_signal(signal.SIGTERM)
        processes[0].wait(30)
        _, errors = processes[1].communicate(timeout=30)
        assert processes[1].returncode == 0, errors
    assert notes(tmp_path, 0) == notes(tmp_path, 1)
    assert len([note for note in notes(tmp_path, 0) if note[0] == "text"]) == 7


def test_a_lost_host_ends_the_first(tmp_path: Path) -> None:
    """It says so in one line: without the others it cannot go on."""
    with two_hosts(tmp_path) as (url, processes):
        processes[1].kill()
        processes[1].wait()
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(3):
                try:
                    client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
                except httpx.TransportError:
                    break
        _, errors = processes[0].communicate(timeout=60)
        assert processes[0].returncode == 2
        assert "another host was lost" in errors.splitlines()[-1]
