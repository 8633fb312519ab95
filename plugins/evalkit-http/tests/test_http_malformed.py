"""More than a thousand malformed requests to each server: a 4xx with a clear body each, and the server lives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from malformed import ESCAPES, Bad, bodies, lies, methods, places, status, texts

from evalkit_http.service.args import ServerArgs
from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.slots import Slots
from evalkit_http.service.translate import evaluation_work

EVALUATION = {
    "model": "transformers",
    "tasks": ["starter_questions"],
    "model_args": {"pretrained": "Qwen/Qwen3-0.6B"},
}
"""Nothing is wrong with it, so that each request below is refused for its own fault."""
FINE = {"limit": [2**62], "batch_size": [2**62], "priority": [-1], "timeout": [1.5], "seed": [-1, -(2**62), 2**62]}
"""Odd, and yet what a field may hold."""
FIELDS = {
    "model": "str",
    "tasks": "list",
    "model_args": "dict",
    "num_fewshot": "int",
    "limit": "int",
    "gen_kwargs": "dict",
    "num_gpus": "int",
    "batch_size": "int",
    "device": "str",
    "log_samples": "bool",
    "predict_only": "bool",
    "output_dir": "str",
    "priority": "int",
    "timeout": "int",
    "webhook": "str",
    "idempotency_key": "str",
    "seed": "int",
    "apply_chat_template": "bool",
}


def evaluation_requests() -> Iterator[Bad]:
    """What the evaluation service is asked: evaluations with one fault each, merges of what is not there, noise."""
    own: dict[str, tuple[Any, ...]] = {
        "model": ("nothing", "os:system", "../x", ""),
        "tasks": (["nothing"], ["/etc/passwd"], ["os:system"], ["a.yaml"]),
        "model_args": tuple({"pretrained": path} for path in (*ESCAPES, "./", "a" * 300 + "/b")),
        "output_dir": ESCAPES,
        "webhook": ("file:///etc/passwd", "ftp://a", "http://", "http://169.254.169.254/", "javascript:1"),
        "num_gpus": (9999,),
        "device": ("cuda:-1", "cuda:999", "../x"),
    }
    fine = {json.dumps({**EVALUATION, name: value}).encode() for name, values in FINE.items() for value in values}
    yield from (bad for bad in bodies("/evaluate", EVALUATION, FIELDS, own) if bad.content not in fine)
    yield from texts("/evaluate", EVALUATION)
    merge = {"checkpoint_path": "nothing"}
    paths = {"checkpoint_path": ESCAPES, "output_path": ESCAPES, "checkpoint_type": ("x", "")}
    yield from bodies(
        "/merge", merge, {"checkpoint_path": "str", "output_path": "str", "checkpoint_type": "str"}, paths
    )
    yield from texts("/merge", merge)
    yield from methods({"/evaluate": "POST", "/merge": "POST", "/queue": "GET", "/jobs/x": "GET DELETE", "/": "GET"})
    yield from places(("/jobs", "/jobs/x/samples", "/page", "/nowhere"))
    yield from lies("/evaluate", EVALUATION)
    for query in (
        "limit=-1",
        "limit=0",
        "limit=x",
        "limit=99999999999999999999",
        "status=x",
        "limit=NaN",
        "status=%ff",
    ):
        yield Bad("query", "GET", f"/jobs?{query}", headers={})


COMPLETION = {"model": "any", "prompt": "Hello", "max_tokens": 1, "n": 1000}
CHAT = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "n": 1000}
SAMPLING = {
    "max_tokens": "int",
    "temperature": "str",
    "top_p": "str",
    "n": "int",
    "seed": "str",
    "stop": "dict",
    "stream": "bool",
}


def model_requests() -> Iterator[Bad]:
    """What the model server is asked. Nothing of it is answered: the valid parts ask for a thousand texts."""
    own: dict[str, tuple[Any, ...]] = {
        "prompt": ([[]], [["a"]], [-1], [2**40], [[1], "a"], {"a": 1}, ""),
        "temperature": (-1, -0.5),
        "top_p": (-1, 2),
        "max_tokens": (10**9,),
    }
    yield from bodies("/v1/completions", COMPLETION, {"prompt": "dict", **SAMPLING}, own)
    yield from texts("/v1/completions", COMPLETION)
    talk = {"messages": ([{}], [{"role": "x"}], [{"role": "user", "content": [{"type": "image_url"}]}])}
    yield from bodies("/v1/chat/completions", CHAT, {"messages": "list", **SAMPLING}, talk)
    yield from texts("/v1/chat/completions", CHAT)
    for path in ("/v1/eval/loglikelihood", "/v1/eval/loglikelihood/rolling"):
        wrong = {
            "requests": ([{}], [{"context": 1, "continuation": "a"}], [{"context_ids": [-1], "continuation_ids": [1]}])
        }
        yield from bodies(path, {"requests": [{"unknown": 1}]}, {"requests": "list of requests"}, wrong)
    yield from methods(
        {"/v1/completions": "POST", "/v1/chat/completions": "POST", "/v1/models": "GET", "/health": "GET"}
    )
    yield from places(("/v1", "/v1/models", "/nowhere"))
    yield from lies("/v1/completions", COMPLETION)


def judge(client: httpx.Client, requests: Iterator[Bad], clear: Callable[[bytes], bool]) -> Counter[str]:
    """Send all; returns how many of each kind were answered. Every answer is a 4xx that says what is wrong."""
    found: Counter[str] = Counter()
    faults = []
    for bad in requests:
        code, body = status(client, bad)
        if bad.raw is not None:
            # Half a request is waited for, and what is no HTTP is answered by the parser in plain text.
            fine = code == 0 or 400 <= code < 500
        else:
            fine = code == -1 or (400 <= code < 500 and (bad.method in ("HEAD", "TRACE") or clear(body)))
        found[bad.kind] += 1
        if not fine:
            sent = bad.raw or bad.content or b""
            faults.append((bad.kind, bad.method, bad.path[:100], sent[:200], code, body[:300]))
    assert not faults, "\n".join(map(str, faults[:20]))
    assert client.get("/health").status_code == 200
    print(dict(found), found.total())
    return found


def has_detail(body: bytes) -> bool:
    """The evaluation service's shape."""
    detail = json.loads(body)["detail"]
    return bool(detail) and (isinstance(detail, str) or all(problem["msg"] for problem in detail))


