"""Requests become runs: every field has its meaning, and what cannot be run is refused with a next step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evalkit.errors import EvalkitError
from evalkit.specs import EngineSpec
from evalkit_http.security import SecuritySettings
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.slots import Slots
from evalkit_http.service.translate import evaluation_work

QUICK = {"model": "evalkit.testing.fake:Fake", "model_args": {"pretrained": "any"}, "tasks": ["starter_arithmetic"]}


def work(given: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    args = ServerArgs(allow_references=settings.pop("allow_references", True), **settings)
    slots = Slots(args.devices, gpus=("0", "1"))
    return evaluation_work(EvaluateRequest.model_validate({**QUICK, **(given or {})}), args, slots)


def refusal(given: dict[str, Any], **settings: Any) -> str:
    with pytest.raises((EvalkitError, ValidationError)) as caught:
        work(given, **settings)
    return str(caught.value)


@pytest.mark.parametrize("name", ["pretrained", "model", "path"])
def test_the_model_has_three_names(name: str) -> None:
    """`model` is the engine, as in lmms-eval; the model itself is in model_args."""
    found = work({"model_args": {name: "some/model"}})["spec"]
    assert (found["engine"], found["model"]) == (QUICK["model"], "some/model")


def test_arguments_keep_their_types_and_find_their_owner() -> None:
    """Lists and mappings arrive as they were sent; options go to the engine or to the model."""
    given = {"pretrained": "any", "dtype": "float32", "batch_tokens": 128, "options": {"a": [1, {"b": 2}]}}
    spec = work({"model_args": given}, allow_engine_options=True)["spec"]
    assert spec["model_args"] == {"dtype": "float32", "options": {"a": [1, {"b": 2}]}}
    assert spec["engine_args"] == {"batch_tokens": 128}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"limit": 64}, {"limit": 64}),
        ({"limit": 64.0}, {"limit": 64}),
        ({"limit": 0.25}, {"limit": 0.25}),
        ({"num_fewshot": 0}, {"num_fewshot": 0}),
        ({"batch_size": "8"}, {"batch_size": 8}),
        ({"batch_size": "auto"}, {"batch_size": "auto"}),
        ({"gen_kwargs": "temperature=0.5,max_gen_toks=8"}, {"gen": {"temperature": 0.5, "max_new_tokens": 8}}),
        ({"gen_kwargs": "until=5,top_k=1e1"}, {"gen": {"stop": ["5"], "top_k": 10.0}}),
        ({"gen_kwargs": {"until": "\n", "top_p": 0.9}}, {"gen": {"stop": ["\n"], "top_p": 0.9}}),
        ({"apply_chat_template": True, "seed": 7}, {"apply_chat_template": True, "seed": 7}),
        ({"tasks": "starter_prose, starter_questions"}, {"tasks": ["starter_prose", "starter_questions"]}),
    ],
    ids=str,
)
def test_fields_of_a_run(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fields mean what the options of `evalkit run` mean."""
    assert expected.items() <= work(given)["spec"].items()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": ["x"]}, "Did you mean 'tasks'"),
        ({"tasks": ["starter_aritmetic"]}, "Did you mean 'starter_arithmetic'"),
        ({"tasks": []}, "tasks"),
        ({"model": "transformer"}, "unknown engine"),
        ({"model_args": None}, "names the model once"),
        ({"model_args": {"pretrained": "a", "path": "b"}}, "names the model once"),
        ({"model_args": {"pretrained": "any", "batch_token": 1}}, "Did you mean 'batch_tokens'"),
        ({"model_args": {"pretrained": "any", "batch_tokens": "many"}}, "batch_tokens"),
        ({"limit": 0}, "limit"),
        ({"limit": -3}, "limit"),
        ({"limit": float("nan")}, "limit"),
        ({"batch_size": "big"}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_gpus": 3}, "only 2 fit"),
        ({"device": "cuda:5"}, "there is no device"),
        ({"device": "tpu"}, "This server has: cuda:0"),
        ({"predict_only": True}, "predict_only"),
        ({"gen_kwargs": "temprature=1"}, "Did you mean 'temperature'"),
        ({"gen_kwargs": "temperature"}, "NAME=VALUE"),
        ({"gen_kwargs": "temperature=" + "[" * 9000}, "temperature"),
        ({"tasks": ["starter_questions"], "gen_kwargs": "top_k=1"}, "none of the tasks generates"),
        ({"model_args": {"pretrained": "any", "options": {"api_key": "sk-123"}}}, "holds a secret"),
        ({"model_args": {"pretrained": "any", "trust_remote_code": True}}, "does not allow"),
        ({"allow_code_execution": True}, "may not run"),
        ({"webhook": "ftp://host/x"}, "begins with http"),
        ({"webhook": "http://inside/x"}, "--webhook-host inside"),
        ({"system_prompt": "a\0b"}, "null character"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_at_once(given: dict[str, Any], says: str) -> None:
    """Unknown names come with the nearest known one; nothing waits for hours to fail."""
    assert says in refusal(given)


def test_only_registered_names_by_default() -> None:
    """A name that would import code is refused where the operator did not allow it."""
    assert "unknown engine" in refusal(QUICK, allow_references=False)
    assert "unknown task" in refusal({"tasks": ["./quiz.py"]}, allow_references=False)


def test_models_outside_the_roots_are_refused(tmp_path: Path) -> None:
    """Paths are resolved first: a link that leads out is outside."""
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    security = SecuritySettings(model_roots=(inside,))
    for path in (str(tmp_path), str(inside / "link"), "../x", "/etc/passwd"):
        assert "path" in refusal({"model_args": {"pretrained": path}}, security=security)
    kept = work({"model_args": {"pretrained": str(inside / "step-1")}}, security=security)
    assert kept["checkpoint"] == str(inside / "step-1")


def test_a_checkpoint_that_is_not_there_yet_is_a_path(tmp_path: Path) -> None:
    """ "checkpoints/step_5" is a hub id, unless there is a folder of checkpoints here."""
    given = {"model_args": {"model": "checkpoints/step_5"}}
    assert work(given)["checkpoint"] is None
    (tmp_path / "checkpoints").mkdir()
    security = SecuritySettings(model_roots=(tmp_path,))
    assert work(given, security=security)["checkpoint"] == str(tmp_path / "checkpoints" / "step_5")


@dataclasses.dataclass
class WithDevice:
    """Options of an engine that takes torch's names of devices."""

    device: str = "auto"


@dataclasses.dataclass
class WithOwnDevice:
    """Options of an engine that takes any text, and knows only its own spelling."""

    device: str = "CPU"


@pytest.mark.parametrize("name", ["./", ".", "n" * 300 + "/b", "n" * 300])
def test_odd_names_of_models_are_refused_or_taken_as_names(name: str) -> None:
    """No name is a bug of the server."""
    try:
        found = work({"model_args": {"pretrained": name}})
    except EvalkitError:
        return
    assert (name, found["checkpoint"]) == ("n" * 300, None)


def test_names_of_keys_are_no_secrets() -> None:
    """A documented idempotency key and a template's special tokens pass; what looks like a key does not."""
    assert work({"idempotency_key": "run-17/step-500", "chat_template_args": {"eos_token": "</s>"}})
    for field in ({"idempotency_key": "hf_" + "a" * 20}, {"chat_template_args": {"a": ["sk-" + "b" * 20]}}):
        assert "holds a secret" in refusal(field)


@pytest.mark.parametrize(("asked", "allowed", "seconds"), [(5, 10, 5), (50, 10, 10), (None, 10, 10), (5, None, 5)])
def test_no_job_runs_longer_than_the_operator_allows(asked: Any, allowed: Any, seconds: float) -> None:
    """The smaller of both times counts."""
    assert work({"timeout": asked}, job_timeout=allowed)["timeout"] == seconds


def test_the_device_is_spelt_as_the_engine_spells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO knows "CPU" and no "cpu"."""
    engine = EngineSpec("own", "", load="")
    monkeypatch.setattr("evalkit_http.service.translate.load_engine_class", lambda name: (WithOwnDevice, engine))
    found = work({"device": "cpu", "model_args": {"pretrained": "some/model"}})
    assert found["spec"]["engine_args"] == {"device": "CPU"}


@pytest.mark.parametrize(("device", "seen"), [("cuda:1", "cuda:0"), ("cuda", "cuda:0"), ("cpu", "cpu")])
def test_the_device_is_forwarded_as_the_process_sees_it(
    device: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that sees one GPU calls it number 0, whichever it is."""
    monkeypatch.setitem(globals(), "WithDevice", WithDevice)
    monkeypatch.setattr(
        "evalkit_http.service.translate.load_engine_class", lambda name: (WithDevice, EngineSpec("e", "", load=""))
    )
    found = work({"device": device, "model_args": {"pretrained": "some/model"}})
    assert found["spec"]["engine_args"] == {"device": seen}
    assert found["slots"] == {"count": 1, "device": device}
