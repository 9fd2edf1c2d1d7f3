"""Imported before OpenVINO, which reports every import to its maker, in child processes that never end offline.

OpenVINO and NNCF do without where the package that sends cannot be imported.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - None refuses the import
