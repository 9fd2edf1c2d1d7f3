"""Steered graphs: each adapter has its own weight at each place of the picture, and it may change between steps.

Each adapter (or group of adapters) is a column. For each resolution of the UNet an input holds the weight of each
column at each place, `steer.<height>x<width>` [columns, height or 1, width or 1]; `steer.all` [columns, 1, 1] is for
layers without places. Each socket's `select` input [columns, rank], ones and zeros, assigns its ranks to columns:

    hidden [places, rank]   becomes   hidden ∘ (placesᵀ · select)

so a new weight for a whole adapter is one small tensor. Cross-attention's keys and values depend on the prompt, not on
a place. So each region has a pair of its own there, and the attention's output is their sum, weighted by
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
    """The steering inputs of one graph; each is made when the first layer of its resolution needs it.

    Attributes:
        by_count: Number of places -> the feature map's size.
        inputs: Input "steer.…" -> size; None for "steer.all".
        regions: Input "regions.…" -> size.
        placeless: Module paths of the layers without places.
    """

    by_count: dict[int, Size]
    inputs: dict[str, Size | None] = field(default_factory=dict)
    regions: dict[str, Size] = field(default_factory=dict)
    placeless: set[str] = field(default_factory=set)
    _places: dict[Size | None, "Places"] = field(default_factory=dict)
    _region_inputs: dict[str, ov.Output] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ov.Model) -> "Steering":
        """The inputs for a UNet whose shapes are static."""
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
        """Join the attention over keys and values [regions, heads, tokens, width], for any number of regions."""
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
    """The dimension of an input whose length is `length` or 1.

    A dynamic dimension makes every dimension of length 1 that it is combined with dynamic too: behind the time
    embedding, that would be the whole UNet.
    """
    return 1 if length == 1 else -1


@dataclass
class Places:
    """The weight of each column at each place: `columns` [columns, height or 1, width or 1]."""

    steering: Steering
    size: Size | None
    columns: ov.Output

    def of_ranks(self, select: ov.Output, *, by_token: bool) -> ov.Output:
        """Turn select [columns, rank] into [places or 1, rank] if by_token, else [rank, places or 1]."""
        if by_token:
            return op.matmul(self._flat(), select, True, False).output(0)
        return op.matmul(select, self._flat(), True, False).output(0)

    def of_channels(self, rows: ov.Output, *, by_token: bool) -> ov.Output:
        """Turn rows [columns, channels] into [places or 1, channels] if by_token, else [1, channels, height, width]."""
        if by_token:
            return op.matmul(self._flat(), rows, True, False).output(0)
        channels = op.gather(op.shape_of(rows), op.constant(np.array([1])), op.constant(np.array(0)))
        size = op.gather(op.shape_of(self.columns), op.constant(np.array([1, 2])), op.constant(np.array(0)))
        shape = op.concat([op.constant(np.array([1])), channels, size], 0)
        return op.reshape(op.matmul(rows, self._flat(), True, False), shape, False).output(0)

    def _flat(self) -> ov.Node:
        """The columns' weights, [columns, places or 1]."""
        return op.reshape(self.columns, op.constant(np.array([0, -1])), True)
