"""The contract, scores and texts of the tinygrad engine, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit.testing.decoders import TEXT, check_greedy, logprob_errors
from evalkit.testing.reference import reference_model
from evalkit.testing.tiny import TinyModel
from evalkit_tinygrad import load
from evalkit_tinygrad.engine import Tinygrad
from evalkit_tinygrad.session import TinygradSession


class TestConformance(SessionConformance):
    """The tiny model."""

    @pytest.fixture
    def session(self, llama: TinygradSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


@pytest.fixture(scope="module")
def reference(tiny: TinyModel) -> Any:
    """The same weights in Transformers."""
    pytest.importorskip("transformers", reason="compares with Transformers")
    return reference_model(Path(tiny.hf))


def test_logprobs_are_those_of_transformers(llama: TinygradSession, reference: Any) -> None:
    """Token by token, within 1e-3."""
    assert max(logprob_errors(llama, reference)) < 1e-3


def test_greedy_is_that_of_transformers(llama: TinygradSession, reference: Any) -> None:
    """The same tokens as `model.generate`, behind a shared prefix and without, guessing ahead, moving cells."""
    check_greedy(llama, reference)


def test_cells_can_be_moved(llama: TinygradSession) -> None:
    """Keeping some cells forgets the others: what follows scores as if only they had been read."""
    tokens, mask = np.array([5, 6, 7, 8]), np.tril(np.ones((4, 4), bool))
    mask[2:, 1] = False
    llama.keep(np.arange(0))
    # Token 6 stands beside the text: 5, 7, 8 are at positions 0, 1, 2.
    llama.run(tokens, np.array([0, 1, 1, 2]), mask, np.array([3]))
    llama.keep(np.array([0, 2, 3]))
    moved = llama.run(np.array([9]), np.array([3]), np.ones((1, 4), bool), np.array([0]))
    llama.keep(np.arange(0))
    plain = llama.run(np.array([5, 7, 8, 9]), np.arange(4), np.tril(np.ones((4, 4), bool)), np.array([3]))
    assert np.allclose(moved, plain, atol=1e-4)


def test_many_short_answers_fit_the_cells(llama: TinygradSession) -> None:
    """Prompts that join again and again, each ended by its first token, are all answered."""
    requests = [GenerationRequest(input_ids=[5 + n, *range(10, 59)], max_new_tokens=1) for n in range(40)]
    assert all(output.error is None for output in llama.generate(requests))


def test_a_large_batch_size_fits_the_cells(llama: TinygradSession) -> None:
    """Scoring with `--batch-size` takes as many tokens at a time as there is room for."""
    pairs = [LoglikelihoodRequest(f"{n} {TEXT}", f" {TEXT}") for n in range(40)]
    expected = llama.loglikelihood(pairs[:2])
    found = llama.loglikelihood(pairs, batch_size=40)
    assert [o.logprob for o in found[:2]] == pytest.approx([o.logprob for o in expected], abs=1e-3)


def test_padding_is_counted(llama: TinygradSession) -> None:
    """Passes of fixed sizes: what fills them up counts as computed."""
    before = llama.token_counts()
    llama.loglikelihood([LoglikelihoodRequest(TEXT, " blue")])
    after = llama.token_counts()
    assert (after.computed - before.computed) % 16 == 0
    assert after.computed - before.computed > after.unique - before.unique


def test_the_tokenizer_is_that_of_the_checkpoint(llama: TinygradSession, tiny: TinyModel) -> None:
    """Made from the file, it gives the ids and the chat of the Hugging Face tokenizer."""
    transformers = pytest.importorskip("transformers", reason="compares with Transformers")
    other = transformers.AutoTokenizer.from_pretrained(tiny.hf)
    for text in ("Hello world\n  foo 123", "Ünïcödé 日本語 🙂", "", " a  b\t\n\n "):
        assert llama.tokenizer.encode_batch([text])[0] == other(text)["input_ids"]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Say hello."}]
    expected = other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert llama.apply_chat_template(messages) == expected


def test_the_real_model_answers(smollm2_gguf: str) -> None:
    """SmolLM2 with its 4-bit weights unpacked knows the capital of France."""
    with Tinygrad(device="CPU", batch_tokens=32).build(Model(smollm2_gguf, max_length=128)) as session:
        output = session.generate([GenerationRequest(prompt="The capital of France is", max_new_tokens=2)])[0]
        assert output.text == " Paris."
        good, bad = session.loglikelihood(
            [LoglikelihoodRequest("The capital of France is", city) for city in (" Paris", " Oslo")]
        )
        assert good.logprob > bad.logprob
        assert good.is_greedy


def test_without_jit_scores_are_the_same(llama: TinygradSession, tiny: TinyModel) -> None:
    """`jit` false is slower, and nothing else."""
    pair = LoglikelihoodRequest("The sky is", " blue")
    with Tinygrad(device="CPU", jit=False, batch_tokens=64).build(Model(str(tiny.gguf))) as session:
        assert session.loglikelihood([pair])[0].logprob == pytest.approx(
            llama.loglikelihood([pair])[0].logprob, abs=1e-4
        )


def test_closing_twice_is_allowed(tiny: TinyModel) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(Tinygrad(device="CPU").build(Model(str(tiny.gguf))))


def refused(path: Path | str, **options: Any) -> str:
    """The message with which a model is refused."""
    with pytest.raises(ModelError) as found:
        Tinygrad(device="CPU", **options).build(Model(str(path)))
    message = str(found.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(tiny: TinyModel, tmp_path: Path, share: float) -> None:
    """Cut in its header or in its weights."""
    whole = Path(tiny.gguf).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    assert str(cut) in refused(cut)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    """tinygrad would load it without a word, and compute something else."""
    path = tmp_path / "strange.gguf"
    writer = GGUFWriter(path, "gemma2")
    writer.add_context_length(16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "gemma2" in refused(path)


def test_bad_input_gets_one_line(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a file of another kind, nothing at all, a model that is too large, a device that is not there."""
    assert "is a folder" in refused(tiny.hf)
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x00" * 64)
    assert "not a GGUF file" in refused(other)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        Tinygrad().build(Model(str(tmp_path / "none.gguf")))
    with pytest.raises(ConfigError, match="NOSUCH"):
        Tinygrad(device="NOSUCH").build(Model(str(tiny.gguf)))
    monkeypatch.setattr(load, "available_memory", lambda: 1000)
    assert "GiB of memory are free" in refused(tiny.gguf)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="apt install clang"):
        Tinygrad(device="CPU").build(Model(str(tiny.gguf)))
