"""The server's life: from Python, from the command line, while its model loads, and when that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import evalkit_http
from evalkit.errors import ConfigError, EvalkitError
from evalkit.testing.fake import Fake
from evalkit_http.openai.server import build_openai_compatible_server
from evalkit_http.security import SecuritySettings, Tokens

SLOW = """
import time
from dataclasses import dataclass
from evalkit.errors import ModelError
from evalkit.testing.fake import Fake

@dataclass(slots=True)
class Slow(Fake):
    def build(self, model):
        time.sleep(1.5)
        if model.path == "broken":
            raise ModelError("the file ends too early")
        return super(Slow, self).build(model)
"""


@contextmanager
def command(tmp_path: Path, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`evalkit serve-model WORDS...` in a process of its own, its engine slow to load."""
    (tmp_path / "slow_engine.py").write_text(SLOW, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", "evalkit", "serve-model", "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **env},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_from_python() -> None:
    """An engine that was made, or named; the url is known before the start; leaving frees the port."""
    server = evalkit_http.build_openai_compatible_server(Fake(max_length=64), "any", served_model_name="nonce-17")
    url = server.url
    with server:
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "nonce-17"
        assert httpx.get(f"{url}/ready").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    server.stop()


def test_a_model_that_cannot_be_loaded_is_the_caller_s_error(tmp_path: Path) -> None:
    """`start` raises what loading raises, and leaves no server behind; options are checked before."""
    server = build_openai_compatible_server("evalkit.testing.fake:Fake", "./no-such-model")
    url = server.url
    with pytest.raises(EvalkitError, match="does not exist"):
        server.start()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    with pytest.raises(ConfigError, match="no option 'dely'"):
        build_openai_compatible_server("evalkit.testing.fake:Fake", "any", engine_args={"dely": 1})


def test_a_taken_port_is_one_line() -> None:
    """Which port, and what to do."""
    server = build_openai_compatible_server(Fake(), "any")
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"{port} cannot be bound"):
        build_openai_compatible_server(Fake(), "any", port=port)
    server.stop()


def test_others_need_a_token() -> None:
    """Another address than loopback is refused without tokens; with them, a request without one is."""
    with pytest.raises(ConfigError, match="has no token"):
        build_openai_compatible_server(Fake(), "any", host="0.0.0.0")
    token = "a-token-of-many-characters"
    security = SecuritySettings(tokens=Tokens.parse([f"submit:{token}"], "test"))
    with build_openai_compatible_server(Fake(), "any", security=security) as server:
        body = {"prompt": "a", "max_tokens": 1}
        assert httpx.post(f"{server.url}/v1/completions", json=body).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.post(f"{server.url}/v1/completions", json=body, headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_metrics_count_what_was_answered() -> None:
    """Requests by route and status, tokens, times; unknown paths do not make names of their own."""
    with build_openai_compatible_server(Fake(), "any") as server, httpx.Client(base_url=server.url) as client:
        client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 5, "temperature": 0})
        client.post("/v1/completions", json={"prompt": 5})
        client.get("/wp-login.php")
        text = client.get("/metrics").text
    assert 'evalkit_http_requests_total{route="/v1/completions",status="200"} 1.0' in text
    assert 'evalkit_http_requests_total{route="/v1/completions",status="400"} 1.0' in text
    assert "wp-login" not in text
    assert 'evalkit_waiting{kind="scoring"} 0.0' in text
    assert 'evalkit_tokens_total{direction="prompt"}' in text
    assert 'evalkit_work_seconds_bucket{kind="generation",le="+Inf"}' in text


def test_the_command_says_when_it_is_ready_and_ends_on_a_signal(tmp_path: Path) -> None:
    """While the model loads /health is fine and /ready is 503, as are questions; SIGTERM ends it within seconds."""
    with command(tmp_path, "--engine", "slow_engine:Slow", "--model", "any", "--json") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        url = process.stderr.readline().split()[2].removesuffix("/ready")
        wait_until_it_listens(url)
        early = httpx.post(f"{url}/v1/completions", json={"prompt": "a"})
        assert httpx.get(f"{url}/health").status_code == 200
        assert (early.status_code, early.json()["error"]["type"]) == (503, "server_error")
        assert httpx.get(f"{url}/ready").status_code == 503
        said = json.loads("".join(process.stdout.readline() for _ in range(5)))
        assert said == {"model": "any", "url": url, "base_url": f"{url}/v1"}
        assert httpx.get(f"{url}/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


def wait_until_it_listens(url: str) -> None:
    for _ in range(1000):
        try:
            httpx.get(f"{url}/health")
            return
        except httpx.TransportError:
            time.sleep(0.01)


def test_ctrl_c_ends_the_command_quietly(tmp_path: Path) -> None:
    """Exit status 0 and no traceback."""
    with command(tmp_path, "--engine", "slow_engine:Slow", "--model", "any") as process:
        assert process.stdout is not None
        assert "any is ready at http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "any"], "give --engine and --model"),
        (["--engine", "nothing", "--model", "any"], "unknown engine 'nothing'"),
        (["--engine", "slow_engine:Slow", "--model", "any", "--engine-arg", "dely=1"], "no option 'dely'"),
        (["--engine", "slow_engine:Slow", "--model", "any", "--host", "0.0.0.0"], "--allow-unauthenticated"),
        (["--engine", "slow_engine:Slow", "--model", "./none"], "model file ./none does not exist"),
        (["--engine", "slow_engine:Slow", "--model", "broken"], "the file ends too early"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    """On stderr, with exit status 2."""
    with command(tmp_path, *words) as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert message in errors.splitlines()[-1]
        assert "Traceback" not in errors


def test_concurrent_clients_of_a_closing_server_get_an_answer(tmp_path: Path) -> None:
    """An answer that is under way when the signal comes is still sent."""
    words = ("--engine", "slow_engine:Slow", "--model", "any", "--engine-arg", "delay=1.0", "--json")
    with command(tmp_path, *words) as process:
        assert process.stdout is not None
        url: Any = json.loads("".join(process.stdout.readline() for _ in range(5)))["url"]
        body = {"prompt": "a", "max_tokens": 3, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as sent:
            process.send_signal(signal.SIGTERM)
            text = "".join(sent.iter_text())
        assert "data: [DONE]" in text
        assert process.wait(20) == -signal.SIGTERM
