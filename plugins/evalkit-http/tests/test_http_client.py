"""The clients: the examples of lmms-eval's guide, clear errors, and an end to every wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from evalkit.errors import EvalkitError
from evalkit_http import AsyncEvalClient, EvalClient
from evalkit_http.client import EvalServerError, JobTimeoutError, ServerUnreachableError
from evalkit_http.security import SecuritySettings, Tokens
from evalkit_http.sockets import address, bind

FAKE = {"model": "evalkit.testing.fake:Fake", "model_args": {"pretrained": "any"}}
QUICK = {**FAKE, "tasks": ["starter_questions"], "limit": 2}
SLOW = {"pretrained": "any", "delay": 0.5}
TOKEN = "0123456789abcdef0123"
Serve = Callable[..., Any]


def test_the_synchronous_example(serve: Serve) -> None:
    """Submit, wait, read the result; with a token where the server has one."""
    server = serve(security=SecuritySettings(tokens=Tokens.parse([TOKEN], "test")))
    with EvalClient(server.url, token=TOKEN) as client:
        assert client.is_healthy()
        assert client.health()["status"] == "healthy"
        assert "starter_questions" in client.list_tasks()
        assert isinstance(client.list_models(), list)
        job = client.evaluate(
            model=FAKE["model"],
            tasks=["starter_questions"],
            model_args={"pretrained": "any"},
            batch_size=1,
            device="cpu",
            limit=2,
        )
        result = client.wait_for_job(job["job_id"], poll_interval=0.1, timeout=120.0)
        assert "acc,none" in result["result"]["results"]["starter_questions"]
        assert client.get_queue_status()["completed_jobs"] == 1
    with EvalClient(server.url) as client, pytest.raises(EvalServerError, match="401: this needs a token"):
        client.get_queue_status()


def test_the_asynchronous_example(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, awaited; the token comes from EVALKIT_TOKEN."""
    server = serve(security=SecuritySettings(tokens=Tokens.parse([TOKEN], "test")))
    monkeypatch.setenv("EVALKIT_TOKEN", TOKEN)

    async def talk() -> None:
        async with AsyncEvalClient(server.url) as client:
            assert await client.is_healthy()
            assert "starter_questions" in await client.list_tasks()
            job = await client.evaluate(**QUICK)
            result = await client.wait_for_job(job["job_id"], poll_interval=0.1)
            assert result["status"] == "completed"
            assert len(await client.samples(job["job_id"], "starter_questions")) == 2
            assert "run:" in await client.log(job["job_id"])
            with pytest.raises(EvalServerError, match="404"):
                await client.get_job("nothing")

    asyncio.run(talk())


def test_every_end_ends_the_wait(serve: Serve) -> None:
    """A cancelled job is waited for no longer than a completed one."""
    server = serve()
    slow = {"pretrained": "any", "delay": 0.5}
    ids = [server.client.evaluate(**{**QUICK, "model_args": slow})["job_id"] for _ in range(2)]
    with pytest.raises(TimeoutError, match="It goes on") as caught:
        server.client.wait_for_job(ids[1], poll_interval=0.1, timeout=0.3)
    assert isinstance(caught.value, JobTimeoutError)
    server.client.cancel_job(ids[1])
    assert server.client.wait_for_job(ids[1])["status"] == "cancelled"
    assert server.wait(ids[0])["status"] == "completed"


def test_refusals_are_exceptions_with_the_servers_words(serve: Serve) -> None:
    """The status is there for programs, the message for people; both are evalkit's own errors."""
    server = serve()
    with pytest.raises(EvalServerError, match="Did you mean 'starter_questions'") as caught:
        server.client.evaluate(**{**QUICK, "tasks": ["starter_question"]})
    assert caught.value.status == 400
    with pytest.raises(EvalServerError, match="num_gpus"):
        server.client.evaluate(**QUICK, num_gpus="many")
    with pytest.raises(EvalkitError, match="there is no job"):
        server.client.get_job("nothing")


def test_nobody_there_is_said_in_one_line() -> None:
    """Where no server answers for as long as the client is patient, the error says how to start one."""
    with bind("127.0.0.1", 0) as listener:
        url = address(listener)
    with EvalClient(url, patience=0.3) as client:
        assert not client.is_healthy()
        started = time.monotonic()
        with pytest.raises(ServerUnreachableError, match="evalkit serve"):
            client.evaluate(**QUICK)
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancel_whose_answer_was_lost_has_worked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """The client sends it again, and the server says that the job is cancelled already: that is what was asked for."""
    server = serve()
    ids = [server.client.evaluate(**slow)["job_id"] for slow in [{**QUICK, "model_args": SLOW}] * 2]
    lost = iter([True])
    kind: Any = httpx.AsyncHTTPTransport if is_async else httpx.HTTPTransport
    name = "handle_async_request" if is_async else "handle_request"
    send = getattr(kind, name)

    def loses(response: httpx.Response) -> httpx.Response:
        if next(lost, False):
            raise httpx.ReadError("the connection was cut")
        return response

    async def send_async(self: Any, request: httpx.Request) -> httpx.Response:
        return loses(await send(self, request))

    monkeypatch.setattr(kind, name, send_async if is_async else lambda self, request: loses(send(self, request)))

    async def cancel() -> dict[str, Any]:
        async with AsyncEvalClient(server.url) as client:
            return await client.cancel_job(ids[1])

    answer = asyncio.run(cancel()) if is_async else server.client.cancel_job(ids[1])
    assert (answer["job_id"], answer["status"]) == (ids[1], "cancelled")
    with pytest.raises(EvalServerError, match="cancelled already"):
        server.client.cancel_job(ids[1])
    server.client.cancel_job(ids[0])
