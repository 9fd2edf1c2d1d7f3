"""Sockets: places in a compiled graph where an adapter's low-rank factors plug in as inputs.

The IR is edited with OpenVINO's operations once, before it is compiled; a change of blend then only binds other
tensors. Next to every linear layer and every convolution

    y = W x + b      becomes      y = W x + b + up · (down · x)        down [rank, in, …], up [out, rank], rank dynamic

and in a graph compiled with gates, for algorithms that scale whole output channels (DoRA, IA3),

    y = W x + gate ∘ (W x) + b + up · (down · x)                       gate [out], 0 for no change

Three choices keep a step's time near the bare graph's (measured in bench/RESULTS.md). The update is added after the
bias, so that the plugin still fuses the bias into the layer. Behind a GEGLU projection it is added to each half after
the split, where it fuses with the activation. Everything that depends only on the prompt moves to a graph of its own
(`split_context`).

In a steered graph (`steering.Steering`) each update also has a weight for each place of the picture.
"""

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.engine.graph.names import module_path
from lorablend.engine.graph.operations import GraphInputs, add_after
from lorablend.engine.graph.split_context import sees_prompt_only
from lorablend.engine.graph.steering import Places, Steering
from lorablend.engine.graph.updates import PlugLayer, conv_update, linear_update, time_rows

__all__ = ["Socket", "add_sockets"]

_SPATIAL_FROM_TIME = "time_emb_proj"  # its output is added at every place of a picture


@dataclass(frozen=True)
class Socket:
    """One module's inputs.

    Attributes:
        path: The module path.
        in_features: Input channels.
        out_features: Output channels.
        kernel: () for a linear layer. It and (1, 1) are treated as a matrix.
        down: The input [rank, in_features]; of a k×k convolution [k·k, rank, in_features].
        ups: The inputs [out_features / len(ups), rank], top rows first.
        gate: The input [out_features], or None in a graph without gates; [columns, out_features] if there is `select`.
        select: In a steered graph, the input [columns, rank] that assigns ranks to columns; otherwise None.
    """

    path: str
    in_features: int
    out_features: int
    kernel: tuple[int, ...]
    down: str
    ups: tuple[str, ...]
    gate: str | None
    select: str | None

    @property
    def taps(self) -> int:
        """The number of places that the convolution reads; 1 for a linear layer."""
        return int(np.prod(self.kernel, dtype=int))


def add_sockets(
    model: ov.Model, element_type: ov.Type, *, gates: bool = False, steering: Steering | None = None
) -> dict[str, Socket]:
    """Give every linear layer and convolution of `model` a socket.

    Args:
        model: The graph, which is changed. Convolutions need static shapes. Other layers should have them: a GEGLU's
            split is not recognised if its shape is computed in the graph.
        element_type: The inputs' type. It should be the precision that the graph computes in, or else the plugin
            converts all inputs in every inference.
        gates: Whether sockets have gates.
        steering: The steering inputs, for a steered graph.

    Returns:
        The sockets by module path.
    """
    sockets: dict[str, Socket] = {}
    inputs = GraphInputs(model, element_type)
    prompt_only = sees_prompt_only(model)
    for node in model.get_ordered_ops():
        path = module_path(node.get_friendly_name())
        layer = _layer(node) if path is not None else None
        if path is None or layer is None:
            continue
        places = None
        if steering is not None and node.get_name() not in prompt_only:
            places = steering.places(node.output(0).get_partial_shape(), inputs)
        bias_out = _after_bias(node)
        halves = _halves(bias_out)
        socket = Socket(
            path=path,
            in_features=layer.in_features,
            out_features=layer.out_features,
            kernel=layer.kernel,
            down=f"{path}.down",
            ups=(f"{path}.up",) if halves is None else (f"{path}.up.0", f"{path}.up.1"),
            gate=f"{path}.gate" if gates else None,
            select=f"{path}.select" if places is not None else None,
        )
        if places is not None and path.endswith(_SPATIAL_FROM_TIME):
            _add_to_picture(node, socket, bias_out, inputs, places.steering)
        else:
            if places is not None and places.size is None:
                places.steering.placeless.add(path)
            _add_update(node, socket, layer, halves or [bias_out], inputs, places)
            if socket.gate is not None:  # after the update: without a bias, both are added to the same output
                _add_gate(node, inputs.new(socket.gate, _gate_shape(socket)), places)
        sockets[path] = socket
    inputs.add_to_model()
    return sockets


def _add_update(
    node: ov.Node, socket: Socket, layer: PlugLayer, outs: list[ov.Output], inputs: GraphInputs, places: Places | None
) -> None:
    down, ups = _factors(socket, inputs)
    weights = None
    if places is not None and socket.select is not None:
        weights = places.of_ranks(inputs.new(socket.select, [-1, -1]), by_token=layer.kernel == ())
    make = linear_update if layer.kernel == () else conv_update
    for out, update in zip(outs, make(node.input_value(0), down, ups, layer, weights), strict=True):
        add_after(out, update)


def _factors(socket: Socket, inputs: GraphInputs) -> tuple[ov.Output, list[ov.Output]]:
    columns = [-1, socket.in_features]
    down = inputs.new(socket.down, columns if socket.taps == 1 else [socket.taps, *columns])
    return down, [inputs.new(name, [socket.out_features // len(socket.ups), -1]) for name in socket.ups]


def _add_to_picture(node: ov.Node, socket: Socket, out: ov.Output, inputs: GraphInputs, steering: Steering) -> None:
    """Steer a layer of the time embedding: its update is added to a feature map, place by place."""
    while out.get_partial_shape().rank.get_length() != 4 or out.get_node().get_type_name() != "Add":
        (target,) = out.get_target_inputs()
        out = target.get_node().output(0)
    down, (up,) = _factors(socket, inputs)
    rows = time_rows(node.input_value(0), down, up, inputs.new(socket.select or "", [-1, -1]))
    if socket.gate is not None:
        rows = op.add(rows, op.multiply(inputs.new(socket.gate, _gate_shape(socket)), node.output(0))).output(0)
    add_after(out, steering.places(out.get_partial_shape(), inputs).of_channels(rows, by_token=False))


def _gate_shape(socket: Socket) -> list[int]:
    return [socket.out_features] if socket.select is None else [-1, socket.out_features]


def _add_gate(node: ov.Node, gate: ov.Output, places: Places | None) -> None:
    """Add gate ∘ y to y. Stored as a difference from 1, a factor near 1 keeps its digits in 16 bits."""
    y = node.output(0)
    linear = node.get_type_name() == "MatMul"
    if places is not None:
        gate = places.of_channels(gate, by_token=linear)
    elif not linear:
        gate = op.reshape(gate, op.constant(np.array([1, -1, 1, 1])), False).output(0)
    add_after(y, lambda: op.multiply(y, gate).output(0))


def _layer(node: ov.Node) -> PlugLayer | None:
    """The sizes of a linear layer or a plain convolution with constant weights; None for any other node."""
    kind = node.get_type_name()
    if kind not in ("MatMul", "Convolution") or not _is_constant(node.input_value(1)):
        return None
    sizes = [dimension.get_length() for dimension in node.input_value(1).get_partial_shape()]
    attributes = node.get_attributes()
    if kind == "MatMul":
        return PlugLayer(sizes[1], sizes[0], (), 1, 0) if len(sizes) == 2 and attributes["transpose_b"] else None
    strides, pads = set(attributes["strides"]), {*attributes["pads_begin"], *attributes["pads_end"]}
    if len(sizes) != 4 or len(strides) > 1 or len(pads) > 1 or set(attributes["dilations"]) != {1}:
        return None
    return PlugLayer(sizes[1], sizes[0], tuple(sizes[2:]), strides.pop(), pads.pop())


def _is_constant(value: ov.Output) -> bool:
    """Whether a value is a constant; compressed weights are Constant → Convert → (Subtract) → Multiply → …"""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return True
    arithmetic = node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose")
    return arithmetic and all(_is_constant(source) for source in node.input_values())


def _after_bias(node: ov.Node) -> ov.Output:
    targets = list(node.output(0).get_target_inputs())
    if len(targets) == 1 and targets[0].get_node().get_type_name() == "Add":
        add = targets[0].get_node()
        if any(_is_constant(value) for value in add.input_values()):
            return add.output(0)
    return node.output(0)


def _halves(out: ov.Output) -> list[ov.Output] | None:
    """The two equal outputs of the GEGLU's split that reads `out`, or None if nothing splits it."""
    targets = list(out.get_target_inputs())
    if len(targets) != 1 or targets[0].get_node().get_type_name() != "VariadicSplit":
        return None
    split = targets[0].get_node()
    axis = split.input_value(1).get_node()
    last = out.get_partial_shape().rank.get_length() - 1
    if axis.get_type_name() != "Constant" or int(np.ravel(axis.get_data())[0]) not in (-1, last):
        return None
    halves = [split.output(i) for i in range(split.get_output_size())]
    if len(halves) != 2 or halves[0].get_partial_shape()[last] != halves[1].get_partial_shape()[last]:
        return None
    return halves
