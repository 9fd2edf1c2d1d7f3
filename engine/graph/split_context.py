"""Cut out the part of a UNet that depends only on the prompt: cross-attention's keys and values."""

from collections.abc import Iterable

import openvino as ov
from openvino import opset13 as op

from lorablend.adapters.errors import ModelError
from lorablend.engine.graph.operations import GraphInputs, new_model
from lorablend.engine.graph.steering import Steering

__all__ = ["sees_prompt_only", "split_context"]

_CONTEXT_INPUT = "encoder_hidden_states"
_SOCKET_INPUTS = (".down", ".up", ".up.0", ".up.1", ".gate", ".select")
_NEUTRAL, _CONTEXT, _MAIN = 0, 1, 2


def split_context(
    model: ov.Model, element_type: ov.Type, steering: Steering | None = None
) -> tuple[ov.Model, ov.Model, tuple[str, ...]]:
    """Cut a UNet in two.

    The graph cut out holds cross-attention's to_k and to_v with their sockets (140 layers in SDXL); it runs once per
    prompt instead of once per step. In a steered graph, the main graph takes any number of its outputs, one per region,
    along the first axis.

    Args:
        model: The UNet with sockets, which is changed.
        element_type: The type of the tensors that pass between the two graphs.
        steering: The steering inputs, for a steered graph.

    Returns:
        The main graph, the graph that depends only on the prompt, and the names of the tensors that pass between them.

    Raises:
        ModelError: an attention of a steered graph is not a single operation.
    """
    reach = _reach(model)
    names: list[str] = []
    results: list[ov.Node] = []
    inputs = GraphInputs(model, element_type)
    attentions: dict[str, ov.Node] = {}
    for node in model.get_ordered_ops():
        if reach[node.get_name()] != _CONTEXT:
            continue
        for out in node.outputs():
            targets = [t for t in out.get_target_inputs() if reach[t.get_node().get_name()] == _MAIN]
            if not targets:
                continue
            name = f"context.{len(names)}"
            shape = [d.get_length() if d.is_static else -1 for d in out.get_partial_shape()]
            source = inputs.new(name, shape if steering is None else [-1, *shape[1:]])
            result = op.result(out if element_type == ov.Type.f32 else op.convert(out, element_type))
            result.output(0).set_names({name})
            names.append(name)
            results.append(result)
            for target in targets:
                target.replace_source_output(source)
                attentions[target.get_node().get_name()] = target.get_node()
    if steering is not None:
        for attention in attentions.values():
            if attention.get_type_name() != "ScaledDotProductAttention":
                raise ModelError(
                    f"the UNet's {attention.get_friendly_name()} is one step of an attention, but masks and ramps need "
                    "an attention in one operation; export the model again with `lorablend convert`"
                )
            steering.join_regions(attention, inputs)
    main = new_model(model.get_results(), _parameters(model.get_results()), "unet")
    context = new_model(results, _parameters(results), "context")
    return main, context, tuple(names)


def sees_prompt_only(model: ov.Model) -> set[str]:
    """The names of the nodes that `split_context` would cut out."""
    return {name for name, kind in _reach(model).items() if kind == _CONTEXT}


def _reach(model: ov.Model) -> dict[str, int]:
    """Whether each node depends only on the prompt (_CONTEXT), on anything else that changes (_MAIN), or on neither."""
    reach: dict[str, int] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Parameter":
            name = node.get_friendly_name()
            kind = _CONTEXT if name == _CONTEXT_INPUT else _NEUTRAL if name.endswith(_SOCKET_INPUTS) else _MAIN
        elif node.get_type_name() == "Result":
            kind = _MAIN
        else:
            kind = max((reach[value.get_node().get_name()] for value in node.input_values()), default=_NEUTRAL)
        reach[node.get_name()] = kind
    return reach


def _parameters(results: Iterable[ov.Node]) -> list[ov.Node]:
    """The parameters that the results depend on."""
    visited: set[str] = set()
    stack, parameters = list(results), []
    while stack:
        node = stack.pop()
        if node.get_name() in visited:
            continue
        visited.add(node.get_name())
        if node.get_type_name() == "Parameter":
            parameters.append(node)
        stack.extend(value.get_node() for value in node.input_values())
    return parameters
