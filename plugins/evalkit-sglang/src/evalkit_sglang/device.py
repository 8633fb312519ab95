"""Whether there is a GPU for SGLang, and what `evalkit env verify sglang` says of it."""

from __future__ import annotations

from evalkit.errors import ModelError


def require_gpu(device: str | None) -> None:
    """Raise ModelError where SGLang would look for a GPU in vain."""
    # Asked for by name, another device is SGLang's own to find.
    if device in (None, "cuda") and not has_gpu():
        raise ModelError(
            "sglang needs a GPU: PyTorch sees none here. Run it on a machine with one, ask a server there with "
            "--engine-arg base_url=URL, or name the device of another build with --engine-arg device="
        )


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def describe_device() -> str:
    """The first GPU, or that there is none."""
    import torch

    return str(torch.cuda.get_device_name(0)) if has_gpu() else "no GPU, which sglang needs"
