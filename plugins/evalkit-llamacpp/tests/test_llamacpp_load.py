"""What cannot be loaded gets one line that names the cause, and the interpreter lives on."""

from __future__ import annotations

import ctypes
import json
import logging
import shutil
from pathlib import Path

import pytest
from gguf import GGUFWriter

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.testing.gguf_changes import changed_gguf
from evalkit.testing.tiny import TinyModel
from evalkit_llamacpp import load
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession

PAIR = LoglikelihoodRequest("The sky is", " blue")


def refused(path: Path | str, **options: object) -> str:
    """The message with which a model is refused."""
    with pytest.raises(ModelError) as found:
        LlamaCpp(**options).build(Model(str(path)))  # type: ignore[arg-type]
    message = str(found.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(tiny: TinyModel, tmp_path: Path, share: float) -> None:
    """Cut in its header or in its weights: the message names the file, and a whole one still loads."""
    whole = Path(tiny.gguf).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    message = refused(cut)
    assert str(cut) in message
    assert "llama.cpp cannot load" in message
    LlamaCpp(n_threads=1).build(Model(str(tiny.gguf))).close()


def test_a_file_with_a_broken_end_of_the_header_is_refused(tmp_path: Path) -> None:
    """Nothing but the magic number."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(range(64)))
    assert str(broken) in refused(broken)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    """The message says which architecture it is that llama.cpp does not know."""
    path = tmp_path / "strange.gguf"
    writer = GGUFWriter(path, "nosucharch")
    writer.add_context_length(16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "nosucharch" in refused(path)


def test_a_model_larger_than_memory_is_refused(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is mapped, with both sizes."""
    monkeypatch.setattr(load, "available_memory", lambda: 1000)
    assert "GiB of memory are free" in refused(tiny.gguf)


def test_a_split_model_larger_than_memory_is_refused(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts count, not the first alone."""
    first = tmp_path / "m-00001-of-00002.gguf"
    first.symlink_to(tiny.gguf)
    (tmp_path / "m-00002-of-00002.gguf").symlink_to(tiny.gguf)
    monkeypatch.setattr(load, "available_memory", lambda: Path(tiny.gguf).stat().st_size + 1)
    assert "GiB of memory are free" in refused(first)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"llama.attention.causal": False}, "embedding or diffusion"),
        ({"tokenizer.ggml.model": "none", "tokenizer.ggml.tokens": None}, "has no vocabulary"),
    ],
)
def test_models_that_do_not_continue_texts_are_refused(
    tiny: TinyModel, tmp_path: Path, values: dict[str, object], problem: str
) -> None:
    """Embedding models, diffusion models, and files without vocabulary: scores would mean nothing."""
    assert problem in refused(changed_gguf(tiny.gguf, tmp_path / "m.gguf", values))


@pytest.mark.parametrize(("name", "value"), [("adapter", "lora"), ("options", {"a": 1}), ("dtype", "float16")])
def test_fields_that_mean_nothing_here_are_refused(tiny: TinyModel, name: str, value: object) -> None:
    """Scores without them would be another model's."""
    with pytest.raises(ConfigError, match=name):
        LlamaCpp().build(Model(str(tiny.gguf), **{name: value}))  # type: ignore[arg-type]


def test_other_files_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    """A Hugging Face folder, a file of another kind, and nothing at all."""
    assert "holds no GGUF file" in refused(tiny.hf)
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x00" * 64)
    assert "--engine transformers" in refused(other)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        LlamaCpp().build(Model(str(tmp_path / "none.gguf")))


def test_a_folder_with_one_file_is_that_file(tiny: TinyModel, tmp_path: Path) -> None:
    """A folder may stand for the only GGUF file in it."""
    (tmp_path / "m.gguf").symlink_to(tiny.gguf)
    with LlamaCpp(n_threads=1).build(Model(str(tmp_path))) as session:
        assert session.loglikelihood([PAIR])[0].error is None
    (tmp_path / "n.gguf").symlink_to(tiny.gguf)
    assert "holds 2 GGUF files" in refused(tmp_path)


def test_a_device_that_is_missing_is_told(tiny: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    """A GPU that this build has no code for: a warning, and the CPU is used."""
    if load.llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this build of llama.cpp has a GPU")
    with caplog.at_level(logging.WARNING), LlamaCpp(device="cuda", n_threads=1).build(Model(str(tiny.gguf))) as session:
        assert (session.describe_execution() or {})["device"] == "cpu"
    assert "has no cuda" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"flash_attn": "on"},
        {"flash_attn": "off", "type_k": "f16", "type_v": "f16"},
        {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"},
        {"use_mmap": False},
        {"use_mlock": True},
        {"extra_buffers": "off"},
        {"n_batch": 64, "n_ubatch": 16, "n_threads": 2, "n_threads_batch": 1},
        {"tensor_split": [1.0], "split_mode": "none", "main_gpu": 0},
    ],
)
def test_options_change_scores_by_rounding_only(
    tiny: TinyModel, llama: LlamaCppSession, options: dict[str, object]
) -> None:
    """Options of speed and memory load, and score about the same."""
    expected = llama.loglikelihood([PAIR])[0].logprob
    with LlamaCpp(**{"n_threads": 1, **options}).build(Model(str(tiny.gguf))) as session:  # type: ignore[arg-type]
        assert session.loglikelihood([PAIR])[0].logprob == pytest.approx(expected, abs=0.1)


def test_rope_options_reach_the_model(tiny: TinyModel, llama: LlamaCppSession) -> None:
    """Another base or scale of the rotary angles is another model."""
    long = LoglikelihoodRequest("Once upon a time there was a king who had a hill", " and so on")
    expected = llama.loglikelihood([long])[0].logprob
    for options in ({"rope_freq_base": 500.0}, {"rope_scaling": "linear", "rope_freq_scale": 0.25}):
        with LlamaCpp(n_threads=1, **options).build(Model(str(tiny.gguf))) as session:  # type: ignore[arg-type]
            assert abs(session.loglikelihood([long])[0].logprob - expected) > 1e-2


def test_a_context_of_chosen_length(tiny: TinyModel) -> None:
    """`n_ctx` is the longest text; the model's own wins over it."""
    with LlamaCpp(n_threads=1, n_ctx=64).build(Model(str(tiny.gguf))) as session:
        assert session.max_length == 64  # type: ignore[attr-defined]
    with LlamaCpp(n_threads=1, n_ctx=64).build(Model(str(tiny.gguf), max_length=32)) as session:
        assert session.max_length == 32  # type: ignore[attr-defined]


def test_too_many_shares_are_refused(tiny: TinyModel) -> None:
    """`tensor_split` has at most as many shares as llama.cpp knows devices."""
    with pytest.raises(ConfigError, match="tensor_split"):
        LlamaCpp(tensor_split=[1.0] * 1000, device="cpu").build(Model(str(tiny.gguf)))


def test_amx_kernels_are_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are not repacked where that would choose AMX kernels, unless it is asked for."""
    for features, expected in ((b"CPU : AVX512 = 1 | AMX_INT8 = 1 |", False), (b"CPU : AVX512 = 1 |", True)):
        monkeypatch.setattr(load.llama_cpp, "llama_print_system_info", lambda features=features: features)
        assert load.extra_buffers(LlamaCpp()) is expected
        assert load.extra_buffers(LlamaCpp(extra_buffers="on"))
        assert not load.extra_buffers(LlamaCpp(extra_buffers="off"))


def test_a_tokenizer_of_its_own(tiny: TinyModel, llama: LlamaCppSession) -> None:
    """`tokenizer_path` takes a Hugging Face tokenizer; the scores are the same, as it is the same tokenizer."""
    pytest.importorskip("transformers", reason="reads the tokenizer")
    model = Model(str(tiny.gguf), tokenizer_path=str(tiny.hf))
    with LlamaCpp(n_threads=1).build(model) as session:
        assert session.loglikelihood([PAIR])[0].logprob == pytest.approx(llama.loglikelihood([PAIR])[0].logprob)


def test_the_template_of_the_file_serves_a_tokenizer_without_one(tiny: TinyModel, tmp_path: Path) -> None:
    """A tokenizer from elsewhere that has no chat template gets the file's."""
    pytest.importorskip("transformers", reason="reads the tokenizer")
    folder = tmp_path / "hf"
    shutil.copytree(tiny.hf, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"chat_template": None}))
    with LlamaCpp(n_threads=1).build(Model(str(tiny.gguf), tokenizer_path=str(folder))) as session:
        text = session.apply_chat_template([{"role": "user", "content": "Hello."}])
    assert text == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("text", ["[ 1 , 2 ]", "it 's so , is n't it ?", "Ünï 🙂 !"])
def test_texts_come_back_as_they_were(tiny: TinyModel, tmp_path: Path, text: str) -> None:
    """Spaces before punctuation stay, whatever llama.cpp cleans up for the vocabulary's family."""
    path = changed_gguf(tiny.gguf, tmp_path / "m.gguf", {"tokenizer.ggml.pre": "gpt-2"})
    with LlamaCpp(n_threads=1).build(Model(str(path))) as session:
        assert isinstance(session, LlamaCppSession)
        ids = session.tokenizer.encode_batch([text])[0]
        assert session.tokenizer.decode(ids) == text
        assert session.tokenizer.decode([*ids, 2], skip_special=False) == f"{text}<|im_end|>"
        assert session.tokenizer.decode([*ids, 2]) == text


def test_the_size_of_a_pointer_is_what_passes_count_on() -> None:
    """Sequence numbers are 32-bit, and pointers to them 64-bit."""
    assert ctypes.sizeof(load.llama_cpp.llama_seq_id) == 4
    assert ctypes.sizeof(ctypes.c_void_p) == 8
