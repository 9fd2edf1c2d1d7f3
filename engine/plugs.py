"""From a blend to the tensors that go into sockets."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.adapters import Adapter, Blend, BlendItem, RawFactors
from lorablend.engine.graphs import new_model
from lorablend.engine.sockets import Socket

__all__ = ["Plugs", "TensorCache"]

Tensors: TypeAlias = dict[str, ov.Tensor]
_Part: TypeAlias = tuple[Socket, list[tuple[RawFactors, float]]]

# A float32 with its low 16 bits rounded away, to nearest, is x * 65537 - (x * 65537 - x) in float32 arithmetic
# (T. J. Dekker, "A floating-point technique for extending the available precision", 1971). The CPU plugin's own
# conversion to bf16 truncates, which would weaken every adapter by 0.2 % on average.
_DEKKER = np.float32(2**16 + 1)


class TensorCache:
    """The tensors of recent blends, the oldest thrown out when they take more than `budget` bytes together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[object, tuple[Tensors, object, int]] = OrderedDict()

    def get(self, key: object) -> Tensors | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: object, tensors: Tensors, alive: object) -> None:
        """`alive` is what the key's ids belong to: it must outlive the entry."""
        self._entries[key] = (tensors, alive, sum(tensor.byte_size for tensor in tensors.values()))
        while len(self._entries) > 1 and sum(size for _, _, size in self._entries.values()) > self._budget:
            self._entries.popitem(last=False)


