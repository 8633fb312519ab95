"""Packed weights give the same numbers, and are only used where a model allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from evalkit.model import Model
from evalkit_transformers import packed
from evalkit_transformers.engine import Transformers, TransformersCompat
from evalkit_transformers.packed import PackedLinear, pack_weights

IDS = torch.tensor([[3, 7, 1, 9, 4]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("rows", [1, 5, 300])
def test_a_packed_layer_computes_the_same(dtype: torch.dtype, bias: bool, rows: int) -> None:
    """Packed and unpacked again, a layer gives what it gave, for any number of rows."""
    layer = nn.Linear(96, 40, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(2, rows, 96, dtype=dtype)
    changed = PackedLinear(layer)
    torch.testing.assert_close(changed(x), layer(x))
    assert torch.equal(changed.unpacked().weight, layer.weight)
    torch.testing.assert_close(changed.unpacked()(x), layer(x))


@pytest.fixture
def model(llama_path: Path) -> Any:
    """A tiny Llama."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(llama_path, dtype=torch.float32)
    return loaded.eval().requires_grad_(False)


def kinds(model: Any) -> set[str]:
    """Names of the linear layers' classes below the output head."""
    return {type(module).__name__ for module in model.model.modules() if "Linear" in type(module).__name__}


def test_a_model_is_packed_but_for_its_head(model: Any) -> None:
    """All layers below the head are packed, and the logits stay."""
    with torch.inference_mode():
        before = model(IDS).logits
        assert pack_weights(model, lambda: model(IDS).logits)
        assert kinds(model) == {"PackedLinear"}
        assert type(model.lm_head) is nn.Linear
        torch.testing.assert_close(model(IDS).logits, before)


def test_a_model_that_reads_its_weights_itself_stays_plain(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model does more with a layer than call it, everything is as it was."""
    mlp = transformers.models.llama.modeling_llama.LlamaMLP
    monkeypatch.setattr(mlp, "forward", lambda self, x: x + self.down_proj.weight[0, :1])
    with torch.inference_mode():
        before = model(IDS).logits
        assert not pack_weights(model, lambda: model(IDS).logits)
        assert kinds(model) == {"Linear"}
        assert torch.equal(model(IDS).logits, before)


def test_other_dtypes_and_builds_without_onednn_stay_plain(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 is not packed, and neither is anything where the operators are missing."""
    assert not pack_weights(model.half(), lambda: torch.zeros(1))
    monkeypatch.setattr(packed, "_operators", lambda: False)
    assert not pack_weights(model.float(), lambda: torch.zeros(1))
    assert kinds(model) == {"Linear"}


def test_the_description_says_so(llama_path: Path) -> None:
    """Weights are packed by default, and plain where that is asked for and in transformers-compat."""
    engines = [
        Transformers(device="cpu"),
        Transformers(device="cpu", pack_weights=False),
        TransformersCompat(device="cpu"),
    ]
    found = []
    for engine in engines:
        with engine.build(Model(str(llama_path))) as session:
            found.append(session.describe_execution()["weights"])
    assert found == ["packed", "plain", "plain"]
