"""Steered graphs: every adapter with its own weight at every place of the picture, changed from step to step.

Adapters (or groups of them) are columns. One input for each resolution of the UNet says what each column counts there,
`steer.<height>x<width>` [columns, height or 1, width or 1], and `steer.all` [columns, 1, 1] for layers that see no
place. Each socket knows by its `select` input [columns, rank], ones and zeros, which of its ranks are whose:

    hidden [places, rank]   becomes   hidden ∘ (placesᵀ · select)

so a new weight for a whole adapter is one small tensor. Cross-attention's keys and values belong to the prompt, not to
a place: there every region has a pair of its own, and the attention's output is their sum, weighted by
`regions.<height>x<width>` [regions, height · width or 1] (`join_regions`).
"""

from dataclasses import dataclass, field

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.engine.graph.operations import GraphInputs, replace_after

__all__ = ["Places", "Steering"]

Size = tuple[int, int]  # (height, width) in cells of a feature map


@dataclass
class Steering:
    """The steering inputs of one graph: made when the first layer of a resolution asks for them."""

    by_count: dict[int, Size]  # number of places -> the feature map's size
    inputs: dict[str, Size | None] = field(default_factory=dict)  # steer.… -> size, None for "all"
    regions: dict[str, Size] = field(default_factory=dict)  # regions.… -> size
    placeless: set[str] = field(default_factory=set)  # module paths of layers that see no place
    _places: dict[Size | None, "Places"] = field(default_factory=dict)
    _region_inputs: dict[str, ov.Output] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ov.Model) -> "Steering":
        """For a UNet of static shapes."""
        by_count: dict[int, Size] = {}
        for node in model.get_ordered_ops():
            if node.get_type_name() == "Convolution":
                height, width = (d.get_length() for d in list(node.output(0).get_partial_shape())[2:])
                by_count[height * width] = (height, width)
        return cls(by_count)

    def places(self, shape: ov.PartialShape, inputs: GraphInputs) -> "Places":
        """The places of a feature map [1, channels, height, width], of tokens [1, places, channels], or of neither."""
        sizes = [d.get_length() for d in shape]
        size = None if len(sizes) < 3 else (sizes[2], sizes[3]) if len(sizes) == 4 else self.by_count[sizes[1]]
        if size not in self._places:
            name = "steer.all" if size is None else f"steer.{size[0]}x{size[1]}"
            self.inputs[name] = size
            self._places[size] = Places(self, size, inputs.new(name, [-1, *map(_or_one, size or (1, 1))]))
        return self._places[size]

    def join_regions(self, attention: ov.Node, inputs: GraphInputs) -> None:
        """Attention over keys and values [regions, heads, tokens, width] of an open number of regions, joined."""
        count = attention.input_value(0).get_partial_shape()[2].get_length()
        size = self.by_count[count]
        name = f"regions.{size[0]}x{size[1]}"
        if name not in self.regions:
            self.regions[name] = size
            self._region_inputs[name] = inputs.new(name, [-1, _or_one(count)])
        weights = op.unsqueeze(self._region_inputs[name], op.constant(np.array([1, 3]))).output(0)
        number = op.gather(op.shape_of(weights), op.constant(np.array([0])), op.constant(np.array(0)))
        shape = op.concat([number, op.constant(np.array([1, 1, 1]))], 0)
        attention.input(0).replace_source_output(
            op.broadcast(attention.input_value(0), shape, broadcast_spec="BIDIRECTIONAL").output(0)
        )
        out = attention.output(0)
        replace_after(out, lambda: op.reduce_sum(op.multiply(out, weights), op.constant(np.array([0])), True).output(0))


def _or_one(length: int) -> int:
    """The dimension of an input that is either `length` or 1. One left open makes all that it meets of length 1 open
    too: behind the time embedding, the whole UNet."""
    return 1 if length == 1 else -1


@dataclass
class Places:
    """What every column counts at every place: `columns` [columns, height or 1, width or 1]."""

    steering: Steering
    size: Size | None
    columns: ov.Output

    def of_ranks(self, select: ov.Output, *, by_token: bool) -> ov.Output:
        """select [columns, rank] → [places or 1, rank], or else [rank, places or 1]."""
        if by_token:
            return op.matmul(self._flat(), select, True, False).output(0)
        return op.matmul(select, self._flat(), True, False).output(0)

    def of_channels(self, rows: ov.Output, *, by_token: bool) -> ov.Output:
        """rows [columns, channels] → [places or 1, channels], or else [1, channels, height or 1, width or 1]."""
        if by_token:
            return op.matmul(self._flat(), rows, True, False).output(0)
        channels = op.gather(op.shape_of(rows), op.constant(np.array([1])), op.constant(np.array(0)))
        size = op.gather(op.shape_of(self.columns), op.constant(np.array([1, 2])), op.constant(np.array(0)))
        shape = op.concat([op.constant(np.array([1])), channels, size], 0)
        return op.reshape(op.matmul(rows, self._flat(), True, False), shape, False).output(0)

    def _flat(self) -> ov.Node:
        """[columns, places or 1]"""
        return op.reshape(self.columns, op.constant(np.array([0, -1])), True)