class Plugs:
    """Makes the tensors of one component's sockets, in the element type of its graph.

    The adapters of a blend are concatenated along the rank: down [Σ rank, in] once per set of adapters, up
    [out, Σ rank] with each adapter's weight folded in once per blend. Both are kept in the cache, so a blend seen
    before costs nothing.
    """

    def __init__(
        self, core: ov.Core, component: str, sockets: Mapping[str, Socket], element_type: ov.Type, cache: TensorCache
    ) -> None:
        self._component = component
        self._sockets = sockets
        self._type = element_type
        self._cache = cache
        self._stackers: dict[tuple[tuple[ov.Type, ...], int], _Stacker] = {}
        self._core = core
        self._empty = self._rank_zero()

    def tensors(self, blend: Blend) -> Tensors:
        """Every socket input's tensor, by name; rank 0 where no adapter of the blend has a part."""
        items = [item for item in blend.items if item.weight != 0 and self._touches(item.adapter)]
        if not items:
            return self._empty
        adapters = tuple(id(item.adapter) for item in items)
        weights = tuple(item.weight for item in items)
        downs = self._kept((self._component, "down", adapters), items, self._downs)
        ups = self._kept((self._component, "up", adapters, weights), items, self._ups)
        return self._empty | downs | ups

    def _kept(self, key: object, items: list[BlendItem], make: Callable[[list[_Part]], Tensors]) -> Tensors:
        tensors = self._cache.get(key)
        if tensors is None:
            tensors = make(self._parts(items))
            self._cache.put(key, tensors, alive=items)
        return tensors

    def _downs(self, parts: list[_Part]) -> Tensors:
        return {socket.down: self._stack([(raw.down, 1.0) for raw, _ in raws], axis=0) for socket, raws in parts}

    def _ups(self, parts: list[_Part]) -> Tensors:
        tensors: Tensors = {}
        for socket, raws in parts:
            up = self._stack([(raw.up, raw.scale * weight) for raw, weight in raws], axis=1)
            tensors |= _rows(up, socket.ups)
        return tensors

    def _touches(self, adapter: Adapter) -> bool:
        return any(component == self._component for component, _ in adapter.deltas)

    def _parts(self, items: Sequence[BlendItem]) -> list[_Part]:
        """The sockets that the adapters touch, each with the factors and weights that go into it."""
        parts: list[_Part] = []
        for path, socket in self._sockets.items():
            key = (self._component, path)
            deltas = [(item.adapter.deltas[key], item.weight) for item in items if key in item.adapter.deltas]
            raws = [(raw, weight) for delta, weight in deltas if (raw := delta.raw_factors()) is not None]
            if raws:
                parts.append((socket, raws))
        return parts

    def _stack(self, parts: list[tuple[np.ndarray, float]], axis: int) -> ov.Tensor:
        types = tuple(_type_of(array) for array, _ in parts)
        stacker = self._stackers.get((types, axis))
        if stacker is None:
            stacker = self._stackers[types, axis] = _Stacker(self._core, types, axis, self._type)
        return stacker(parts)

    def _rank_zero(self) -> Tensors:
        tensors: Tensors = {}
        for socket in self._sockets.values():
            tensors[socket.down] = ov.Tensor(self._type, ov.Shape([0, socket.in_features]))
            for name in socket.ups:
                tensors[name] = ov.Tensor(self._type, ov.Shape([socket.out_features // len(socket.ups), 0]))
        return tensors


class _Stacker:
    """concat(x0 · s0, x1 · s1, …) of matrices in a file's types, in float32, rounded once to the graph's type.

    An OpenVINO graph of its own: on two cores it turns a 340 MB fp16 adapter into bf16 in 0.2 s, numpy in seconds.
    """

    def __init__(self, core: ov.Core, types: tuple[ov.Type, ...], axis: int, out_type: ov.Type) -> None:
        parameters, parts = [], []
        for element_type in types:
            matrix = op.parameter(ov.PartialShape([-1, -1]), element_type)
            scale = op.parameter(ov.PartialShape([1]), ov.Type.f32)
            parameters += [matrix, scale]
            parts.append(op.multiply(op.convert(matrix, ov.Type.f32), scale))
        total = op.concat(parts, axis) if len(parts) > 1 else parts[0]
        if out_type == ov.Type.bf16:
            high = op.multiply(total, op.constant(_DEKKER))
            total = op.subtract(high, op.subtract(high, total))
        model = new_model([op.result(op.convert(total, out_type))], parameters, "stacker")
        self._request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        self._axis = axis
        self._type = out_type

    def __call__(self, parts: list[tuple[np.ndarray, float]]) -> ov.Tensor:
        shape = list(parts[0][0].shape)
        shape[self._axis] = sum(array.shape[self._axis] for array, _ in parts)
        out = ov.Tensor(self._type, ov.Shape(shape))
        arrays = [
            np.require(array, requirements=["C", "A"]) for array, _ in parts
        ]  # kept alive: the tensors only point
        for i, (array, (_, scale)) in enumerate(zip(arrays, parts, strict=True)):
            self._request.set_input_tensor(2 * i, _view(array))
            self._request.set_input_tensor(2 * i + 1, ov.Tensor(np.array([scale], np.float32)))
        self._request.set_output_tensor(0, out)
        self._request.infer()
        return out


def _type_of(array: np.ndarray) -> ov.Type:
    return {np.dtype(np.float32): ov.Type.f32, np.dtype(np.float16): ov.Type.f16, np.dtype(np.uint16): ov.Type.bf16}[
        array.dtype
    ]


def _view(array: np.ndarray) -> ov.Tensor:
    """A tensor on the array's own memory, for reading only; bf16 arrives as uint16."""
    array = np.asarray(_Writable(array))
    if array.dtype == np.uint16:
        return ov.Tensor(array, ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


class _Writable:
    """The same memory without the read-only mark of a mapped file, which `ov.Tensor` refuses even for an input."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def _rows(up: ov.Tensor, names: tuple[str, ...]) -> Tensors:
    """`up` cut into equal blocks of rows, one per name, without a copy."""
    if len(names) == 1:
        return {names[0]: up}
    rows, rank = up.shape
    block = rows // len(names)
    return {
        name: ov.Tensor(up, ov.Coordinate([i * block, 0]), ov.Coordinate([(i + 1) * block, rank]))
        for i, name in enumerate(names)
    }
