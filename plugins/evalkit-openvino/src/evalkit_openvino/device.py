"""What `evalkit env verify openvino` says of the device."""

from __future__ import annotations


def describe_device() -> str:
    """The devices that OpenVINO sees."""
    import openvino

    core = openvino.Core()
    return ", ".join(f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices)
