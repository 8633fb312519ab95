"""The contract, scores and texts of the tinygrad engine, and what it refuses."""

from __future__ import annotations

import json
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
from evalkit.testing.gguf_changes import changed_gguf
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


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"llama.rope.scaling.type": "linear"}, "scales its rotary angles"),
        ({"llama.rope.scale_linear": 2.0}, "scales its rotary angles"),
        ({"llama.expert_count": 8}, "not normalise"),
    ],
)
def test_what_tinygrad_would_pass_over_is_refused(
    tiny: TinyModel, tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    """Settings in the header that change scores, and that tinygrad does not read."""
    assert problem in refused(changed_gguf(tiny.gguf, tmp_path / "m.gguf", values))


@pytest.mark.parametrize(
    ("name", "problem"), [("attn_output.bias", "leaves out"), ("attn_q.bias", "wrong order"), ("new", "leaves out")]
)
def test_a_tensor_without_a_place_is_refused(tiny: TinyModel, tmp_path: Path, name: str, problem: str) -> None:
    """Weights that tinygrad would leave out, or put in wrongly."""
    tensors = {f"blk.0.{name}": np.ones(128, np.float32)}
    assert problem in refused(changed_gguf(tiny.gguf, tmp_path / "m.gguf", {}, tensors=tensors))


def test_a_file_without_a_scaling_of_angles_loads(tiny: TinyModel, tmp_path: Path) -> None:
    """A scaling of the kind "none" is none."""
    path = changed_gguf(tiny.gguf, tmp_path / "m.gguf", {"llama.rope.scaling.type": "none"})
    Tinygrad(device="CPU").build(Model(str(path))).close()


def test_a_split_model_larger_than_memory_is_not_read(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes of all parts are enough to refuse it."""
    first = tmp_path / "m-00001-of-00002.gguf"
    first.symlink_to(tiny.gguf)
    (tmp_path / "m-00002-of-00002.gguf").symlink_to(tiny.gguf)
    monkeypatch.setattr(load, "available_memory", lambda: Path(tiny.gguf).stat().st_size + 1)
    monkeypatch.setattr(load, "gguf_load", None)
    assert "GiB of memory are free" in refused(first)


@pytest.mark.parametrize(("name", "value"), [("adapter", "lora"), ("options", {"a": 1}), ("dtype", "bfloat16")])
def test_fields_that_mean_nothing_here_are_refused(tiny: TinyModel, name: str, value: object) -> None:
    """Scores without them would be another model's."""
    with pytest.raises(ConfigError, match=name):
        Tinygrad(device="CPU").build(Model(str(tiny.gguf), **{name: value}))  # type: ignore[arg-type]


def test_the_dtype_of_the_model_comes_first(tiny: TinyModel) -> None:
    """It overrides the engine's."""
    with Tinygrad(device="CPU", dtype="float32").build(Model(str(tiny.gguf), dtype="float16")) as session:
        assert (session.describe_execution() or {})["dtype"] == "float16"


def test_the_template_of_the_file_serves_a_tokenizer_without_one(tiny: TinyModel, tmp_path: Path) -> None:
    """A tokenizer from elsewhere that has no chat template gets the file's."""
    pytest.importorskip("transformers", reason="reads the tokenizer")
    folder = tmp_path / "hf"
    shutil.copytree(tiny.hf, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"chat_template": None}))
    with Tinygrad(device="CPU").build(Model(str(tiny.gguf), tokenizer_path=str(folder))) as session:
        text = session.apply_chat_template([{"role": "user", "content": "Hello."}])
    assert text == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"


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
