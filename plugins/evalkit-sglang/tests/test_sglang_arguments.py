"""Options become SGLang's arguments; what contradicts itself, or cannot be, is one clear line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit import options
from evalkit.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit_sglang.arguments import all_arguments
from evalkit_sglang.engine import SGLang


def test_only_what_is_given_is_passed_on() -> None:
    """Options at None leave SGLang its own defaults, but for the order of requests."""
    assert all_arguments(SGLang(), Model("m")) == {"model_path": "m", "tokenizer_path": "m", "schedule_policy": "lpm"}
    given = all_arguments(SGLang(tp_size=2, base_gpu_id=0, random_seed=0, disable_cuda_graph=True), Model("m"))
    assert given.items() >= {"tp_size": 2, "base_gpu_id": 0, "random_seed": 0, "disable_cuda_graph": True}.items()
    assert "schedule_policy" not in all_arguments(SGLang(disable_radix_cache=True), Model("m"))


def test_the_model_says_what_is_its_own() -> None:
    """Revision, adapter, length and dtype of the model reach SGLang; the model's dtype wins."""
    model = Model("m", tokenizer_path="t", revision="r", dtype="float16", adapter="a", max_length=100)
    given = all_arguments(SGLang(dtype="bfloat16"), model)
    assert given["context_length"] > 100
    assert given["lora_paths"] == {"evalkit": "a"}
    assert (given["tokenizer_path"], given["dtype"]) == ("t", "float16")
    assert given["revision"] == "r"


@pytest.mark.parametrize(
    ("engine", "model", "match"),
    [
        ({"dtype": "float16", "engine_args": {"dtype": "auto"}}, {}, "dtype is given twice"),
        ({"tp_size": 2}, {"options": {"tp_size": 4}}, "tp_size is given twice"),
        ({"engine_args": {"revision": "main"}}, {}, "revision is no option"),
        ({"engine_args": {"port": 1}}, {}, "port is no option"),
        ({"context_length": 64}, {"max_length": 64}, "Leave one out"),
    ],
)
def test_contradictions_are_refused(engine: dict[str, Any], model: dict[str, Any], match: str) -> None:
    """What is said twice, or in the wrong place, is named."""
    with pytest.raises(ConfigError, match=match):
        all_arguments(SGLang(**engine), Model("m", **model))


def test_options_are_checked() -> None:
    """A misspelt option is told the right name; a wrong value its type."""
    with pytest.raises(ConfigError, match="mem_fraction_static"):
        options.build(SGLang, {"mem_fraction": 0.5}, "engine 'sglang'")
    with pytest.raises(ConfigError, match="mem_fraction_static"):
        options.build(SGLang, {"mem_fraction_static": 2}, "engine 'sglang'")


def test_an_argument_that_sglang_has_not_is_named(double: None, model_path: Path) -> None:
    """SGLang's own refusal is told with the option that it came by."""
    with pytest.raises(ConfigError, match=r"nosuch.*engine_args"):
        SGLang(device="cpu", engine_args={"nosuch": 1}).build(Model(str(model_path)))
    with pytest.raises(ModelNotFoundError, match="Check --model"):
        SGLang(device="cpu").build(Model(str(model_path / "nowhere")))


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before SGLang is imported, and says what else there is."""
    monkeypatch.setattr("evalkit_sglang.device.has_gpu", lambda: False)
    with pytest.raises(ModelError, match=r"sglang needs a GPU: .*base_url"):
        SGLang().build(Model("m"))


def test_a_missing_library_is_told_with_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SGLang the error names the command that makes an environment."""
    monkeypatch.setitem(sys.modules, "sglang", None)
    with pytest.raises(MissingDependencyError, match="evalkit env create sglang"):
        SGLang(device="cpu").build(Model("m"))


def test_the_server_is_started_with_the_same_options() -> None:
    """Its command line has the model, the name and port that it was given, and all options."""
    engine = SGLang(start_server=True, tp_size=2, disable_radix_cache=True, server_args={"enable_metrics": True})
    command = engine.server_command(Model("m", revision="r"), "name", 1234)
    words = " ".join(command.words)
    assert words.startswith("-m sglang.launch_server --served-model-name name --host 127.0.0.1 --port 1234")
    for part in ("--model-path m", "--revision r", "--tp-size 2", "--disable-radix-cache", "--enable-metrics"):
        assert part in words
    assert "--no-" not in words
    assert command.variables["SGLANG_RETURN_ORIGINAL_LOGPROB"] == "1"


def test_a_server_cannot_have_everything() -> None:
    """An adapter, or an option that is given twice, is refused before a server is started."""
    with pytest.raises(ConfigError, match="adapter"):
        SGLang(start_server=True).server_command(Model("m", adapter="a"), "name", 1)
    with pytest.raises(ConfigError, match="twice"):
        SGLang(start_server=True, tp_size=2, server_args={"tp_size": 4}).server_command(Model("m"), "name", 1)
