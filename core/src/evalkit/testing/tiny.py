"""Tiny random models built on the spot: real file formats, a second to write, the same for equal seeds.

Their text is nonsense, but their predictions are sharp and depend on the whole context, so an engine that
masks, shifts or truncates wrongly gets other scores. Needs the extra `evalkit-core[testing]`; never torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    Weights = dict[str, NDArray[np.float32]]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_DECODER_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_DECODER_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "vocab_size": 384,
    **_DECODER_IDS,
}
"""Fields of a small model's configuration, whatever its architecture."""
_T5_SPECIALS = ("<pad>", "</s>", "<unk>")
# Not the usual 10000: an engine that ignores it must not go unnoticed.
_ROPE_THETA = 20000.0
_NORM_EPS = 1e-5

_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

# What the merges are learned from: plain prose, so that common English words become one or two tokens.
_TEXT = """The question is short, and the answer to the question is one of the choices that are given below.
A man is standing in the kitchen. He takes the water from the table and then he starts to cook the rice.
What is the capital of France? The capital of France is Paris, and the capital of Spain is Madrid.
There were three apples on the table and she ate one of them, so how many apples are there now?
They have been working with other people in the city for more than ten years, which is a long time.
The sun is a star, the earth is a planet, and the moon goes around the earth in about one month."""


@dataclass(frozen=True)
class TinyModel:
    """One model in two formats: equal weights, equal token ids."""

    hf: Path
    """Folder of the Hugging Face checkpoint."""
    gguf: Path
    """The same weights for llama.cpp, in float32."""


@dataclass(frozen=True)
class _Shape:
    """The sizes of a decoder, in the names of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def intermediate_size(self) -> int:
        return 2 * self.hidden_size


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
    tokenizer = _tokenizer(vocab, _DECODER_SPECIALS)
    shape = _Shape(tokenizer.get_vocab_size(), hidden, layers, heads, kv_heads, context)
    weights = _decoder_weights(shape, seed)
    config = _decoder_config("LlamaForCausalLM", "llama", shape)
    model = TinyModel(hf=folder / "hf", gguf=folder / "tiny-llama.gguf")
    _write_checkpoint(model.hf, config, weights, tokenizer)
    _write_gguf(model.gguf, shape, weights, tokenizer)
    return model


def tiny_mistral_sliding(folder: Path, *, seed: int = 0, window: int = 16) -> Path:
    """Write a Mistral that attends to the last `window` tokens only; return its checkpoint folder."""
    tokenizer = _tokenizer(384, _DECODER_SPECIALS)
    shape = _Shape(tokenizer.get_vocab_size(), 128, 2, 4, 2, 256)
    config = _decoder_config("MistralForCausalLM", "mistral", shape) | {"sliding_window": window}
    _write_checkpoint(folder, config, _decoder_weights(shape, seed), tokenizer)
    return folder


def tiny_t5(folder: Path, *, seed: int = 0) -> Path:
    """Write an encoder-decoder T5 whose tokenizer ends every input with `</s>`; return its folder."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = _tokenizer(384, _T5_SPECIALS)
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    config = _t5_config(tokenizer.get_vocab_size())
    _write_checkpoint(folder, config, _t5_weights(config, seed), tokenizer)
    return folder


