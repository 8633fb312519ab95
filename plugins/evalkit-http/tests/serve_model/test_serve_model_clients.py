"""Clients that leave: real sockets that are closed in the middle."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from evalkit.testing.fake import FakeSession
from evalkit.testing.waiting import eventually
from evalkit_http.openai.server import ModelServer, build_openai_compatible_server

LONG = {"prompt": "The", "max_tokens": 480, "temperature": 0, "min_tokens": 480}


def send(server: ModelServer, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=60)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def running(server: ModelServer) -> int:
    """Generations under way."""
    return len(server.scheduler._running)


def metric(server: ModelServer, name: str, **labels: str) -> float:
    """A metric's value."""
    return server.scheduler.metrics.registry.get_sample_value(name, labels) or 0.0


def completed(server: ModelServer) -> float:
    """Tokens that were generated for answered requests."""
    return metric(server, "evalkit_tokens_total", direction="completion")


@pytest.mark.parametrize("body", [LONG, {**LONG, "stream": True}])
def test_a_running_answer_is_withdrawn_when_its_client_goes(tiny_server: ModelServer, body: dict[str, Any]) -> None:
    """Whole or streamed: the place is free before the answer would have been done, and others are served."""
    before = completed(tiny_server)
    connection = send(tiny_server, "/v1/completions", body)
    eventually(lambda: running(tiny_server))
    connection.close()
    eventually(lambda: not running(tiny_server))
    assert completed(tiny_server) == before
    with httpx.Client(base_url=tiny_server.url) as client:
        answer = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
        assert answer.status_code == 200


def test_a_stream_of_a_half_closed_client_ends(tiny_server: ModelServer) -> None:
    """A client that is killed after the first event: what it asked for is withdrawn."""
    connection = send(
        tiny_server,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 400,
            "min_tokens": 400,
            "stream": True,
        },
    )
    assert b"200 OK" in connection.recv(4096)
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    eventually(lambda: not running(tiny_server))


def test_scoring_that_waits_is_withdrawn_too() -> None:
    """It leaves the line without being computed."""
    with build_openai_compatible_server("evalkit.testing.fake:Fake", "any") as server:
        session = server.scheduler.session
        assert isinstance(session, FakeSession)
        session.engine.delay = 1.0
        pairs = {"requests": [{"context": "a", "continuation": " b"}]}
        first = send(server, "/v1/eval/loglikelihood", pairs)
        eventually(lambda: metric(server, "evalkit_waited_seconds_count", kind="scoring"))
        second = send(server, "/v1/eval/loglikelihood", {"requests": pairs["requests"] * 7})
        eventually(lambda: server.scheduler.lines.waiting("scoring") == 7)
        second.close()
        eventually(lambda: server.scheduler.lines.waiting("scoring") == 0)
        with first:
            received = b""
            while not received.endswith(b"]}"):
                received += first.recv(65536)
            assert b'"error":null' in received
        assert session.largest_batch == 1
