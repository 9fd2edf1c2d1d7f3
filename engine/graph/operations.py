"""Small edits of OpenVINO graphs, and the places where OpenVINO's type annotations are wrong."""

from collections.abc import Callable, Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

__all__ = ["GraphInputs", "add_after", "new_model", "replace_after", "rounded"]

# A float32 with its low 16 bits rounded away, to nearest, is x * 65537 - (x * 65537 - x) in float32 arithmetic
# (T. J. Dekker, "A floating-point technique for extending the available precision", 1971).
_DEKKER = np.float32(2**16 + 1)


def new_model(results: Sequence[ov.Node], parameters: Sequence[ov.Node], name: str) -> ov.Model:
    """The part of a graph between `parameters` and `results`."""
    return ov.Model(list(results), list(parameters), name)  # pyright: ignore


class GraphInputs:
    """New inputs of a graph, all of one element type; the graph reads them as f32."""

    def __init__(self, model: ov.Model, element_type: ov.Type) -> None:
        self._model = model
        self._type = element_type
        self.parameters: list[ov.Node] = []

    def new(self, name: str, shape: Sequence[int] | ov.PartialShape) -> ov.Output:
        """Make an input; a dimension of -1 is dynamic."""
        parameter = op.parameter(ov.PartialShape(list(shape)), self._type, name=name)
        parameter.output(0).set_names({name})
        self.parameters.append(parameter)
        return parameter.output(0) if self._type == ov.Type.f32 else op.convert(parameter, ov.Type.f32).output(0)

    def add_to_model(self) -> None:
        self._model.add_parameters(self.parameters)
        self._model.validate_nodes_and_infer_types()
        self.parameters = []


def add_after(out: ov.Output, update: ov.Output | Callable[[], ov.Output]) -> None:
    """Make everything that reads `out` read out + update. A function may itself read `out`, which it gets unchanged."""
    replace_after(out, lambda: op.add(out, update() if callable(update) else update).output(0))


def replace_after(out: ov.Output, new: Callable[[], ov.Output]) -> None:
    """Make everything that reads `out` read new(), which may itself read `out`."""
    consumers = list(out.get_target_inputs())
    value = new()
    for consumer in consumers:
        consumer.replace_source_output(value)


def rounded(value: ov.Output, element_type: ov.Type) -> ov.Output:
    """Convert a float32 to another type, rounded to nearest.

    The CPU plugin's conversion to bf16 truncates, which would weaken every adapter by 0.2 % on average.
    """
    if element_type == ov.Type.bf16:
        high = op.multiply(value, op.constant(_DEKKER))
        value = op.subtract(high, op.subtract(high, value)).output(0)
    return op.convert(value, element_type).output(0)
