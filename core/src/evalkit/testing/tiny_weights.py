"""The weights of tiny random models, drawn so that predictions are sharp and depend on the whole context."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, in the names of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int

    @property
    def head_dim(self) -> int:
        """Values of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def intermediate_size(self) -> int:
        """Values between the two halves of a feed-forward layer."""
        return 2 * self.hidden_size


class Random:
    """Draws weights. A gain of 1 keeps the size of what goes in; more on queries makes attention choosy."""

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._generator = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> NDArray[np.float32]:
        """A linear layer's weights."""
        return self._normal((rows, columns)) * (gain / math.sqrt(columns))

    def norm(self, width: int) -> NDArray[np.float32]:
        """A norm's weights."""
        # Not all ones: an engine that forgets a norm's weight must not go unnoticed.
        return 1.0 + 0.1 * self._normal((width,))

    def _normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        import numpy as np

        return self._generator.standard_normal(shape, dtype=np.float32)


def decoder_weights(shape: Shape, seed: int) -> Weights:
    """Weights of a Llama, named as in Transformers."""
    draw, hidden = Random(seed), shape.hidden_size
    weights = {"model.embed_tokens.weight": draw.matrix(shape.vocab_size, hidden, gain=hidden**0.5)}
    for number in range(shape.num_hidden_layers):
        layer = _decoder_layer(draw, shape)
        weights |= {f"model.layers.{number}.{name}.weight": values for name, values in layer.items()}
    weights["model.norm.weight"] = draw.norm(hidden)
    weights["lm_head.weight"] = draw.matrix(shape.vocab_size, hidden, gain=3.5)
    return weights


def _decoder_layer(draw: Random, shape: Shape) -> Weights:
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


def t5_weights(config: dict[str, Any], seed: int) -> Weights:
    """Weights of a T5, named as in Transformers."""
    draw, width = Random(seed), config["d_model"]
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


def _t5_block(draw: Random, config: dict[str, Any], attentions: tuple[str, ...], *, first: bool) -> Weights:
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
