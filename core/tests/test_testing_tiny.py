"""The tiny models are real: both formats say the same, and equal seeds give equal files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.testing.tiny import TinyModel, tiny_llama, tiny_mistral_sliding, tiny_t5

_NEEDED = "tiny models need evalkit-core[testing]"
np = pytest.importorskip("numpy", reason=_NEEDED)
gguf = pytest.importorskip("gguf", reason=_NEEDED)
safetensors = pytest.importorskip("safetensors.numpy", reason=_NEEDED)
tokenizers = pytest.importorskip("tokenizers", reason=_NEEDED)

HEADS, KV_HEADS = 4, 2
TEXT = "The capital of France is Paris.\n  In 2024, naïve 北京 😀"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """One tiny Llama for all tests that only read it."""
    return tiny_llama(tmp_path_factory.mktemp("tiny"), heads=HEADS, kv_heads=KV_HEADS)


def _gguf_tensors(path: Path) -> dict[str, Any]:
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


def _hf_tensors(folder: Path) -> dict[str, Any]:
    return dict(safetensors.load_file(folder / "model.safetensors"))


def _tokenizer(folder: Path) -> Any:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_every_tensor_is_in_both_formats(llama: TinyModel) -> None:
    """The two files hold the same number of tensors, 9 a layer and 3 around them."""
    assert len(_gguf_tensors(llama.gguf)) == len(_hf_tensors(llama.hf)) == 2 * 9 + 3


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
        ("blk.1.attn_v", "model.layers.1.self_attn.v_proj"),
        ("blk.1.attn_output", "model.layers.1.self_attn.o_proj"),
        ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
        ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm"),
        ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"),
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
    ],
)
def test_weights_are_equal(llama: TinyModel, theirs: str, ours: str) -> None:
    """What is not rotated is stored alike in both formats."""
    np.testing.assert_array_equal(
        _gguf_tensors(llama.gguf)[f"{theirs}.weight"], _hf_tensors(llama.hf)[f"{ours}.weight"]
    )


@pytest.mark.parametrize(("part", "heads"), [("q", HEADS), ("k", KV_HEADS)])
def test_rotated_weights_are_equal_but_for_their_row_order(llama: TinyModel, part: str, heads: int) -> None:
    """Row 2i+h of a llama.cpp head is row i of half h of a transformers head."""
    theirs = _gguf_tensors(llama.gguf)[f"blk.1.attn_{part}.weight"]
    ours = _hf_tensors(llama.hf)[f"model.layers.1.self_attn.{part}_proj.weight"]
    width = len(ours) // heads
    order = [
        head * width + half * width // 2 + row for head in range(heads) for row in range(width // 2) for half in (0, 1)
    ]
    np.testing.assert_array_equal(theirs, ours[order])


def test_both_formats_hold_the_same_tokenizer(llama: TinyModel) -> None:
    """Tokens, merges and special ids of the GGUF are those of tokenizer.json."""
    fields = gguf.GGUFReader(llama.gguf).fields
    read = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "pre")}
    written = json.loads((llama.hf / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert read["tokens"] == sorted(written["vocab"], key=written["vocab"].get)
    assert read["merges"] == [" ".join(merge) for merge in written["merges"]]
    assert read["pre"] == "smollm"
    config = json.loads((llama.hf / "config.json").read_text(encoding="utf-8"))
    assert config["eos_token_id"] == fields["tokenizer.ggml.eos_token_id"].contents()


def test_text_survives_a_round_trip(llama: TinyModel) -> None:
    """Any text decodes to itself, and nothing is added to it."""
    tokenizer = _tokenizer(llama.hf)
    encoded = tokenizer.encode(TEXT)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == TEXT
    assert len(encoded.ids) < len(TEXT.encode())


def test_each_digit_is_a_token_of_its_own(llama: TinyModel) -> None:
    """Numbers never merge, as with llama.cpp's pre-tokenizer "smollm"."""
    assert _tokenizer(llama.hf).encode("a 2024").tokens == ["a", "Ġ", "2", "0", "2", "4"]


def test_chat_markers_are_single_tokens(llama: TinyModel) -> None:
    """The special tokens of the chat template are found in text."""
    assert _tokenizer(llama.hf).encode("<|im_start|>a<|im_end|>").ids[::2] == [1, 2]


def test_equal_seeds_give_equal_files_in_another_process(llama: TinyModel, tmp_path: Path) -> None:
    """Nothing depends on hash order, time or process: scores of a tiny model can be compared across runs."""
    script = "import sys, pathlib; from evalkit.testing.tiny import tiny_llama as f; f(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (llama.hf / name).read_bytes(), name
    assert (tmp_path / llama.gguf.name).read_bytes() == llama.gguf.read_bytes()


def test_another_seed_gives_other_weights(llama: TinyModel, tmp_path: Path) -> None:
    """The seed changes the weights and only the weights."""
    other = tiny_llama(tmp_path, seed=1)
    assert (other.hf / "model.safetensors").read_bytes() != (llama.hf / "model.safetensors").read_bytes()
    assert (other.hf / "tokenizer.json").read_bytes() == (llama.hf / "tokenizer.json").read_bytes()


def test_mistral_has_the_window_asked_for(tmp_path: Path) -> None:
    """The checkpoint differs from the Llama's in its window."""
    config = json.loads((tiny_mistral_sliding(tmp_path, window=8) / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 8)


def test_t5_ends_every_input_with_its_end_token(tmp_path: Path) -> None:
    """An encoder-decoder's tokenizer adds a token by itself: engines must ask for that or against it."""
    tokenizer = _tokenizer(tiny_t5(tmp_path))
    assert tokenizer.encode("Paris").tokens[-1] == "</s>"
    assert "</s>" not in tokenizer.encode("Paris", add_special_tokens=False).tokens


def test_predictions_are_sharp_and_use_the_whole_context(llama: TinyModel) -> None:
    """Another first token gives other predictions 30 tokens later; no prediction is flat or certain."""
    torch = pytest.importorskip("torch", reason="running the model needs torch")
    transformers = pytest.importorskip("transformers", reason="running the model needs transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(llama.hf)
    tokens = torch.randint(3, 300, (4, 60), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        before, after = (model(input_ids=ids).logits for ids in (tokens, changed))
    assert 0.2 < before.softmax(-1).max(-1).values.median() < 0.8
    assert (before.argmax(-1) != after.argmax(-1))[:, 30:].float().mean() > 0.2
