"""Loading: options do what they say, adapters count, and whatever is broken is one line that names it."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_sessions import float32_session, refused

from evalkit.errors import EvalkitError, MissingDependencyError, ModelError, ModelNotFoundError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.tokenizers import context_length
from evalkit_transformers.load import decoder_start
from evalkit_transformers.session import TransformersSession

PAIRS = [
    LoglikelihoodRequest(context, text) for context in ("The sky is", "", "A king") for text in (" blue", " a hill")
]
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub for anything."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def copy(llama_path: Path, tmp_path: Path) -> Path:
    """A copy of the Llama, to be broken."""
    return Path(shutil.copytree(llama_path, tmp_path / "copy"))


def scores(session: TransformersSession) -> list[float]:
    """Log-probabilities of all pairs; the session is closed."""
    with session:
        return [output.logprob for output in session.loglikelihood(PAIRS)]


def change_json(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_that_of_the_engine(llama_path: Path, dtype: str) -> None:
    """Weights are in the dtype that was asked for, and the scores near those of float32."""
    session = float32_session(llama_path, dtype=dtype)
    assert session.model.dtype == getattr(torch, dtype)
    assert session.describe_execution()["dtype"] == dtype
    assert scores(session) == pytest.approx(scores(float32_session(llama_path)), abs=0.5)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_dtype_auto_is_the_checkpoints(copy: Path, stored: str) -> None:
    """dtype "auto" is what config.json says."""
    change_json(copy / CONFIG, torch_dtype=stored)
    with float32_session(copy, dtype="auto") as session:
        assert session.model.dtype == getattr(torch, stored)


def test_the_models_dtype_overrides_the_engines(llama_path: Path) -> None:
    """Model(dtype=...) wins over Transformers(dtype=...)."""
    with float32_session(llama_path, dtype="float32", model={"dtype": "bfloat16"}) as session:
        assert session.model.dtype == torch.bfloat16


def test_options_of_the_model_reach_from_pretrained(llama_path: Path) -> None:
    """Model(options=...) and load_kwargs go to the loader unchanged, the model's winning."""
    options = {"attn_implementation": "eager"}
    with float32_session(
        llama_path, model={"options": options}, load_kwargs={"attn_implementation": "sdpa"}
    ) as session:
        assert session.describe_execution()["attn_implementation"] == "eager"


def test_max_length_and_batch_tokens_are_taken(llama_path: Path) -> None:
    """The context is the configuration's unless it is given; so is the budget of a batch."""
    with float32_session(llama_path) as session:
        assert session.describe_execution()["max_length"] == 256
    with float32_session(llama_path, model={"max_length": 64}, batch_tokens=100) as session:
        described = session.describe_execution()
    assert (described["max_length"], described["batch_tokens"]) == (64, 100)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_changes_no_score(llama_path: Path, device_map: Any) -> None:
    """A model spread by accelerate scores as one that is not."""
    pytest.importorskip("accelerate", reason="device_map needs evalkit-transformers[device-map]")
    session = float32_session(llama_path, device_map=device_map)
    described = session.describe_execution()
    assert json.loads(json.dumps(described)) == described
    assert session.device == torch.device("cpu")
    assert scores(session) == pytest.approx(scores(float32_session(llama_path)), abs=1e-4)


def test_weights_may_lie_on_disk(llama_path: Path, tmp_path: Path) -> None:
    """A model whose output head and one layer are read from disk at each pass scores as one in memory."""
    pytest.importorskip("accelerate", reason="device_map needs evalkit-transformers[device-map]")
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    session = float32_session(
        llama_path,
        device_map={**places, "model.layers.1": "disk", "lm_head": "disk"},
        load_kwargs={"offload_folder": str(tmp_path / "offload")},
    )
    assert scores(session) == pytest.approx(scores(float32_session(llama_path)), abs=1e-4)


