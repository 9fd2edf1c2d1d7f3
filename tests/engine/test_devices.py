"""Devices by name."""

import openvino as ov
import pytest

from lorablend.adapters.errors import DeviceError
from lorablend.engine.devices import devices, resolve_device


def test_the_cpu_is_here() -> None:
    names = dict(devices())
    assert names["CPU"]
    assert resolve_device("CPU") == resolve_device(" cpu ") == "CPU"


def test_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov.Core, "available_devices", ["CPU", "GPU.0", "GPU.1"])
    assert resolve_device("gpu") == "GPU.0"
    assert resolve_device("GPU.1") == "GPU.1"
    with pytest.raises(DeviceError) as caught:
        resolve_device("NPU")
    assert str(caught.value) == "device NPU not found; this machine has CPU, GPU.0, GPU.1"
