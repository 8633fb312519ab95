"""What cannot be loaded as it was asked for ends in one line that names the cause and the next step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from evalkit.errors import ConfigError, EvalkitError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.options import build
from evalkit.requests import LoglikelihoodRequest
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.session import GPTQModelSession

PAIR = LoglikelihoodRequest("The sky is", " blue, or grey")


def refused(path: object, kind: type[EvalkitError], match: str, model: Any = None, **options: Any) -> None:
    with pytest.raises(kind, match=match) as found:
        GPTQModel(**{"device": "cpu", **options}).build(model or Model(str(path)))
    assert "\n" not in str(found.value)


def test_a_model_that_is_not_quantized_is_refused(plain_path: Path) -> None:
    """GPTQModel would load it, to quantize it."""
    refused(plain_path, ModelError, "is not quantized.*--engine transformers")


def test_files_that_are_no_quantized_checkpoint(tmp_path: Path, llama_path: Path) -> None:
    """A GGUF, a folder without a model, a method of somebody else, broken JSON."""
    refused("model.gguf", ModelError, "--engine llamacpp")
    refused(tmp_path, ModelNotFoundError, "no config.json")
    for content, problem in (("{", "cannot be read"), ("[]", "holds no mapping")):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        refused(tmp_path, EvalkitError, problem)
    config = json.loads((llama_path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "quark"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(tmp_path, ModelError, "'quark', which GPTQModel does not load .*gptq")


def test_unknown_and_contradictory_options(llama_path: Path) -> None:
    """Backends by name, devices, dtypes, and options that are given twice."""
    refused(llama_path, ConfigError, "no backend 'marlyn'.*gptq_marlin", backend="marlyn")
    refused(llama_path, ConfigError, "--engine vllm", backend="vllm")
    refused(llama_path, ConfigError, "contradict", device_map="auto")
    refused(llama_path, ConfigError, "dtype 'int8'", model=Model(str(llama_path), dtype="int8"))
    refused(llama_path, ConfigError, "'backend' is an option of its own", load_kwargs={"backend": "auto"})
    refused(llama_path, ConfigError, "attn_implementation=nosuch", attn_implementation="nosuch")
    refused(llama_path, ModelError, "not available here", device="cuda:7")
    with pytest.raises(ConfigError, match="dtype"):
        build(GPTQModel, {"dtype": "int4"}, "engine 'gptqmodel'")


def test_kernels_that_cannot_run_here(llama_path: Path) -> None:
    """A kernel for other devices or dtypes: what GPTQModel says of it, and which options to leave out."""
    refused(llama_path, ModelError, "backend=gptq_exllama_v2.*Leave", backend="gptq_exllama_v2")
    refused(llama_path, ModelError, "dtype=float32.*Leave", backend="gptq_torch", dtype="float32")


def test_a_kernel_that_is_chosen_is_used(llama_path: Path) -> None:
    """`backend` keeps the weights packed, by the names of GPTQModel in any case."""
    with GPTQModel(device="cpu", backend="GPTQ_TORCH_FUSED").build(Model(str(llama_path))) as session:
        told = session.describe_execution() or {}
        assert told["kernels"] == ["gptq_torch_fused"]
        assert told["weights"] == "as stored"
        assert session.loglikelihood([PAIR])[0].logprob < 0


def test_nothing_is_printed(llama_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output stays evalkit's own, and logging as it was."""
    import logging

    before = logging.getLogger().level, logging.getLogger().handlers[:]
    with GPTQModel(device="cpu").build(Model(str(llama_path))) as session:
        session.loglikelihood([PAIR])
    assert capfd.readouterr().out == ""
    assert (logging.getLogger().level, logging.getLogger().handlers[:]) == before


@pytest.fixture
def make_adapter(tmp_path: Path, llama: GPTQModelSession) -> Callable[..., Path]:
    """Writes an adapter of rank 4 for every quantized layer, with a configuration of one's own."""

    def make(extra: tuple[str, ...] = (), **config: Any) -> Path:
        draw = np.random.default_rng(0)
        weights = {}
        names = [name for name, module in llama.model.named_modules() if name.endswith("_proj")]
        for name in (*names, *extra):
            layer = llama.model.get_submodule(names[0] if name in extra else name)
            shapes = {"A": (4, layer.in_features), "B": (layer.out_features, 4)}
            for side, shape in shapes.items():
                values = draw.standard_normal(shape, dtype=np.float32) * 0.2
                weights[f"base_model.model.{name}.lora_{side}.weight"] = values.astype(np.float16)
        folder = tmp_path / f"adapter{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file(weights, folder / "adapter_model.safetensors")
        content = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj"], **config}
        (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def test_an_adapter_counts(llama: GPTQModelSession, llama_path: Path, make_adapter: Callable[..., Path]) -> None:
    """With unpacked weights and by the kernel, scores are those with the adapter, and results name it."""
    folder = make_adapter()
    plain = llama.loglikelihood([PAIR])[0].logprob
    found = []
    for dtype, dequantize in (("float32", True), ("float32", False)):
        engine = GPTQModel(device="cpu", dtype=dtype, dequantize=dequantize, adapter=str(folder))  # type: ignore[arg-type]
        with engine.build(Model(str(llama_path))) as session:
            found.append(session.loglikelihood([PAIR])[0].logprob)
            assert (session.describe_execution() or {})["quantization"]["adapter"] == str(folder)
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert abs(found[0] - plain) > 0.5


def test_adapters_that_would_be_applied_wrongly(llama_path: Path, make_adapter: Callable[..., Path]) -> None:
    """GPTQModel applies them without their scale, and leaves out what it has no layer for."""
    refused(llama_path, ModelError, "r 4, lora_alpha 8", adapter=str(make_adapter(lora_alpha=8)))
    refused(llama_path, ModelError, "no plain LoRA", adapter=str(make_adapter(use_dora=True)))
    extra = make_adapter(extra=("model.layers.7.self_attn.q_proj",))
    refused(llama_path, ModelError, "2 weights that no quantized layer takes.*layers.7", adapter=str(extra))
    refused(llama_path, ModelNotFoundError, "adapter", adapter=str(llama_path))
