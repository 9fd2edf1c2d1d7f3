"""Where graphs are compiled, and what all sockets of one runtime share."""

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
    """A device with its options, the type that it computes in, and the tensors made for recent blends.

    max_rank: see `Plugs`.
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
        """With the type that the device really computes in with these options: asked for f16, some CPUs take bf16.

        compiled: a folder where compiled graphs are kept, each type's in its own: OpenVINO 2026.4 finds a CPU's graph
        again whatever precision it was compiled for, and one of f32 draws noise or black where bf16 is asked for.
        """
        value = op.parameter([1], ov.Type.f32)
        probe = core.compile_model(new_model([op.result(op.relu(value))], [value], "probe"), device, dict(options))
        found: ov.Type = probe.get_property("INFERENCE_PRECISION_HINT")
        folder = compiled / found.get_type_name()
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder)
        return cls(core, device, {**options, "CACHE_DIR": str(folder)}, found, cache, max_rank)

    def compile(self, graph: ov.Model) -> ov.InferRequest:
        return self.core.compile_model(graph, self.device, dict(self.options)).create_infer_request()