def _tokenizer(vocab: int, specials: tuple[str, ...]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # The parts of SmolLM2's tokenizer, which llama.cpp knows as "smollm": every digit is a token of its own.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return tokenizer


def _decoder_config(architecture: str, model_type: str, shape: _Shape) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        **vars(shape),
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": _NORM_EPS,
        "rope_theta": _ROPE_THETA,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **_DECODER_IDS,
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


class _Random:
    """Draws weights. A gain of 1 keeps the size of what goes in; more on queries makes attention choosy."""

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._generator = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> NDArray[np.float32]:
        return self._normal((rows, columns)) * (gain / math.sqrt(columns))

    def norm(self, width: int) -> NDArray[np.float32]:
        # Not all ones: an engine that forgets a norm's weight must not go unnoticed.
        return 1.0 + 0.1 * self._normal((width,))

    def _normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        import numpy as np

        return self._generator.standard_normal(shape, dtype=np.float32)


def _decoder_weights(shape: _Shape, seed: int) -> Weights:
    draw, hidden = _Random(seed), shape.hidden_size
    weights = {"model.embed_tokens.weight": draw.matrix(shape.vocab_size, hidden, gain=hidden**0.5)}
    for number in range(shape.num_hidden_layers):
        layer = _decoder_layer(draw, shape)
        weights |= {f"model.layers.{number}.{name}.weight": values for name, values in layer.items()}
    weights["model.norm.weight"] = draw.norm(hidden)
    weights["lm_head.weight"] = draw.matrix(shape.vocab_size, hidden, gain=3.5)
    return weights


def _decoder_layer(draw: _Random, shape: _Shape) -> Weights:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    key_width = shape.head_dim * shape.num_key_value_heads
    return {
        "input_layernorm": draw.norm(hidden),
        "self_attn.q_proj": draw.matrix(hidden, hidden, gain=2.0),
        "self_attn.k_proj": draw.matrix(key_width, hidden),
        "self_attn.v_proj": draw.matrix(key_width, hidden),
        "self_attn.o_proj": draw.matrix(hidden, hidden, gain=2.0),
        "post_attention_layernorm": draw.norm(hidden),
        "mlp.gate_proj": draw.matrix(inner, hidden),
        "mlp.up_proj": draw.matrix(inner, hidden),
        "mlp.down_proj": draw.matrix(hidden, inner, gain=2.0),
    }


def _t5_weights(config: dict[str, Any], seed: int) -> Weights:
    draw, width = _Random(seed), config["d_model"]
    weights = {"shared.weight": draw.matrix(config["vocab_size"], width, gain=width**0.5)}
    stacks = {"encoder": ("SelfAttention",), "decoder": ("SelfAttention", "EncDecAttention")}
    for stack, attentions in stacks.items():
        for number in range(config["num_layers"]):
            block = _t5_block(draw, config, attentions, first=number == 0)
            prefix = f"{stack}.block.{number}.layer"
            weights |= {f"{prefix}.{name}.weight": values for name, values in block.items()}
        weights[f"{stack}.final_layer_norm.weight"] = draw.norm(width)
    # The embeddings are the head too: a norm of mixed signs keeps it from repeating its last token.
    weights["decoder.final_layer_norm.weight"] = draw.matrix(width, 1, gain=3.5)[:, 0]
    return weights


def _t5_block(draw: _Random, config: dict[str, Any], attentions: tuple[str, ...], *, first: bool) -> Weights:
    width, inner, feed_forward = config["d_model"], config["d_ff"], len(attentions)
    block: Weights = {}
    for place, attention in enumerate(attentions):
        block[f"{place}.layer_norm"] = draw.norm(width)
        # T5 does not divide scores by the root of the head's width: its queries are that much smaller.
        block[f"{place}.{attention}.q"] = draw.matrix(width, width, gain=2.0 / config["d_kv"] ** 0.5)
        block |= {f"{place}.{attention}.{part}": draw.matrix(width, width) for part in "kvo"}
    if first:
        buckets = draw.matrix(config["relative_attention_num_buckets"], config["num_heads"], gain=2.0)
        block["0.SelfAttention.relative_attention_bias"] = buckets
    block[f"{feed_forward}.layer_norm"] = draw.norm(width)
    block |= {f"{feed_forward}.DenseReluDense.{part}": draw.matrix(inner, width) for part in ("wi_0", "wi_1")}
    block[f"{feed_forward}.DenseReluDense.wo"] = draw.matrix(width, inner)
    return block


def _write_checkpoint(folder: Path, config: dict[str, Any], weights: Weights, tokenizer: Tokenizer) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    special_ids = {name: value for name, value in config.items() if name.endswith("_token_id")}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", special_ids)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(config, tokenizer))
    tokenizer.save(str(folder / "tokenizer.json"))
    # transformers 4 refuses a file that does not name its framework.
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer_config(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    names = ("bos", "eos", "pad")
    special = {f"{name}_token": config[f"{name}_token_id"] for name in names if f"{name}_token_id" in config}
    content: dict[str, Any] = {
        # The class that takes tokenizer.json as it is, whatever the model.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # Without it transformers 4 also returns token_type_ids, which these models refuse.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": config.get("max_position_embeddings", config.get("n_positions")),
        **{name: tokenizer.id_to_token(number) for name, number in special.items()},
    }
    return content if config.get("is_encoder_decoder") else content | {"chat_template": CHAT_TEMPLATE}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_gguf(path: Path, shape: _Shape, weights: Weights, tokenizer: Tokenizer) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    _add_sizes(writer, shape)
    _add_tokenizer(writer, tokenizer)
    for name, values in weights.items():
        writer.add_tensor(_gguf_name(name), _gguf_values(name, values, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: GGUFWriter, shape: _Shape) -> None:
    from gguf.constants import LlamaFileType

    writer.add_name("tiny-llama")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(_ROPE_THETA)
    writer.add_layer_norm_rms_eps(_NORM_EPS)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    from gguf.constants import TokenType

    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = TokenType.CONTROL, TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in _DECODER_SPECIALS else normal for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(_DECODER_IDS["bos_token_id"])
    writer.add_eos_token_id(_DECODER_IDS["eos_token_id"])
    writer.add_pad_token_id(_DECODER_IDS["pad_token_id"])
    writer.add_unk_token_id(_DECODER_IDS["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return _GGUF_NAMES[name.removesuffix(".weight")] + ".weight"
    number, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{number}.{_GGUF_NAMES[part]}.weight"


def _gguf_values(name: str, values: NDArray[np.float32], shape: _Shape) -> NDArray[np.float32]:
    if name.endswith("q_proj.weight"):
        return _interleave_halves(values, shape.num_attention_heads)
    if name.endswith("k_proj.weight"):
        return _interleave_halves(values, shape.num_key_value_heads)
    return values


def _interleave_halves(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    # transformers rotates the halves of a head against each other, llama.cpp rotates neighbouring rows.
    halves = rows.reshape(heads, 2, -1, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)
