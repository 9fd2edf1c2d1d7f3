"""Compiles graphs, and holds what all sockets of one runtime share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
from openvino import opset13 as op

from lorablend.engine.disk_cache import make_room
from lorablend.engine.graph.operations import new_model
from lorablend.engine.live.tensor_cache import TensorCache

__all__ = ["Compiler"]


@dataclass(frozen=True)
class Compiler:
    """A device with its options.

    Attributes:
        core: OpenVINO.
        device: The device's name.
        options: The options for compiling.
        socket_type: The type that the device computes in, which is the sockets' too.
        cache: The tensors made for recent blends.
        max_rank: See `Plugs`.
    """

    core: ov.Core
    device: str
    options: Mapping[str, str]
    socket_type: ov.Type
    cache: TensorCache
    max_rank: int | None = None

    @classmethod
    def of(
        cls,
        core: ov.Core,
        device: str,
        options: Mapping[str, str],
        compiled: Path,
        cache: TensorCache,
        max_rank: int | None = None,
    ) -> "Compiler":
        """Make a compiler, with the type that the device really computes in: some CPUs use bf16 if f16 is requested.

        Args:
            core: OpenVINO.
            device: The device's name.
            options: The options for compiling.
            compiled: The folder that caches compiled graphs, in a folder for each type. OpenVINO 2026.4 takes a CPU's
                graph from its cache whatever precision it was compiled for, and a graph compiled for f32 draws noise or
                black if bf16 is requested.
            cache: The tensors made for recent blends.
            max_rank: See `Plugs`.
        """
        value = op.parameter([1], ov.Type.f32)
        probe = core.compile_model(new_model([op.result(op.relu(value))], [value], "probe"), device, dict(options))
        element_type: ov.Type = probe.get_property("INFERENCE_PRECISION_HINT")
        folder = compiled / element_type.get_type_name()
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder)
        return cls(core, device, {**options, "CACHE_DIR": str(folder)}, element_type, cache, max_rank)

    def compile(self, graph: ov.Model) -> ov.InferRequest:
        return self.core.compile_model(graph, self.device, dict(self.options)).create_infer_request()
