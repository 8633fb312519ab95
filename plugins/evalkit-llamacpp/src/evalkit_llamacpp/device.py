"""What `evalkit env verify llamacpp` says of the device."""

from __future__ import annotations


def describe_device() -> str:
    """What this build of llama.cpp computes on."""
    import llama_cpp

    features = llama_cpp.llama_print_system_info().decode().strip(" |")
    return f"{'gpu' if llama_cpp.llama_supports_gpu_offload() else 'cpu'}, {features}"