def has_error(body: bytes) -> bool:
    """OpenAI's shape."""
    error = json.loads(body)["error"]
    return bool(error["message"]) and {"message", "type", "param", "code"} <= set(error)


def test_the_request_that_is_made_malformed_is_fine() -> None:
    """It would run as it is, and so would the odd ones; the thousand below are not refused for something else."""
    pytest.importorskip("evalkit_transformers")
    for name, values in {"log_samples": [True], **FINE}.items():
        for value in values:
            request = EvaluateRequest.model_validate({**EVALUATION, name: value})
            assert evaluation_work(request, ServerArgs(), Slots(("cpu",)))["spec"]["engine"] == EVALUATION["model"]


def test_the_service_refuses_a_thousand_malformed_requests(serve: Callable[..., Any]) -> None:
    """No malformed request is accepted, none is a 5xx, and the server goes on as if nothing had been."""
    server = serve(allow_references=False)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        found = judge(client, evaluation_requests(), has_detail)
        assert client.get("/queue").json()["queue_size"] == 0
    assert found.total() >= 1000


def test_the_model_server_refuses_a_thousand_malformed_requests() -> None:
    """The same of a served model, in OpenAI's shape; afterwards it answers as before."""
    from evalkit_http.openai.server import build_openai_compatible_server

    with (
        build_openai_compatible_server("evalkit.testing.fake:Fake", "any") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        found = judge(client, model_requests(), has_error)
        answer = client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 2})
        assert answer.status_code == 200
    assert found.total() >= 1000


def test_no_path_leads_out_of_the_allowed_folders(serve: Callable[..., Any]) -> None:
    """With all else as it should be, each escape is refused wherever a path can be named, and nothing is queued."""
    server = serve()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path in ESCAPES:
            for more in (
                {"model_args": {"pretrained": path}},
                {"model_args": {"pretrained": "any/model", "tokenizer_path": path}},
                {"output_dir": path},
            ):
                answer = client.post("/evaluate", json={**EVALUATION, **more})
                assert 400 <= answer.status_code < 500, (path, more)
                assert has_detail(answer.content)
        assert client.get("/queue").json()["queue_size"] == 0
        assert client.get("/queue").json()["running_jobs"] == []
