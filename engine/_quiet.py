"""Turns off OpenVINO's telemetry; must be imported before OpenVINO.

OpenVINO reports every import to its maker, from child processes that never end without a network. OpenVINO and NNCF
work without the package that sends the reports.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - None makes the import fail
