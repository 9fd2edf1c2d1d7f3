"""Sums of cross-attention's keys and values, for factors that change from step to step."""

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.engine.graphs import new_model
from lorablend.engine.unet import Prompted, Unet

__all__ = ["ContextMix"]


class ContextMix:
    """Σ coefficient · term of what `Unet.prompt` returned, for each region."""

    def __init__(self, unet: Unet, terms: Sequence[Prompted]) -> None:
        self._names = unet.passed
        self._first = terms[0]
        self._shapes = {name: list(terms[0][name].shape)[1:] for name in self._names}
        self._terms = {name: _stacked([term[name] for term in terms]) for name in self._names}
        self._type = terms[0][self._names[0]].element_type
        self._request = self._compile()
        self._last: tuple[bytes, dict[str, ov.Tensor]] | None = None

    def __call__(self, coefficients: np.ndarray) -> dict[str, ov.Tensor]:
        """coefficients: f32 [regions, terms]. What the prompt alone decides otherwise is region 0's."""
        key = coefficients.tobytes()
        if self._last is None or self._last[0] != key:
            mixed = dict(self._first)
            self._request.set_tensor("coefficients", ov.Tensor(np.ascontiguousarray(coefficients, np.float32)))
            for name, terms in self._terms.items():
                mixed[name] = ov.Tensor(self._type, ov.Shape([len(coefficients), *self._shapes[name]]))
                self._request.set_tensor(name, terms)
                self._request.set_tensor(f"{name}.sum", mixed[name])
            self._request.infer()
            self._last = (key, mixed)
        return self._last[1]

    def _compile(self) -> ov.InferRequest:
        coefficients = op.parameter(ov.PartialShape([-1, -1]), ov.Type.f32, name="coefficients")
        coefficients.output(0).set_names({"coefficients"})
        parameters, results = [coefficients], []
        for name, terms in self._terms.items():
            parameter = op.parameter(ov.PartialShape([-1, terms.shape[1]]), self._type, name=name)
            parameter.output(0).set_names({name})
            total = op.matmul(coefficients, op.convert(parameter, ov.Type.f32), False, False)
            total = op.reshape(total, op.constant(np.array([-1, *self._shapes[name]])), False)
            result = op.result(op.convert(total, self._type))
            result.output(0).set_names({f"{name}.sum"})
            parameters.append(parameter)
            results.append(result)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        return ov.Core().compile_model(new_model(results, parameters, "mix"), "CPU", options).create_infer_request()


def _stacked(tensors: Sequence[ov.Tensor]) -> ov.Tensor:
    """[terms, numbers of one]"""
    size = tensors[0].size
    stacked = ov.Tensor(tensors[0].element_type, ov.Shape([len(tensors), size]))
    for row, tensor in enumerate(tensors):
        stacked.data[row] = tensor.data.reshape(-1)
    return stacked
