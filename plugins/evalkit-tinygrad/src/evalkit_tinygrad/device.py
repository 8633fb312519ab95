"""What `evalkit env verify tinygrad` says of the device."""

from __future__ import annotations


def describe_device() -> str:
    """The device that tinygrad would take."""
    from tinygrad import Device

    return str(Device.DEFAULT)
