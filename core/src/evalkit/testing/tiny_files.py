"""The files of tiny models: tokenizers, Hugging Face checkpoints, GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from evalkit.testing.tiny_weights import Shape, Weights

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

DECODER_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
DECODER_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
T5_SPECIALS = ("<pad>", "</s>", "<unk>")
# Not the usual 10000: an engine that ignores it must not go unnoticed.
ROPE_THETA = 20000.0
NORM_EPS = 1e-5

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


def make_tokenizer(vocab: int = 384, specials: tuple[str, ...] = DECODER_SPECIALS) -> Tokenizer:
    """A tokenizer over all bytes, with as many merges as fit into `vocab` and as its text gives."""
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


def write_checkpoint(folder: Path, config: dict[str, Any], weights: Weights, tokenizer: Tokenizer) -> None:
    """Write a Hugging Face checkpoint."""
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


def write_gguf(
    path: Path, architecture: str, describe: Callable[[GGUFWriter], None], tensors: Weights, tokenizer: Tokenizer
) -> None:
    """Write a GGUF file in float32; `describe` adds what the architecture asks for."""
    from gguf import GGUFWriter
    from gguf.constants import LlamaFileType

    writer = GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_file_type(LlamaFileType.ALL_F32)
    describe(writer)
    _add_tokenizer(writer, tokenizer)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_llama_gguf(path: Path, shape: Shape, weights: Weights, tokenizer: Tokenizer) -> None:
    """Write the weights of a Llama, named and laid out as Transformers has them, as GGUF."""
    tensors = {_gguf_name(name): _gguf_values(name, values, shape) for name, values in weights.items()}
    write_gguf(path, "llama", lambda writer: _describe_llama(writer, shape), tensors, tokenizer)


def add_sizes(writer: GGUFWriter, config: Any) -> None:
    """What every architecture with attention asks for; `config` has the names of config.json."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)


def _describe_llama(writer: GGUFWriter, shape: Shape) -> None:
    add_sizes(writer, shape)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(NORM_EPS)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    from gguf.constants import TokenType

    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = TokenType.CONTROL, TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in DECODER_SPECIALS else normal for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(DECODER_IDS["bos_token_id"])
    writer.add_eos_token_id(DECODER_IDS["eos_token_id"])
    writer.add_pad_token_id(DECODER_IDS["pad_token_id"])
    writer.add_unk_token_id(DECODER_IDS["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return _GGUF_NAMES[name.removesuffix(".weight")] + ".weight"
    number, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{number}.{_GGUF_NAMES[part]}.weight"


def _gguf_values(name: str, values: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    if name.endswith("q_proj.weight"):
        return _interleave_halves(values, shape.num_attention_heads)
    if name.endswith("k_proj.weight"):
        return _interleave_halves(values, shape.num_key_value_heads)
    return values


def _interleave_halves(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    # transformers rotates the halves of a head against each other, llama.cpp rotates neighbouring rows.
    halves = rows.reshape(heads, 2, -1, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)
