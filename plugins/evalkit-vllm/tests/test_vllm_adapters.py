"""LoRA adapters count: with one, answers are those of the merged checkpoint; a broken one is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from evalkit.errors import ModelError
from evalkit.requests import LoglikelihoodRequest
from evalkit.testing.adapters import TinyAdapter, tiny_lora
from evalkit.testing.decoders import TEXT, check_greedy, logprob_errors
from evalkit.testing.reference import reference_model
from evalkit_vllm.session import VLLMSession

DAMAGED = [
    ("adapter_config.json", "{"),
    ("adapter_config.json", "[]"),
    ("adapter_model.safetensors", "no"),
    ("adapter_model.safetensors", "\3" + "\0" * 7 + "[1]"),
]


@pytest.fixture
def lora(llama_path: Path, tmp_path: Path) -> TinyAdapter:
    """An adapter of the Llama."""
    return tiny_lora(llama_path, tmp_path)


def test_an_adapter_scores_as_the_merged_checkpoint(
    llama_path: Path, lora: TinyAdapter, open_session: Callable[..., VLLMSession]
) -> None:
    """Scores and texts are those of the merged weights, and not those of the base."""
    merged, base = reference_model(lora.merged), reference_model(llama_path)
    with open_session(llama_path, adapter=str(lora.adapter)) as session:
        assert max(logprob_errors(session, merged)) < 1e-3
        assert max(logprob_errors(session, base, [LoglikelihoodRequest(TEXT, " blue")])) > 0.05
        check_greedy(session, merged)


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_a_damaged_adapter_is_one_line(
    llama_path: Path, lora: TinyAdapter, open_session: Callable[..., VLLMSession], name: str, content: str
) -> None:
    """A damaged file of an adapter is named when the session is opened, not request by request."""
    (lora.adapter / name).write_text(content, encoding="utf-8")
    refused(open_session, llama_path, lora.adapter)


def test_an_adapter_that_vllm_does_not_take_is_one_line(
    llama_path: Path, lora: TinyAdapter, open_session: Callable[..., VLLMSession]
) -> None:
    """Of another kind than LoRA, or made for a wider model."""
    config = json.loads((lora.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (lora.adapter / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}), encoding="utf-8")
    refused(open_session, llama_path, lora.adapter)
    rewrite(lora.adapter, lambda name, values: (name, np.concatenate([values, values], axis=-1)))
    refused(open_session, llama_path, lora.adapter)


def test_an_adapter_of_the_head_is_refused(
    llama_path: Path, lora: TinyAdapter, open_session: Callable[..., VLLMSession]
) -> None:
    """vLLM would leave it out of prompt log-probabilities without a word."""
    rewrite(lora.adapter, lambda name, values: (name.replace("model.layers.0.self_attn.q_proj", "lm_head"), values))
    assert "lm_head" in refused(open_session, llama_path, lora.adapter)


def refused(open_session: Callable[..., VLLMSession], base: Path, adapter: Path) -> str:
    """The one line with which an adapter is refused."""
    with pytest.raises(ModelError, match="adapter") as caught:
        open_session(base, adapter=str(adapter))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(adapter: Path, change: Callable[[str, NDArray[Any]], tuple[str, NDArray[Any]]]) -> None:
    """Write an adapter's weights anew, each as `change` makes it."""
    path = adapter / "adapter_model.safetensors"
    save_file(dict(change(*item) for item in load_file(path).items()), path)