def test_shards_are_one_model(llama_path: Path, tmp_path: Path) -> None:
    """A checkpoint in several files scores as the same in one."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_path)
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llama_path / name, tmp_path / name)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert scores(float32_session(tmp_path)) == pytest.approx(scores(float32_session(llama_path)), abs=1e-4)


def test_a_quantized_checkpoint_is_loaded(copy: Path) -> None:
    """FP8 weights in blocks are multiplied out where no GPU reads them, and score as those products do."""
    pytest.importorskip("accelerate", reason="quantized checkpoints need evalkit-transformers[device-map]")
    weights, packed = load_file(copy / WEIGHTS), {}
    for name, values in weights.items():
        packed[name] = weights[name] = values.bfloat16()
        if "_proj." in name:
            scale = values.abs().amax() / torch.finfo(torch.float8_e4m3fn).max
            packed[name] = (values / scale).to(torch.float8_e4m3fn)
            packed[f"{name}_scale_inv"] = scale.expand([-(-size // 128) for size in values.shape]).contiguous()
            weights[name] = (packed[name].float() * scale).bfloat16()
    change_json(copy / CONFIG, torch_dtype="bfloat16")
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    expected = scores(float32_session(copy, dtype="auto"))
    save_file(packed, copy / WEIGHTS, metadata={"format": "pt"})
    change_json(copy / CONFIG, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    # A product may be rounded to bfloat16 in another order.
    assert scores(float32_session(copy, dtype="auto")) == pytest.approx(expected, abs=0.4)


def test_the_method_of_quantization_is_named(llama_path: Path) -> None:
    """describe_execution names the method as checkpoints do, and None where there is none."""
    with float32_session(llama_path) as session:
        assert session.describe_execution()["quantization"] is None
        session.model.config.quantization_config = transformers.FineGrainedFP8Config()
        assert session.describe_execution()["quantization"] == "fp8"


def test_closing_frees_the_model(llama_path: Path) -> None:
    """After close nothing of evalkit holds the weights."""
    session = float32_session(llama_path)
    session.loglikelihood(PAIRS)
    session.generate([GenerationRequest(prompt="A", max_new_tokens=2)])
    weights = weakref.ref(session.model.get_output_embeddings().weight)
    session.close()
    gc.collect()
    assert weights() is None


@pytest.mark.parametrize(
    ("config", "tokenizer_length", "expected"),
    [
        (transformers.GPT2Config(n_positions=77), 500, 77),
        (transformers.LlamaConfig(max_position_embeddings=55), 500, 55),
        (transformers.MambaConfig(), 500, 500),
        (transformers.MambaConfig(), 10**30, 2048),
        (transformers.MambaConfig(), None, 2048),
        # It says -1: no limit.
        (transformers.XLNetConfig(), 500, 500),
    ],
)
def test_context_length(config: Any, tokenizer_length: int | None, expected: int) -> None:
    """The context is the configuration's, else the tokenizer's, else 2048, as in lm-evaluation-harness."""
    assert context_length(config, tokenizer_length) == expected


def test_the_decoders_first_token_is_found() -> None:
    """It is the configuration's, else that of generation, else BOS; a model that names none is refused."""
    generation = transformers.GenerationConfig(bos_token_id=5)
    assert decoder_start(transformers.T5Config(decoder_start_token_id=0), generation) == 0
    assert decoder_start(object(), transformers.GenerationConfig(decoder_start_token_id=7, bos_token_id=5)) == 7
    assert decoder_start(object(), generation) == 5
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        decoder_start(object(), transformers.GenerationConfig())


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu", ""])
def test_a_device_that_is_not_there_is_refused_before_loading(copy: Path, device: str) -> None:
    """An unusable device is named at once: no time is lost on weights."""
    (copy / WEIGHTS).write_bytes(b"not read")
    refused(ModelError, copy, f"{device!r}", "device=auto", device=device)


def test_an_unknown_dtype_is_refused(llama_path: Path) -> None:
    """A dtype that does not exist is named, with those that do."""
    refused(ModelError, llama_path, "'int9'", "bfloat16", model={"dtype": "int9"})


@pytest.mark.parametrize("path", ["no/such/folder", "./nowhere", "nobody/nothing"])
def test_a_missing_model_is_one_line(path: str) -> None:
    """A path that does not exist, and a hub id that cannot be reached, are named."""
    refused(ModelNotFoundError, path, repr(path))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        "{}",
        '{"model_type": "nonsense"}',
        '{"model_type": "llama", "hidden_size": "big"}',
        '{"model_type": "llama", "hidden_size": 100, "num_attention_heads": 7}',
    ],
)
def test_a_broken_configuration_is_one_line(copy: Path, content: str) -> None:
    """A config.json that is no JSON, or describes no model, is an error about this model."""
    (copy / CONFIG).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=str(copy)) as caught:
        float32_session(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 4, 1000, -1000])
def test_truncated_weights_are_one_line(copy: Path, size: int) -> None:
    """A weights file of which only the first bytes arrived is refused."""
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:size])
    refused(ModelError, copy, str(copy))


@pytest.mark.parametrize("content", [b"\0" * 1000, b"<html>not found</html>"])
def test_other_content_in_the_weights_file_is_one_line(copy: Path, content: bytes) -> None:
    """A weights file that is none is refused."""
    (copy / WEIGHTS).write_bytes(content)
    refused(ModelError, copy, str(copy))


def test_no_weights_are_one_line(copy: Path) -> None:
    """A folder without weights is refused."""
    (copy / WEIGHTS).unlink()
    refused(ModelNotFoundError, copy, str(copy))


def test_a_broken_pickle_is_one_line(copy: Path) -> None:
    """A pytorch_model.bin that is none is refused."""
    (copy / WEIGHTS).rename(copy / "pytorch_model.bin")
    refused(ModelError, copy, str(copy))


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    """A config.json whose sizes are not those of the weights is refused."""
    change_json(copy / CONFIG, intermediate_size=512)
    refused(ModelError, copy, str(copy))


