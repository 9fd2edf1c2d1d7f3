"""Weighted sums of cross-attention's keys and values, with factors that change from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.engine.graph.operations import new_model, rounded
from lorablend.engine.live.unet import Prompted

__all__ = ["ContextMix", "Stacked"]


@dataclass(frozen=True)
class Stacked:
    """The terms of one prompt.

    Attributes:
        first: The first term, unchanged.
        numbers: By tensor name, the values of all terms, [terms, size of one].
    """

    first: Prompted
    numbers: dict[str, ov.Tensor]


class ContextMix:
    """Computes Σ coefficient · term of what `Unet.prompt` returned, for each region; compiled once, for any prompt."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: the tensors to mix, `Unet.passed`."""
        self._names = names
        self._requests: dict[int, ov.InferRequest] = {}  # by the size of the first tensor, for prompts of other lengths

    def stack(self, terms: Sequence[Prompted]) -> Stacked:
        return Stacked(terms[0], {name: _stacked([term[name] for term in terms]) for name in self._names})

    def __call__(self, stacked: Stacked, coefficients: np.ndarray) -> dict[str, ov.Tensor]:
        """Mix with coefficients, f32 [regions, terms]; tensors that are not mixed are the first term's."""
        size = stacked.first[self._names[0]].size
        if size not in self._requests:
            self._requests[size] = _compile({name: stacked.first[name] for name in self._names})
        request = self._requests[size]
        mixed = dict(stacked.first)
        request.set_tensor("coefficients", ov.Tensor(np.ascontiguousarray(coefficients, np.float32)))
        for name, numbers in stacked.numbers.items():
            shape = list(stacked.first[name].shape)[1:]
            mixed[name] = ov.Tensor(numbers.element_type, ov.Shape([len(coefficients), *shape]))
            request.set_tensor(name, numbers)
            request.set_tensor(f"{name}.sum", mixed[name])
        request.infer()
        return mixed


def _compile(like: Prompted) -> ov.InferRequest:
    coefficients = op.parameter(ov.PartialShape([-1, -1]), ov.Type.f32, name="coefficients")
    coefficients.output(0).set_names({"coefficients"})
    parameters, results = [coefficients], []
    for name, term in like.items():
        parameter = op.parameter(ov.PartialShape([-1, term.size]), term.element_type, name=name)
        parameter.output(0).set_names({name})
        total = op.matmul(coefficients, op.convert(parameter, ov.Type.f32), False, False)
        total = op.reshape(total, op.constant(np.array([-1, *list(term.shape)[1:]])), False)
        result = op.result(rounded(total.output(0), term.element_type))
        result.output(0).set_names({f"{name}.sum"})
        parameters.append(parameter)
        results.append(result)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    return ov.Core().compile_model(new_model(results, parameters, "mix"), "CPU", options).create_infer_request()


def _stacked(tensors: Sequence[ov.Tensor]) -> ov.Tensor:
    """The tensors as rows, [terms, size of one]."""
    size = tensors[0].size
    stacked = ov.Tensor(tensors[0].element_type, ov.Shape([len(tensors), size]))
    for row, tensor in enumerate(tensors):
        stacked.data[row] = tensor.data.reshape(-1)
    return stacked
