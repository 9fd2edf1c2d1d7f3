"""Turns the items of a blend into the tensors that go into sockets."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import openvino as ov

from lorablend.adapters import Adapter, BlendItem, Delta, RawFactors
from lorablend.adapters.algorithms.delta import Gated
from lorablend.adapters.tools.low_rank import recompress
from lorablend.engine.graph.sockets import Socket
from lorablend.engine.graph.stacker import Stacker
from lorablend.engine.live.compiler import Compiler
from lorablend.engine.parts import is_live

__all__ = ["Plugs", "Tensors"]

Tensors: TypeAlias = dict[str, ov.Tensor]


@dataclass(frozen=True)
class _Part:
    """One item's contribution to one socket."""

    raw: RawFactors | None
    gate: np.ndarray | None
    weight: float
    column: int

    @property
    def rank(self) -> int:
        return 0 if self.raw is None else self.raw.down.shape[0]


class Plugs:
    """Makes the tensors of one component's sockets, in the element type of its graph.

    The adapters of a blend are concatenated along the rank: down [Σ rank, in] once per set of adapters, and up
    [out, Σ rank], with each adapter's weight folded in, once per blend. Both are cached, so a blend used before costs
    nothing.

    Attributes:
        errors: What `max_rank` cost in the last blend, see `tensors`.
    """

    def __init__(
        self,
        compiler: Compiler,
        component: str,
        sockets: Mapping[str, Socket],
        read_weight: Callable[[str], np.ndarray],
        baked: Collection[str] = (),
    ) -> None:
        """Prepare for one graph.

        Args:
            compiler: Its max_rank, if not None, limits the sum of ranks in a socket: if the sum is larger, the best
                approximation of that rank takes the place of the adapters' factors.
            component: The graph's name.
            sockets: The graph's sockets, by module path.
            read_weight: Module path -> the base weight in f32, for the algorithms that depend on it.
            baked: Modules that get nothing, because all of the blend's changes are in their weights.
        """
        self._component = component
        self._sockets = sockets
        self._type = compiler.socket_type
        self._cache = compiler.cache
        self._read_weight = read_weight
        self._max_rank = compiler.max_rank
        self._stack = Stacker(compiler.core, compiler.socket_type)
        # Graphs of the same kind take the same tensors.
        kinds = (any(getattr(socket, name) for socket in sockets.values()) for name in ("gate", "select"))
        self._graph = (*kinds, frozenset(baked))
        self._empty: dict[int, Tensors] = {}
        self.errors: dict[str, float] = {}
        self._baked = frozenset(baked)

    def rounded(self, array: np.ndarray) -> ov.Tensor:
        """A tensor of the graph's element type."""
        return _reshaped(self._stack([(array.reshape(1, -1), 1.0)], 0), list(array.shape))

    def tensors(self, items: Sequence[BlendItem], columns: Sequence[int] | None = None) -> Tensors:
        """Every socket input's tensor, by name; rank 0 for a socket that no adapter touches.

        Afterwards `errors` holds, by module path, what `max_rank` cost: the relative error of the compressed change in
        the Frobenius norm.

        Args:
            items: The adapters that act, with their weights.
            columns: In a steered graph, the column of each item.
        """
        columns = tuple(columns or [0] * len(items))
        count = max(columns, default=0) + 1
        self.errors = {}
        empty = self._rank_zero(count)
        pairs = [(item, column) for item, column in zip(items, columns, strict=True) if self._touches(item)]
        if not pairs:
            return empty
        # The ranks depend on the weights only if a block may be off, or if ranks are cut.
        adapters = tuple(
            (id(item.adapter), column, item.static_key if item.blocks or self._max_rank else None)
            for item, column in pairs
        )
        key = (self._component, self._graph, count, adapters)
        weights = tuple(item.static_key for item, _ in pairs)
        downs, ups = self._cache.get((*key, "down")), self._cache.get((*key, weights))
        if downs is None or ups is None:
            parts, errors = self._compressed(self._parts(pairs))
            if downs is None:
                downs = self._downs(parts, count)
                self._cache.put((*key, "down"), downs, _bytes(downs), pairs)
            ups = (self._ups(parts, count), errors)
            self._cache.put((*key, weights), ups, _bytes(ups[0]), pairs)
        self.errors = ups[1]
        return empty | downs | ups[0]

    def _downs(self, parts: Mapping[str, list[_Part]], columns: int) -> Tensors:
        """The tensors of `down`, and of `select`."""
        tensors: Tensors = {}
        for path, of_socket in parts.items():
            socket = self._sockets[path]
            arrays = [(_flat_taps(part.raw.down, socket), 1.0) for part in of_socket if part.raw is not None]
            if arrays:
                taps = socket.taps > 1
                tensors[socket.down] = self._stack(arrays, 1 if taps else 0, taps=taps)
            if socket.select is not None:
                tensors[socket.select] = self._select(of_socket, columns)
        return tensors

    def _select(self, parts: list[_Part], columns: int) -> ov.Tensor:
        """Which ranks belong to which column, [columns, rank] of ones and zeros."""
        ranks = np.repeat([part.column for part in parts], [part.rank for part in parts])
        return self._stack([((ranks[None] == np.arange(columns)[:, None]).astype(np.float32), 1.0)], 0)

    def _ups(self, parts: Mapping[str, list[_Part]], columns: int) -> Tensors:
        """The tensors of `ups`, and of `gate`."""
        tensors: Tensors = {}
        for path, of_socket in parts.items():
            socket = self._sockets[path]
            arrays = [(p.raw.up, p.raw.scale * p.weight) for p in of_socket if p.raw is not None]
            if arrays:
                tensors |= _rows(self._stack(arrays, 1), socket.ups)
            gates = [(part.gate, part) for part in of_socket if part.gate is not None]
            if gates and socket.gate is not None:
                rows = np.zeros((1 if socket.select is None else columns, socket.out_features), np.float32)
                for gate, part in gates:
                    rows[0 if socket.select is None else part.column] += np.float32(part.weight) * gate
                tensors[socket.gate] = self._gate(rows, socket)
        return tensors

    def _gate(self, rows: np.ndarray, socket: Socket) -> ov.Tensor:
        stacked = self._stack([(rows, 1.0)], 0)
        return stacked if socket.select is not None else _reshaped(stacked, [socket.out_features])

    def _touches(self, item: BlendItem) -> bool:
        keys = (key for key in item.adapter.deltas if key[0] == self._component)
        return any(item.weight_of(*key) != 0 for key in keys)

    def _parts(self, pairs: Sequence[tuple[BlendItem, int]]) -> dict[str, list[_Part]]:
        """The parts of each socket that the adapters touch."""
        parts: dict[str, list[_Part]] = {}
        for item, column in pairs:
            forms = self._forms(item.adapter)
            for path, form in forms.items():
                weight = item.weight_of(self._component, path)
                if weight == 0 or path in self._baked:
                    continue
                raw, gate = _split(form)
                parts.setdefault(path, []).append(_Part(raw, gate, weight, column))
        return parts

    def _forms(self, adapter: Adapter) -> dict[str, RawFactors | Gated]:
        """The live forms of an adapter's deltas; those that have to be computed are computed once."""
        key = ("forms", self._component, id(adapter))
        forms = self._cache.get(key)
        if forms is None:
            deltas = {path: delta for (name, path), delta in adapter.deltas.items() if name == self._component}
            forms = {path: form for path, delta in deltas.items() if (form := self._form(path, delta)) is not None}
            self._cache.put(key, forms, sum(map(_owned_bytes, forms.values())), adapter)
        return forms

    def _form(self, path: str, delta: Delta) -> RawFactors | Gated | None:
        socket = self._sockets.get(path)
        if socket is None or not is_live(delta, (socket.out_features, socket.in_features, *socket.kernel)):
            return None
        if delta.live == "gate":
            return delta.gated(self._read_weight(path))
        return delta.raw_factors()

    def _compressed(self, parts: dict[str, list[_Part]]) -> tuple[dict[str, list[_Part]], dict[str, float]]:
        """The parts with the ranks of each socket's columns cut to max_rank, and the largest error in each socket."""
        if self._max_rank is None:
            return parts, {}
        cut: dict[str, list[_Part]] = {}
        errors: dict[str, float] = {}
        for path, of_socket in parts.items():
            for column in sorted({part.column for part in of_socket}):
                of_column = [part for part in of_socket if part.column == column]
                if sum(part.rank for part in of_column) > self._max_rank:
                    factors = [_weighted(part.raw, part.weight) for part in of_column if part.raw is not None]
                    down, up, error = recompress(factors, self._max_rank)
                    errors[path] = max(error, errors.get(path, 0.0))
                    gates = [replace(part, raw=None) for part in of_column if part.gate is not None]
                    of_column = [_Part(RawFactors(down, up, 1.0), None, 1.0, column), *gates]
                cut.setdefault(path, []).extend(of_column)
        return cut, errors

    def _rank_zero(self, columns: int) -> Tensors:
        if columns not in self._empty:
            tensors: Tensors = {}
            for socket in self._sockets.values():
                taps = [socket.taps] if socket.taps > 1 else []
                shapes = {socket.down: [*taps, 0, socket.in_features]}
                shapes |= {name: [socket.out_features // len(socket.ups), 0] for name in socket.ups}
                if socket.select is not None:
                    shapes[socket.select] = [columns, 0]
                for name, shape in shapes.items():
                    tensors[name] = ov.Tensor(self._type, ov.Shape(shape))
                if socket.gate is not None:
                    rows = np.zeros((1 if socket.select is None else columns, socket.out_features), np.float32)
                    tensors[socket.gate] = self._gate(rows, socket)
            self._empty[columns] = tensors
        return self._empty[columns]


def _split(form: RawFactors | Gated) -> tuple[RawFactors | None, np.ndarray | None]:
    if isinstance(form, RawFactors):
        return form, None
    raw = None if form.down is None or form.up is None else RawFactors(form.down, form.up, 1.0)
    return raw, form.gate


def _weighted(raw: RawFactors, weight: float) -> tuple[np.ndarray, np.ndarray]:
    return _float32(raw.down), _float32(raw.up) * np.float32(raw.scale * weight)


def _float32(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:  # bf16: the upper half of an f32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def _flat_taps(down: np.ndarray, socket: Socket) -> np.ndarray:
    """The factor as [rank, in], or for a k×k convolution as [rank, in, taps]."""
    flat = down.reshape(*down.shape[:2], -1)
    return flat if socket.taps > 1 else flat[:, :, 0]


def _rows(up: ov.Tensor, names: tuple[str, ...]) -> Tensors:
    """Cut `up` into equal blocks of rows, one per name, without copying."""
    if len(names) == 1:
        return {names[0]: up}
    rows, rank = up.shape
    block = rows // len(names)
    return {
        name: ov.Tensor(up, ov.Coordinate([i * block, 0]), ov.Coordinate([(i + 1) * block, rank]))
        for i, name in enumerate(names)
    }


def _reshaped(tensor: ov.Tensor, shape: list[int]) -> ov.Tensor:
    tensor.shape = shape
    return tensor


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.byte_size for tensor in tensors.values())


def _owned_bytes(form: RawFactors | Gated) -> int:
    """The memory that a form takes outside the mapped file, in bytes."""
    return sum(part.nbytes for part in form if isinstance(part, np.ndarray) and not _is_mapped(part))


def _is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base is not None