def test_missing_weights_are_refused(copy: Path) -> None:
    """A checkpoint that lacks a weight is refused: Transformers would fill it with random numbers."""
    weights = load_file(copy / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    refused(ModelError, copy, "1 weight", "model.layers.1.mlp.up_proj.weight")


def test_a_head_that_is_tied_is_not_missing(copy: Path) -> None:
    """A checkpoint whose output head is its embeddings has no weight for it, and needs none."""
    weights = load_file(copy / WEIGHTS)
    del weights["lm_head.weight"]
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    change_json(copy / CONFIG, tie_word_embeddings=True)
    with float32_session(copy) as session:
        assert all(output.error is None for output in session.loglikelihood(PAIRS))


def test_a_missing_tokenizer_is_one_line(copy: Path) -> None:
    """A checkpoint without a tokenizer is refused, naming the option that says where one is."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    refused(ModelNotFoundError, copy, "tokenizer", "tokenizer_path")


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_broken_tokenizer_is_one_line(copy: Path, content: str) -> None:
    """A tokenizer.json that is none is refused."""
    (copy / "tokenizer.json").write_text(content, encoding="utf-8")
    refused(ModelNotFoundError, copy, "tokenizer")


def test_a_tokenizer_may_lie_elsewhere(copy: Path, llama_path: Path) -> None:
    """tokenizer_path is where the tokenizer is read from."""
    (copy / "tokenizer.json").unlink()
    found = scores(float32_session(copy, model={"tokenizer_path": str(llama_path)}))
    assert found == pytest.approx(scores(float32_session(llama_path)), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ModelError, {"load_kwargs": {"nonsense": 1}}),
        (ModelError, {"attn_implementation": "nonsense"}),
        (ModelError, {"device_map": "nonsense"}),
        (MissingDependencyError, {"load_kwargs": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}),
        (ModelNotFoundError, {"model": {"chat_template": "no-such-file.jinja"}}),
    ],
)
def test_options_that_cannot_be_used_are_one_line(
    llama_path: Path, kind: type[EvalkitError], options: dict[str, Any]
) -> None:
    """An option that the loader refuses, or that needs a library, is an error and no traceback."""
    refused(kind, llama_path, **options)


# ── code in checkpoints ─────────────────────────────────────────────────────────────────────────────────
CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path(__file__).with_name("executed").touch()
Path({marker!r}).touch()


class ForeignConfig(LlamaConfig):
    model_type = "foreign"


class ForeignModel(LlamaForCausalLM):
    config_class = ForeignConfig
"""
AUTO_MAP = {"AutoConfig": "foreign.ForeignConfig", "AutoModelForCausalLM": "foreign.ForeignModel"}


@pytest.fixture
def foreign(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Turns the copy into a checkpoint with code of its own; tells whether that code was executed."""
    marker = tmp_path / "executed"
    (copy / "foreign.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    change_json(copy / CONFIG, auto_map=AUTO_MAP, architectures=["ForeignModel"], model_type="foreign")
    # Transformers copies the code there and imports it.
    modules = importlib.import_module("transformers.dynamic_module_utils")
    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return marker.exists


def test_a_checkpoints_code_is_not_executed(copy: Path, foreign: Callable[[], bool]) -> None:
    """A checkpoint that needs code of its own is refused, and nothing of it runs."""
    refused(ModelError, copy, "trust_remote_code")
    assert not foreign()


def test_code_is_not_executed_where_transformers_has_its_own(copy: Path, foreign: Callable[[], bool]) -> None:
    """A checkpoint of a known architecture that also brings code is loaded without that code."""
    change_json(copy / CONFIG, model_type="llama")
    with float32_session(copy) as session:
        assert type(session.model) is transformers.LlamaForCausalLM
    assert not foreign()


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"model": {"trust_remote_code": True}}])
def test_code_is_executed_on_request(copy: Path, foreign: Callable[[], bool], options: dict[str, Any]) -> None:
    """With trust_remote_code, given to the engine or to the model, the checkpoint's own class is used."""
    with float32_session(copy, **options) as session:
        assert type(session.model).__name__ == "ForeignModel"
        assert session.loglikelihood(PAIRS)[0].error is None
    assert foreign()


# ── the command line ────────────────────────────────────────────────────────────────────────────────────
def test_a_hub_id_without_network_is_one_line(tmp_path: Path) -> None:
    """`evalkit run` with a hub id that cannot be reached: one line, status 2, no run folder."""
    words = ("run", "starter_questions", "--engine", "transformers", "--model", "nobody/nothing", "--limit", "1")
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *words, "--output", str(tmp_path / "run")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nobody/nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
