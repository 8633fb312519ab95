"""Change an exported graph so that a pass reads a tree of texts, and computes logits at chosen tokens only."""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as ops

from evalkit.errors import ModelError

MASK, WINDOW_MASK, ROWS = "evalkit_mask", "evalkit_window_mask", "evalkit_rows"
ATTENTION = "ScaledDotProductAttention"


def check_inputs(model: Any) -> None:
    """Refuse graphs that keep no cells, or take positions from the mask. Raises ModelError."""
    if not model.get_variables():
        raise ModelError(
            "the exported model is not stateful. Export it anew without --disable-stateful, or give its checkpoint"
        )
    # With ALiBi they are a bias in the mask, which `open_attention` replaces.
    if "position_ids" not in {name for value in model.inputs for name in value.names}:
        raise ModelError(
            "this model takes no position_ids: its positions are in its attention mask (ALiBi), which the openvino "
            "engine replaces. Use --engine transformers"
        )


def open_attention(model: Any, windows: list[int | None]) -> list[str]:
    """Replace the causal masks by inputs, additive and of shape [1, 1, tokens, cells + tokens]; their names.

    `windows` has the sliding window of each layer: layers with one read a mask of their own.
    """
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() == ATTENTION]
    if len(layers) != len(windows) or any(node.get_input_size() < 4 for node in layers):
        raise ModelError(
            "this model's attention is not of the kind that the openvino engine knows "
            f"({len(layers)} of {len(windows)} layers). Use --engine transformers"
        )
    inputs: dict[str, Any] = {}
    for node, window in zip(layers, windows, strict=True):
        name = MASK if window is None else WINDOW_MASK
        if name not in inputs:
            inputs[name] = ops.parameter([1, 1, -1, -1], np.float32, name=name)
            inputs[name].output(0).set_names({name})
        node.input(3).replace_source_output(inputs[name].output(0))
    model.add_parameters(list(inputs.values()))
    return sorted(inputs)


def choose_rows(model: Any) -> None:
    """Let only chosen tokens' hidden states reach the output head: logits are then [1, rows, vocabulary]."""
    head = model.output("logits").get_node().input_value(0).get_node()
    # What may stand behind the head keeps its place: soft caps, scaling, a change of type.
    while head.get_type_name() != "MatMul":
        sources = [value.get_node() for value in head.input_values()]
        head = next((node for node in sources if node.get_type_name() != "Constant"), None)
        if head is None:
            raise ModelError("the output head of this model cannot be found. Use --engine transformers")
    rows = ops.parameter([-1], np.int64, name=ROWS)
    rows.output(0).set_names({ROWS})
    hidden = head.input_value(0)
    head.input(0).replace_source_output(ops.gather(hidden, rows, np.int64(1)).output(0))
    model.add_parameters([rows])
