"""Quantized layers unpacked into plain linear ones: the same weights for kernels that read many tokens quickly.

On a CPU GPTQModel's kernels unpack weights for each few rows of input anew; a pass over hundreds of tokens takes ten
times as long as with plain weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.errors import ConfigError, one_line
from evalkit.memory import available_memory
from evalkit_gptqmodel.load import PACKAGE

SHARE = 0.6
"""Of the free memory, what unpacked weights may take."""
TOLERANCE = 0.03
"""How far a kernel's results may be from those of the unpacked weights, as a share of their size: they round too."""


class NotUnpackedError(ValueError):
    """A layer's weights cannot be had."""


def unpack_layers(model: Any, *, asked: bool | None, kernel_chosen: bool) -> int:
    """Unpack quantized layers of a model; how many. Raises ConfigError where that is asked for and cannot be.

    Where `asked` is None: on a CPU, if memory allows, and if nobody chose a kernel.
    """
    if asked is False or (asked is None and (kernel_chosen or model.device.type != "cpu" or not _fits(model))):
        return 0
    count, checked = 0, set()
    for parent, name in list(_places(model)):
        layer = getattr(parent, name)
        kind = (type(layer), layer.bits, layer.in_features, layer.out_features)
        try:
            # The first of each kind: kernels take as long to prepare as the rest of it.
            setattr(parent, name, unpacked(layer, model.dtype, check=kind not in checked))
            checked.add(kind)
            count += 1
        except NotUnpackedError as error:
            if asked:
                raise ConfigError(f"{one_line(error, 200)}. Give dequantize=no") from error
    return count


def unpacked(layer: Any, dtype: torch.dtype, *, check: bool) -> nn.Linear:
    """A plain layer with the weights of a quantized one, its adapter's among them. Raises NotUnpackedError.

    `check` compares its results with those of the layer's kernel.
    """
    with torch.inference_mode():
        weight, bias = _weight(layer), layer.bias
        if check:
            _compare(layer, weight, dtype)
    plain = nn.Linear(1, 1, bias=False, device="meta")
    plain.in_features, plain.out_features = weight.shape
    plain.weight = nn.Parameter(weight.t().to(dtype).contiguous(), requires_grad=False)
    plain.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
    return plain


def _compare(layer: Any, weight: Tensor, dtype: torch.dtype) -> None:
    inputs = torch.randn((4, weight.shape[0]), generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(weight.device, dtype)
    expected = inputs.float() @ weight + (0 if layer.bias is None else layer.bias.float())
    difference = torch.linalg.norm(layer(inputs).float() - expected)
    if not difference <= TOLERANCE * torch.linalg.norm(expected):
        raise NotUnpackedError(f"the weights of {type(layer).__name__} cannot be unpacked: its results are others")


def _weight(layer: Any) -> Tensor:
    """The weights of a layer, its adapter's among them, [in, out] in float32; before its kernel rearranges them."""
    weight: Tensor
    if hasattr(layer, "awq_weight_dequantize"):
        weight = layer.awq_weight_dequantize(device=layer.qweight.device, dtype=torch.float32)
    elif hasattr(layer, "dequantize_weight") and hasattr(layer, "g_idx"):
        scales = layer.scales
        # As numbers of half precision they would round the products.
        layer.scales = scales.float()
        weight = layer.dequantize_weight().float()
        layer.scales = scales
    else:
        raise NotUnpackedError(f"evalkit does not know how to unpack the weights of {type(layer).__name__}")
    if layer.adapter is not None:
        weight = weight + layer.adapter.lora_A.float() @ layer.adapter.lora_B.float()
    return weight


def _fits(model: Any) -> bool:
    layers = [getattr(parent, name) for parent, name in _places(model)]
    room = available_memory()
    return (
        room is None or sum(one.in_features * one.out_features for one in layers) * model.dtype.itemsize < SHARE * room
    )


def _places(model: Any) -> Iterator[tuple[nn.Module, str]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child).__module__.startswith(PACKAGE):
                yield parent, name
