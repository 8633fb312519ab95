"""Make a Hugging Face checkpoint from the GGUF file, once, without torch or transformers.

transformers can read the GGUF itself, but the tokenizer that it converts is wrong (it adds a BOS token and
splits digits in the wrong places), so token ids and scores would differ from llama.cpp's.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

from evalkit.gguf_tokenizers import gguf_tokenizer
from evalkit_smollm2.gguf import check_sha256, gguf_file, model_dir

# Part of the folder's name: raise it whenever the files written here change.
FORMAT = "hf-v1"

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def hf_checkpoint() -> str:
    """Return the folder of the float32 checkpoint (540 MB), made on the first call and kept in the cache."""
    target = model_dir() / FORMAT
    if not target.is_dir():
        with FileLock(f"{target}.lock"):
            # Another process may have finished it while this one waited for the lock.
            if not target.is_dir():
                _build(target)
    return str(target)


def write_checkpoint(gguf: Path, folder: Path) -> None:
    """Write the checkpoint of a GGUF into the new `folder`: architecture llama, pre-tokenizer smollm."""
    reader = GGUFReader(gguf)
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", _config(reader))
    _write_json(folder / "generation_config.json", _special_ids(reader))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(reader))
    gguf_tokenizer({name: field.contents() for name, field in reader.fields.items()}).save(
        str(folder / "tokenizer.json")
    )
    # transformers 4 refuses a file that does not name its framework.
    save_file(dict(_weights(reader)), folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes for the owner alone, whatever the umask; caches are shared.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _build(target: Path) -> None:
    gguf = Path(gguf_file())
    check_sha256(gguf)
    # One fixed name, safe under the lock: what a killed build left behind is replaced, not piled up.
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_checkpoint(gguf, partial)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _weights(reader: GGUFReader) -> Iterator[tuple[str, NDArray[np.float32]]]:
    heads = {
        "attn_q": _value(reader, "llama.attention.head_count"),
        "attn_k": _value(reader, "llama.attention.head_count_kv"),
    }
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if layer is None:
            yield _OUTER_NAMES[tensor.name], values
            continue
        number, part = layer.groups()
        if part in heads:
            values = _unpermute(values, heads[part])
        yield f"model.layers.{number}.{_LAYER_NAMES[part]}.weight", values


def _unpermute(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    # llama.cpp rotates neighbouring rows (0,1)(2,3).. of a head, transformers rotates its halves against each
    # other: the converter interleaved the halves, and this takes them apart.
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _config(reader: GGUFReader) -> dict[str, Any]:
    heads = _value(reader, "llama.attention.head_count")
    width = _value(reader, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(_value(reader, "tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "max_position_embeddings": _value(reader, "llama.context_length"),
        # Stored as a 32-bit float: 1e-05 and not 9.999999747378752e-06.
        "rms_norm_eps": float(f"{_value(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": _value(reader, "llama.rope.freq_base"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "torch_dtype": "float32",
        **_special_ids(reader),
    }


def _special_ids(reader: GGUFReader) -> dict[str, int]:
    return {
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
    }


def _tokenizer_config(reader: GGUFReader) -> dict[str, Any]:
    tokens = _value(reader, "tokenizer.ggml.tokens")
    special = {name.removesuffix("_id"): tokens[number] for name, number in _special_ids(reader).items()}
    return {
        # The class that takes tokenizer.json as it is; Llama's own would rebuild it in transformers 5.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # Without it transformers 4 also returns token_type_ids, which the model refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _value(reader, "llama.context_length"),
        "unk_token": tokens[_value(reader, "tokenizer.ggml.unknown_token_id")],
        **special,
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
