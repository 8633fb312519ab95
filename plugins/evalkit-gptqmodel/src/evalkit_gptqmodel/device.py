"""What `evalkit env verify gptqmodel` says of the device."""

from __future__ import annotations


def describe_device() -> str:
    """The device that a model would be loaded on."""
    import torch

    if torch.cuda.is_available():
        return f"cuda, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
