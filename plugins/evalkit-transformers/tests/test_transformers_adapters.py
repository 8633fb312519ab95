"""Adapters count: with one, answers are those of the merged checkpoint; a broken one is one line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_sessions import float32_session, refused

from evalkit.errors import MissingDependencyError, ModelError, ModelNotFoundError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit_transformers.session import TransformersSession

PAIRS = [
    LoglikelihoodRequest(context, text) for context in ("The sky is", "", "A king") for text in (" blue", " a hill")
]
# peft 0.21 asks transformers 5.23 for something by its old name.
peft_warning = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub for anything."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def scores(session: TransformersSession) -> list[float]:
    """Log-probabilities of all pairs; the session is closed."""
    with session:
        return [output.logprob for output in session.loglikelihood(PAIRS)]


@pytest.fixture
def adapter(llama_path: Path, tmp_path: Path) -> Path:
    """A LoRA adapter with random weights, and beside it the checkpoint that it makes when merged."""
    peft = pytest.importorskip("peft", reason="adapters need evalkit-transformers[adapters]")
    base = transformers.AutoModelForCausalLM.from_pretrained(llama_path)
    torch.manual_seed(0)
    # Without init_lora_weights=False an adapter begins as no change at all.
    options = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False}
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=16, **options))
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llama_path / name, tmp_path / "merged" / name)
    return tmp_path / "adapter"


@peft_warning
@pytest.mark.parametrize("given_to", ["engine", "model"])
def test_an_adapter_scores_as_the_merged_checkpoint(adapter: Path, llama_path: Path, given_to: str) -> None:
    """With a LoRA adapter, scores and text are those of the merged weights, and not those of the base."""
    given: dict[str, Any] = {"adapter": str(adapter)}
    if given_to == "model":
        given = {"model": given}
    request = GenerationRequest(prompt="The sky is", max_new_tokens=12)
    with float32_session(llama_path, **given) as adapted, float32_session(adapter.parent / "merged") as merged:
        assert adapted.generate([request])[0].token_ids == merged.generate([request])[0].token_ids
        assert adapted.describe_execution()["logits"] == "scored positions"
        found = scores(adapted)
        assert found == pytest.approx(scores(merged), abs=1e-3)
    assert found != pytest.approx(scores(float32_session(llama_path)), abs=0.1)


@peft_warning
def test_an_adapter_of_an_encoder_decoder_is_merged_too(t5_path: Path, tmp_path: Path) -> None:
    """An adapter works on an encoder-decoder as well: scores and text are those of the merged weights."""
    peft = pytest.importorskip("peft", reason="adapters need evalkit-transformers[adapters]")
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(t5_path)
    torch.manual_seed(0)
    options = {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM", "init_lora_weights": False}
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, **options))
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(t5_path / name, tmp_path / "merged" / name)
    request = GenerationRequest(prompt="The sky is", max_new_tokens=12)
    with (
        float32_session(t5_path, adapter=str(tmp_path / "adapter")) as adapted,
        float32_session(tmp_path / "merged") as merged,
    ):
        assert adapted.generate([request])[0].token_ids == merged.generate([request])[0].token_ids
        assert scores(adapted) == pytest.approx(scores(merged), abs=1e-3)


@peft_warning
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")  # else it would be an error without our help
def test_an_adapter_without_its_weights_is_refused(adapter: Path, llama_path: Path) -> None:
    """An adapter whose file lacks some layers would change nothing there: it is refused."""
    weights = load_file(adapter / "adapter_model.safetensors")
    kept = {name: values for name, values in weights.items() if ".layers.0." in name}
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(ModelError, llama_path, "adapter", adapter=str(adapter))


@peft_warning
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", b"\0" * 100),
        ("adapter_model.safetensors", None),
    ],
)
def test_a_broken_adapter_is_one_line(adapter: Path, llama_path: Path, name: str, content: bytes | None) -> None:
    """A damaged or missing file of an adapter is named."""
    (adapter / name).unlink()
    if content is not None:
        (adapter / name).write_bytes(content)
    with pytest.raises(ModelError, match="adapter") as caught:
        float32_session(llama_path, adapter=str(adapter))
    assert "\n" not in str(caught.value)


@peft_warning
def test_an_adapter_of_another_shape_is_refused(adapter: Path, llama_path: Path) -> None:
    """An adapter made for a wider model is refused."""
    weights = load_file(adapter / "adapter_model.safetensors")
    wider = {name: torch.cat([values, values], dim=-1).contiguous() for name, values in weights.items()}
    save_file(wider, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(ModelError, llama_path, "adapter", adapter=str(adapter))


def test_a_missing_adapter_is_one_line(llama_path: Path) -> None:
    """An adapter that is nowhere is named."""
    pytest.importorskip("peft", reason="adapters need evalkit-transformers[adapters]")
    refused(ModelNotFoundError, llama_path, "no/adapter/here", adapter="no/adapter/here")


def test_adapters_without_peft_say_what_to_install(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where peft is not installed, the message is the command that installs it."""
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(MissingDependencyError, llama_path, "pip install 'evalkit-transformers[adapters]'", adapter="any")
