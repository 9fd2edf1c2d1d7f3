"""The devices of this machine that OpenVINO finds."""

import openvino as ov

from lorablend.adapters.errors import DeviceError

__all__ = ["devices", "resolve_device"]


def devices() -> list[tuple[str, str]]:
    """The (name, full name) of each device: ("CPU", "Intel(R) Core(TM) …"); several of a kind are "GPU.0", "GPU.1"…"""
    core = ov.Core()
    return [(name, str(core.get_property(name, "FULL_DEVICE_NAME"))) for name in core.available_devices]


def resolve_device(name: str) -> str:
    """Return `name` as OpenVINO writes it; "gpu" is the first of several.

    Raises:
        DeviceError: this machine has no such device.
    """
    available = ov.Core().available_devices
    wanted = name.strip().upper()
    for device in (wanted, f"{wanted}.0"):
        if device in available:
            return device
    raise DeviceError(f"device {name} not found; this machine has {', '.join(available)}")
