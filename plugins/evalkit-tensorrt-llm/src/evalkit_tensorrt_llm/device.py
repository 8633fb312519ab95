"""Whether there is a GPU for TensorRT LLM, and what `evalkit env verify tensorrt-llm` says of it."""

from __future__ import annotations

from evalkit.errors import ModelError


def require_gpu() -> None:
    """Raise ModelError where there is none: the library would fail with something less clear."""
    if not has_gpu():
        raise ModelError(
            "tensorrt-llm needs a GPU: PyTorch sees none here. Run it on a machine with one, or ask a server "
            "there with --engine-arg base_url=URL"
        )


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def describe_device() -> str:
    """The first GPU, or that there is none."""
    import torch

    return str(torch.cuda.get_device_name(0)) if has_gpu() else "no GPU, which tensorrt-llm needs"
