"""Options become arguments of the library; what contradicts itself, or cannot be, is one clear line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit_tensorrt_llm.arguments import all_arguments
from evalkit_tensorrt_llm.engine import TensorRTLLM


def test_only_what_is_given_is_passed_on() -> None:
    """Options at None leave the library its own defaults, but for what scoring needs."""
    given = all_arguments(TensorRTLLM(), Model("m"))
    needed = {"gather_generation_logits": True, "backend": "pytorch", "kv_cache_config": {"enable_block_reuse": True}}
    assert given == {"model": "m", "tokenizer": "m", **needed}
    engine = TensorRTLLM(kv_cache_dtype="fp8", free_gpu_memory_fraction=0.0, disable_cuda_graph=True)
    given = all_arguments(engine, Model("m"))
    assert given["kv_cache_config"] == {"enable_block_reuse": True, "free_gpu_memory_fraction": 0.0, "dtype": "fp8"}
    assert given["cuda_graph_config"] is None


def test_the_model_says_what_is_its_own() -> None:
    """Revision, adapter, length and dtype of the model reach the library; the model's dtype wins."""
    model = Model("m", revision="r", dtype="float16", adapter="a", max_length=100)
    given = all_arguments(TensorRTLLM(dtype="bfloat16"), model)
    assert given["max_seq_len"] == given["max_input_len"] > 100
    assert (given["dtype"], given["revision"]) == ("float16", "r")
    assert given["lora_config"] == {"lora_dir": ["a"]}


@pytest.mark.parametrize(
    ("engine", "model", "match"),
    [
        ({"dtype": "float16", "engine_args": {"dtype": "auto"}}, {}, "dtype is given twice"),
        ({"engine_args": {"kv_cache_config": {}}}, {}, "kv_cache_config is given twice"),
        ({"kv_cache_config": {"enable_block_reuse": False}}, {}, "enable_block_reuse of kv_cache_config"),
        ({"engine_args": {"tokenizer": "t"}}, {}, "tokenizer is no option"),
        ({"engine_args": {"backend": "tensorrt"}}, {}, "backend is no option"),
        ({"max_seq_len": 64}, {"max_length": 64}, "Leave one out"),
    ],
)
def test_contradictions_are_refused(engine: dict[str, Any], model: dict[str, Any], match: str) -> None:
    """What is said twice, or in the wrong place, is named."""
    with pytest.raises(ConfigError, match=match):
        all_arguments(TensorRTLLM(**engine), Model("m", **model))


def test_an_argument_that_the_library_has_not_is_named(double: None, model_path: Path) -> None:
    """The library's own refusal is told with the option that it came by."""
    with pytest.raises(ConfigError, match=r"nosuch.*engine_args"):
        TensorRTLLM(engine_args={"nosuch": 1}).build(Model(str(model_path)))
    with pytest.raises(ConfigError, match=r"nosuch.*engine_args"):
        TensorRTLLM(kv_cache_config={"nosuch": 1}).build(Model(str(model_path)))
    with pytest.raises(ModelNotFoundError, match="Check --model"):
        TensorRTLLM().build(Model(str(model_path / "nowhere")))


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before the library is imported, and says what else there is."""
    monkeypatch.setattr("evalkit_tensorrt_llm.device.has_gpu", lambda: False)
    with pytest.raises(ModelError, match=r"tensorrt-llm needs a GPU: .*base_url"):
        TensorRTLLM().build(Model("m"))


def test_a_missing_library_is_told_with_its_environment(double: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the error names the command that makes an environment."""
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(MissingDependencyError, match="evalkit env create tensorrt-llm"):
        TensorRTLLM().build(Model("m"))


def test_the_server_is_started_with_the_same_options(tmp_path: Path) -> None:
    """Its model is a link of the name that it is to have; its options are in a file; its switches have no opposites."""
    engine = TensorRTLLM(start_server=True, tensor_parallel_size=2, server_args={"tool_parser": "qwen3", "grpc": False})
    command = engine.server_command(Model(str(tmp_path)), "name", 1234)
    words = list(command.words)
    assert words[:3] == ["-m", "tensorrt_llm.commands.serve", "serve"]
    assert Path(words[3]).name == "name"
    assert Path(words[3]).resolve() == tmp_path.resolve()
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options.items() >= {"--port": "1234", "--tool_parser": "qwen3", "--tokenizer": str(tmp_path)}.items()
    more = json.loads(Path(options["--extra_llm_api_options"]).read_text(encoding="utf-8"))
    assert more["tensor_parallel_size"] == 2
    assert more["kv_cache_config"] == {"enable_block_reuse": True}
    assert "--grpc" not in words


def test_a_server_cannot_have_everything(tmp_path: Path) -> None:
    """An adapter, or a model that is no folder, is refused before a server is started."""
    engine = TensorRTLLM(start_server=True)
    with pytest.raises(ConfigError, match="adapter"):
        engine.server_command(Model(str(tmp_path), adapter="a"), "name", 1)
    with pytest.raises(ConfigError, match="local folder"):
        engine.server_command(Model("hub/name"), "name", 1)
