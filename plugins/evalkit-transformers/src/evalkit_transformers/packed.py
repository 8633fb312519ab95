"""Weights in the layout that oneDNN multiplies with, made once at load instead of in every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

USUAL_ROWS = 512
"""Rows of input that the layout is chosen for. On AVX-512 it is the same for any number."""


class PackedLinear(nn.Module):  # type: ignore[misc]  # torch is Any where it is not installed
    """A linear layer with packed weights: the same results, without packing them anew for each input.

    A third less time for a few rows (generation), 3 % (bfloat16) to 10 % (float32) less for thousands. Uses the
    operators that `torch.compile` itself puts in for constant weights on a CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), USUAL_ROWS)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """From [..., in_features] to [..., out_features]."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return result

    def unpacked(self) -> nn.Linear:
        """An ordinary layer with the same weights."""
        linear = nn.Linear(1, 1, bias=False, device="meta")
        linear.in_features, linear.out_features = self.in_features, self.out_features
        linear.weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        linear.bias = self.bias
        return linear


def pack_weights(model: Any, check: Callable[[], Tensor]) -> bool:
    """Pack the linear layers of a model on a CPU, all but its output head. Whether that was possible.

    `check()` runs the model. Where it fails or gives something else afterwards, the layers are as they were.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16) or not _operators():
        return False
    expected = check()
    _replace(model, nn.Linear, PackedLinear)
    try:
        if torch.allclose(check().float(), expected.float(), rtol=1e-2, atol=1e-2):
            return True
    except (RuntimeError, AttributeError, TypeError):
        # Some models reach for a layer's weight itself. What else is wrong will show again in plain layers.
        pass
    _replace(model, PackedLinear, PackedLinear.unpacked)
    return False


def _operators() -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _replace(model: Any, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    """Put `make(layer)` in the place of each layer of exactly this kind, one by one, so that few exist twice."""
    for parent, name in list(_places(model, kind)):
        setattr(parent, name, make(getattr(parent, name)))


def _places(model: Any, kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    head = model.get_output_embeddings()
    for parent in model.modules():
        for name, child in parent.named_children():
            # Quantized layers are subclasses; accelerate brings the weights of layers with a hook from elsewhere.
            if type(child) is kind and child is not head and not hasattr(child, "_hf_hook"):
                yield parent, name
