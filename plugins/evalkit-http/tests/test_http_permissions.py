"""What a request may not make a job do: send secrets elsewhere, run code, read files outside of the models."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.specs import EngineSpec
from evalkit_http.security import ForbiddenError, SecuritySettings
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.slots import Slots
from evalkit_http.service.translate import evaluation_work

ELSEWHERE, INSIDE = "http://evil.example/v1", "http://LLM.inside:8000/v1"


def work(model_args: dict[str, Any], **settings: Any) -> dict[str, Any]:
    request = {"model": "evalkit.testing.fake:Fake", "tasks": ["starter_arithmetic"], "model_args": model_args}
    args = ServerArgs(allow_references=True, **settings)
    return evaluation_work(EvaluateRequest.model_validate(request), args, Slots(gpus=("0",)))


@dataclasses.dataclass
class Asking:
    """Options of an engine that asks an endpoint, or hands things on to a backend."""

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    client_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    load_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    python: str | None = None
    env: str | None = None
    attn_implementation: str | None = None
    tokenizer: str = "auto"
    retries: int = 1


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineSpec]:
    """`asking(remote=...)`: every engine is `Asking` from then on."""

    def use(**of_spec: Any) -> EngineSpec:
        spec = EngineSpec("asking", "", load=f"{__name__}:Asking", **of_spec)
        monkeypatch.setattr("evalkit_http.service.translate.load_engine_class", lambda name: (Asking, spec))
        return spec

    return use


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": ELSEWHERE}, "--endpoint-host evil.example"),
        ({"base_url": "http://llm.inside@evil.example/v1"}, "--endpoint-host evil.example"),
        ({"base_url": "http://llm.inside.evil.example"}, "--endpoint-host llm.inside.evil.example"),
        ({"base_url": "nothing"}, "no address"),
        ({"api_key_env": "AWS_ACCESS"}, "--endpoint-host"),
        ({"headers": {"X-Mine": "$AWS_ACCESS"}}, "--endpoint-host"),
        ({"client_args": {"headers": {"X-Mine": "$AWS_ACCESS"}}}, "--endpoint-host"),
        ({"client_args": {"base_url": ELSEWHERE}, "base_url": INSIDE}, "--endpoint-host evil.example"),
    ],
    ids=str,
)
def test_secrets_go_to_no_host_that_a_client_names(asking: Any, options: dict[str, Any], says: str) -> None:
    """Endpoints, and options that hand out the environment, are for hosts that the operator named."""
    asking(remote=True)
    given = {"model": "any", **options}
    for allow in (False, True):
        with pytest.raises(ForbiddenError, match=re.escape(says)):
            work(given, endpoint_hosts=("llm.inside",), allow_engine_options=allow)


def test_an_endpoint_that_the_operator_named_may_be_asked(asking: Any) -> None:
    """At an --endpoint-host a job may use keys and headers; without a base_url it asks the operator's own."""
    asking(remote=True)
    options = {"base_url": INSIDE, "api_key_env": "MY_VARIABLE", "headers": {"X-Mine": "$MY_VARIABLE"}}
    found = work({"model": "any", **options}, endpoint_hosts=("llm.inside",))
    assert found["spec"]["engine_args"] == options
    assert work({"model": "any", "retries": 3})["spec"]["engine_args"] == {"retries": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"load_kwargs": {"weights_only": False}},
        {"options": {"use_safetensors": False}},
        {"client_args": {"retries": 2}},
        {"python": "python3"},
        {"env": "mine"},
        {"attn_implementation": "somebody/kernel"},
    ],
    ids=str,
)
def test_options_that_run_code_need_the_operator(asking: Any, options: dict[str, Any]) -> None:
    """What a backend takes as it is, and names of programs, are refused unless --allow-engine-options was said."""
    asking()
    given = {"model": "some/model", "retries": 3, **options}
    with pytest.raises(ForbiddenError, match="--allow-engine-options"):
        work(given)
    spec = work(given, allow_engine_options=True)["spec"]
    assert {**spec["engine_args"], **spec.get("model_args", {})} == {"retries": 3, **options}


def test_paths_are_opened_where_they_were_looked_at(tmp_path: Path, asking: Any) -> None:
    """A job is told the resolved path: a file of the working folder is not opened in place of one of a root."""
    asking()
    roots = tmp_path / "models"
    (roots / "tok").mkdir(parents=True)
    (tmp_path / "tokens.txt").write_text("secret")
    (tmp_path / "other").mkdir()
    security = SecuritySettings(model_roots=(roots,))

    def options(**given: Any) -> dict[str, Any]:
        spec = work({"model": "some/model", **given}, security=security)["spec"]
        return {**spec.get("engine_args", {}), **spec.get("model_args", {})}

    assert options(tokenizer_path="tok", tokenizer="./tok") == dict.fromkeys(
        ("tokenizer", "tokenizer_path"), str(roots / "tok")
    )
    assert options(chat_template="tokens.txt") == {"chat_template": str(roots / "tokens.txt")}
    assert options(chat_template="{{ messages }}/../x") == {"chat_template": "{{ messages }}/../x"}
    assert options(tokenizer_path="some/tokenizer", dtype="auto")["tokenizer_path"] == "some/tokenizer"
    for outside in ({"tokenizer_path": "other"}, {"adapter": "other"}, {"chat_template": str(tmp_path / "tokens.txt")}):
        with pytest.raises(ForbiddenError, match="outside"):
            options(**outside)


def test_folders_that_are_written_are_no_folders_of_models(tmp_path: Path) -> None:
    """Runs of others are not read as tokenizers or templates."""
    security = SecuritySettings(model_roots=(tmp_path / "models",), output_roots=(tmp_path / "runs",))
    given = {"pretrained": "any", "chat_template": str(tmp_path / "runs" / "results.json")}
    with pytest.raises(ForbiddenError, match="outside"):
        work(given, security=security)


def test_names_on_a_server_are_no_paths(asking: Any) -> None:
    """A model of an endpoint may be called like a file, or like a registered model, without being one."""
    asking(remote=True, formats=())
    for name in ("/data/llama", "smollm2-135m"):
        found = work({"model": name})
        assert (found["spec"]["model"], found["checkpoint"]) == (name, None)
    asking()
    given = {"model": "/data/llama", "base_url": INSIDE}
    assert work(given, endpoint_hosts=("llm.inside",))["checkpoint"] is None
    with pytest.raises(ForbiddenError, match="outside"):
        work({"model": "/data/llama"})
