"""Tiny random models built on the spot: real file formats, a second to write, the same for equal seeds.

Their text is nonsense, but their predictions are sharp and depend on the whole context, so an engine that
masks, shifts or truncates wrongly gets other scores. Needs the extra `evalkit-core[testing]`; never torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.testing.tiny_files import (
    DECODER_IDS,
    NORM_EPS,
    ROPE_THETA,
    T5_SPECIALS,
    make_tokenizer,
    write_checkpoint,
    write_llama_gguf,
)
from evalkit.testing.tiny_weights import Shape, decoder_weights, t5_weights

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "vocab_size": 384,
    **DECODER_IDS,
}
"""Fields of a small model's configuration, whatever its architecture."""


@dataclass(frozen=True)
class TinyModel:
    """One model in two formats: equal weights, equal token ids."""

    hf: Path
    """Folder of the Hugging Face checkpoint."""
    gguf: Path
    """The same weights for llama.cpp, in float32."""


def tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    vocab: int = 384,
    layers: int = 2,
    hidden: int = 128,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 256,
) -> TinyModel:
    """Write a Llama into `folder`, as a Hugging Face checkpoint and as GGUF.

    `vocab` is at least 259 (all bytes and three special tokens); what is above becomes merges, as far as the
    text they are learned from goes. The default heads are 32 wide, the narrowest that every engine runs.
    """
    tokenizer = make_tokenizer(vocab)
    shape = Shape(tokenizer.get_vocab_size(), hidden, layers, heads, kv_heads, context)
    weights = decoder_weights(shape, seed)
    config = _decoder_config("LlamaForCausalLM", "llama", shape)
    model = TinyModel(hf=folder / "hf", gguf=folder / "tiny-llama.gguf")
    write_checkpoint(model.hf, config, weights, tokenizer)
    write_llama_gguf(model.gguf, shape, weights, tokenizer)
    return model


def tiny_mistral_sliding(folder: Path, *, seed: int = 0, window: int = 16) -> Path:
    """Write a Mistral that attends to the last `window` tokens only; return its checkpoint folder."""
    tokenizer = make_tokenizer()
    shape = Shape(tokenizer.get_vocab_size(), 128, 2, 4, 2, 256)
    config = _decoder_config("MistralForCausalLM", "mistral", shape) | {"sliding_window": window}
    write_checkpoint(folder, config, decoder_weights(shape, seed), tokenizer)
    return folder


def tiny_t5(folder: Path, *, seed: int = 0) -> Path:
    """Write an encoder-decoder T5 whose tokenizer ends every input with `</s>`; return its folder."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(384, T5_SPECIALS)
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    config = _t5_config(tokenizer.get_vocab_size())
    write_checkpoint(folder, config, t5_weights(config, seed), tokenizer)
    return folder


def _decoder_config(architecture: str, model_type: str, shape: Shape) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        **vars(shape),
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **DECODER_IDS,
    }


def _t5_config(vocab_size: int) -> dict[str, Any]:
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": vocab_size,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 32,
        "n_positions": 256,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "layer_norm_epsilon": 1e-6,
        # transformers 5 ties these whatever the configuration says.
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }
