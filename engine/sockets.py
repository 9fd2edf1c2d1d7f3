"""Sockets: places in a compiled graph where an adapter's low-rank factors plug in as inputs.

The IR is edited with OpenVINO's own operations before it is compiled, once; a change of blend then only binds other
tensors. Next to every linear layer and 1×1 convolution

    y = W x + b      becomes      y = W x + b + (x · downᵀ) · upᵀ        down [rank, in], up [out, rank], rank dynamic

Three choices keep a step near the bare graph's time (measured in bench/RESULTS.md): the update is added after the bias,
so that the plugin still fuses the bias into the layer; behind a GEGLU projection it is added to each half after the
split, where it fuses with the activation; and whatever depends on the prompt alone moves to a graph of its own
(`split_context`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.engine.graphs import new_model
from lorablend.engine.names import module_path

__all__ = ["Socket", "add_sockets", "split_context"]

_CONTEXT_INPUT = "encoder_hidden_states"


@dataclass(frozen=True)
class Socket:
    """One module's inputs: `down` [rank, in_features]; `ups` [out_features / len(ups), rank] each, top rows first."""

    path: str
    in_features: int
    out_features: int
    down: str
    ups: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.down, *self.ups)


def add_sockets(model: ov.Model, element_type: ov.Type) -> dict[str, Socket]:
    """Give every linear layer and 1×1 convolution of `model` a socket; returns them by module path.

    Shapes should be static: where the graph computes them, a GEGLU's split is not recognised. The inputs are of
    `element_type`: the precision that the graph computes in, else the plugin converts all of them at every inference.
    """
    sockets: dict[str, Socket] = {}
    parameters: list[ov.Node] = []

    def new_input(name: str, shape: list[int]) -> ov.Output:
        return _add_input(name, ov.PartialShape(shape), element_type, parameters)

    for node in model.get_ordered_ops():
        path = module_path(node.get_friendly_name())
        features = _features(node) if path is not None else None
        if path is None or features is None:
            continue
        in_features, out_features = features
        x, bias_out = node.input_value(0), _after_bias(node)
        halves = _halves(bias_out)
        socket = Socket(
            path=path,
            in_features=in_features,
            out_features=out_features,
            down=f"{path}.down",
            ups=(f"{path}.up",) if halves is None else (f"{path}.up.0", f"{path}.up.1"),
        )
        down = new_input(socket.down, [-1, in_features])
        for up_name, out in zip(socket.ups, halves or [bias_out], strict=True):
            up = new_input(up_name, [out_features // len(socket.ups), -1])
            if node.get_type_name() == "MatMul":
                hidden = op.matmul(x, down, False, True)
                update = op.matmul(hidden, up, False, True).output(0)
            else:
                update = _pointwise(x, down, up)
            _insert_add(out, update)
        sockets[path] = socket
    model.add_parameters(parameters)
    model.validate_nodes_and_infer_types()
    return sockets


def split_context(model: ov.Model, element_type: ov.Type) -> tuple[ov.Model, ov.Model, tuple[str, ...]]:
    """Cut a UNet in two: (the rest, what depends on the prompt alone, the names of the tensors that pass between them).

    The second graph holds cross-attention's to_k and to_v with their sockets (140 layers in SDXL): it runs once per
    prompt instead of once per step. The passed tensors are of `element_type`.
    """
    reach = _reach(model)
    names: list[str] = []
    results: list[ov.Node] = []
    inputs: list[ov.Node] = []
    for node in model.get_ordered_ops():
        if reach[node.get_name()] != _CONTEXT:
            continue
        for out in node.outputs():
            targets = [t for t in out.get_target_inputs() if reach[t.get_node().get_name()] == _MAIN]
            if not targets:
                continue
            name = f"context.{len(names)}"
            source = _add_input(name, out.get_partial_shape(), element_type, inputs)
            result = op.result(out if element_type == ov.Type.f32 else op.convert(out, element_type))
            result.output(0).set_names({name})
            names.append(name)
            results.append(result)
            for target in targets:
                target.replace_source_output(source)
    main = new_model(model.get_results(), _parameters(model.get_results()), "unet")
    context = new_model(results, _parameters(results), "context")
    return main, context, tuple(names)


_NEUTRAL, _CONTEXT, _MAIN = 0, 1, 2


def _reach(model: ov.Model) -> dict[str, int]:
    """For each node: does it see the prompt only (_CONTEXT), anything else that changes (_MAIN), or neither?"""
    reach: dict[str, int] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Parameter":
            name = node.get_friendly_name()
            socket = name.endswith((".down", ".up", ".up.0", ".up.1"))
            kind = _CONTEXT if name == _CONTEXT_INPUT else _NEUTRAL if socket else _MAIN
        elif node.get_type_name() == "Result":
            kind = _MAIN
        else:
            kind = max((reach[value.get_node().get_name()] for value in node.input_values()), default=_NEUTRAL)
        reach[node.get_name()] = kind
    return reach


def _parameters(results: Iterable[ov.Node]) -> list[ov.Node]:
    """The parameters that the results depend on."""
    seen: set[str] = set()
    stack, found = list(results), []
    while stack:
        node = stack.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            found.append(node)
        stack.extend(value.get_node() for value in node.input_values())
    return found


def _add_input(name: str, shape: ov.PartialShape, element_type: ov.Type, parameters: list[ov.Node]) -> ov.Output:
    parameter = op.parameter(shape, element_type, name=name)
    parameter.output(0).set_names({name})
    parameters.append(parameter)
    return parameter.output(0) if element_type == ov.Type.f32 else op.convert(parameter, ov.Type.f32).output(0)


def _features(node: ov.Node) -> tuple[int, int] | None:
    """(in, out) of a linear layer or a 1×1 convolution with constant weights, else None."""
    kind = node.get_type_name()
    if kind not in ("MatMul", "Convolution") or not _is_constant(node.input_value(1)):
        return None
    shape = node.input_value(1).get_partial_shape()
    sizes = [dimension.get_length() for dimension in shape]
    if kind == "MatMul":
        return (sizes[1], sizes[0]) if len(sizes) == 2 and node.get_attributes()["transpose_b"] else None
    attributes = node.get_attributes()
    plain = list(attributes["strides"]) == [1, 1] and not any((*attributes["pads_begin"], *attributes["pads_end"]))
    return (sizes[1], sizes[0]) if sizes[2:] == [1, 1] and plain else None


def _is_constant(value: ov.Output) -> bool:
    """Compressed weights are Constant → Convert → (Subtract) → Multiply → …"""
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
    """The two equal outputs of a GEGLU's split behind `out`, if that is where it goes."""
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


def _pointwise(x: ov.Output, down: ov.Output, up: ov.Output) -> ov.Output:
    """The update of a 1×1 convolution: x is [batch, in, height, width]."""
    spatial = op.shape_of(x)
    flat = op.reshape(x, np.array([0, 0, -1]), True)
    update = op.matmul(up, op.matmul(down, flat, False, False), False, False)
    size = op.concat(
        [
            op.constant(np.array([0, -1])),
            op.gather(spatial, op.constant(np.array([2, 3])), op.constant(np.array(0))),
        ],
        0,
    )
    return op.reshape(update, size, True).output(0)


def _insert_add(out: ov.Output, update: ov.Output) -> None:
    consumers = list(out.get_target_inputs())
    total = op.add(out, update)
    for consumer in consumers:
        consumer.replace_source_output(total.output(0))
