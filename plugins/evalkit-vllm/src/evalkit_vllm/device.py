"""What `evalkit env verify vllm` says of the device."""

from __future__ import annotations


def describe_device() -> str:
    """What this build of vLLM computes on."""
    from evalkit_vllm.library import current_platform

    name = current_platform.device_type
    if not name:
        return "none that this build of vLLM knows"
    try:
        return f"{name} ({current_platform.get_device_name()})"
    except (NotImplementedError, RuntimeError, AssertionError):
        return str(name)
