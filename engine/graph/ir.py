"""Read and change OpenVINO IR files (.xml with the graph, .bin with the constants) without OpenVINO.

A parameter of a module is behind an input of a layer in one of these forms, with a Convert to f32 if it needs one:

    plain        Const (f32, f16 or bf16)
    int8_sym     Const (i8) × scale                       scale: one per output channel
    int8_asym    (Const (u8) - zero point (u8)) × scale
"""

import copy
import math
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lorablend.adapters.errors import ModelError
from lorablend.engine.graph.names import parameters_of

__all__ = ["Constant", "Ir", "Weight", "rewrite_weights"]

_DTYPES = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "i8": "|i1", "u8": "|u1"}
_LAYER_TYPES = ("MatMul", "Convolution", "Add", "Multiply", "GroupNormalization", "Gather")
_ALIGNMENT = 64  # bytes; for constants added at the end of a .bin


@dataclass(frozen=True)
class Constant:
    """One Const layer, whose value is `size` bytes at `offset` of the .bin."""

    layer: str
    element_type: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Weight:
    """A parameter and how it is stored.

    Attributes:
        name: "module path.weight" or "….bias".
        shape: Its shape in torch: [out, in] or [out, in, height, width] of a layer, [channels] of a bias or a norm.
        values: The stored numbers.
        scale: For 8 bits, one number per output channel.
        zero_point: The same, for the asymmetric form.
    """

    name: str
    shape: tuple[int, ...]
    values: Constant
    scale: Constant | None = None
    zero_point: Constant | None = None

    @property
    def kind(self) -> str:
        """ "plain", "int8_sym" or "int8_asym"."""
        if self.scale is None:
            return "plain"
        return "int8_sym" if self.zero_point is None else "int8_asym"

    def decode(self, read: Callable[[Constant], bytes]) -> np.ndarray:
        """The weight as f32; `read` returns a constant's bytes."""
        array = _to_f32(self.values, read(self.values))
        if self.zero_point is not None:
            array -= _to_f32(self.zero_point, read(self.zero_point))
        if self.scale is not None:
            array *= _to_f32(self.scale, read(self.scale))
        return array.reshape(self.shape)

    def encode(self, array: np.ndarray) -> dict[Constant, bytes]:
        """The new bytes of each constant.

        Raises:
            ModelError: a number does not fit the constant's type.
        """
        values, scale, zero_point = array.astype(np.float32, copy=False).reshape(self.values.shape), None, None
        if self.kind == "int8_sym":
            values, scale = _quantize_sym(values)
        elif self.kind == "int8_asym":
            values, scale, zero_point = _quantize_asym(values)
        parts = {self.values: values, self.scale: scale, self.zero_point: zero_point}
        return {
            constant: _from_f32(self.name, constant, part)
            for constant, part in parts.items()
            if constant is not None and part is not None
        }


class Ir:
    """The parameters of one IR.

    Attributes:
        xml: The file.
        shapes: "module path.weight" or "….bias" -> its shape in torch.

    Raises:
        ModelError: the file is not an OpenVINO IR.
    """

    def __init__(self, xml: Path) -> None:
        self.xml = xml
        try:
            self._tree = ET.parse(xml)
            root = self._tree.getroot()
            layers, self._edge_list = _child(root, "layers"), _child(root, "edges")
        except (OSError, ET.ParseError) as error:
            raise ModelError(f"{xml} is not an OpenVINO IR: {error}; convert the model again") from error
        self._layer_list = layers
        self._layers = {layer.get("id", ""): layer for layer in layers}
        self._inputs: dict[str, dict[str, ET.Element]] = {}  # layer -> port -> the edge that ends there
        for edge in self._edge_list:
            self._inputs.setdefault(edge.get("to-layer", ""), {})[edge.get("to-port", "")] = edge
        self._uses = Counter(edge.get("from-layer", "") for edge in self._edge_list)
        self._places: dict[str, tuple[str, str]] = {}  # parameter -> layer, port
        for number, layer in self._layers.items():
            if layer.get("type") in _LAYER_TYPES:
                for port, name in parameters_of(layer.get("name", "")):
                    # An Add or Multiply of that name may take a computed value instead of a parameter.
                    if self._is_matrix(number) or self._parts(number, port) is not None:
                        self._places[name] = (number, port)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: self._shape(*place) for name, place in self._places.items()}

    def weight(self, name: str) -> Weight:
        """How a parameter is stored.

        Raises:
            ModelError: it has none of the three forms above.
        """
        layer, port = self._places[name]
        parts = self._parts(layer, port)
        if parts is not None and _data(self._layers[layer]).get("transpose_b", "true") == "true":
            constants = (self._constant(number) if number else None for number in parts)
            weight = Weight(name, self.shapes[name], *constants)  # pyright: ignore[reportArgumentType]
            stored = weight.values.shape
            per_channel = (stored[0],) + (1,) * (len(stored) - 1)
            plain = weight.kind == "plain" and weight.values.element_type in ("f32", "f16", "bf16")
            sym = weight.kind == "int8_sym" and weight.values.element_type == "i8"
            asym = weight.kind == "int8_asym" and weight.values.element_type == "u8"
            rows = all(part.shape == per_channel for part in (weight.scale, weight.zero_point) if part)
            if (plain or sym or asym) and rows and math.prod(stored) == math.prod(weight.shape):
                return weight
        raise ModelError(
            f"{self.xml}: {name} is stored in a form that cannot be changed; "
            "convert the model with fp32, fp16 or int8 weights"
        )

    def read(self, name: str) -> np.ndarray:
        """A parameter as f32."""
        with self.xml.with_suffix(".bin").open("rb") as file:
            return self.weight(name).decode(lambda constant: _read(file, constant))

    def _shape(self, layer: str, port: str) -> tuple[int, ...]:
        """A matrix has the port's shape; all other parameters have one axis, among others of length 1."""
        shape = _port_shape(self._layers[layer], port)
        return shape if self._is_matrix(layer) else (math.prod(shape),)

    def _is_matrix(self, layer: str) -> bool:
        return self._type(layer) in ("MatMul", "Convolution", "Gather")

    def _parts(self, layer: str, port: str) -> tuple[str, str | None, str | None] | None:
        """The Const layers (values, scale, zero point) behind a layer's input; None for an unknown form."""
        node = self._behind_converts(layer, port)
        scale = zero_point = None
        if self._type(node) == "Multiply":
            scale, node = self._behind_converts(node, "1"), self._behind_converts(node, "0")
            if self._type(node) == "Subtract":
                zero_point, node = self._behind_converts(node, "1"), self._behind_converts(node, "0")
        consts = [number for number in (node, scale, zero_point) if number is not None]
        return (node, scale, zero_point) if all(self._type(number) == "Const" for number in consts) else None

    def _behind_converts(self, layer: str, port: str) -> str:
        source = self._source(layer, port)
        while self._type(source) == "Convert":
            source = self._source(source, "0")
        return source

    def _source(self, layer: str, port: str) -> str:
        return self._inputs[layer][port].get("from-layer", "")

    def _type(self, layer: str) -> str:
        return self._layers[layer].get("type", "")

    def _constant(self, layer: str) -> Constant:
        data = _data(self._layers[layer])
        shape = tuple(int(n) for n in data.get("shape", "").split(",") if n.strip())
        return Constant(
            layer, data.get("element_type", ""), shape, int(data.get("offset", "0")), int(data.get("size", "0"))
        )

    # --- changes of the graph, for `rewrite_weights` ---

    def constants(self) -> Iterator[Constant]:
        return (self._constant(number) for number in self._layers if self._type(number) == "Const")

    def own_weight(self, name: str) -> bool:
        """Give a parameter a copy of its layers if another layer uses any of them; return whether it did."""
        layer, port = self._places[name]
        edge = self._inputs[layer][port]
        source = edge.get("from-layer", "")
        if all(self._uses[number] == 1 for number in self._chain(source)):
            return False
        self._uses[source] -= 1
        edge.set("from-layer", self._copy(source))
        return True

    def move(self, constant: Constant, offset: int) -> None:
        _data(self._layers[constant.layer]).set("offset", str(offset))

    def save(self, xml: Path) -> None:
        self._tree.write(xml, encoding="utf-8", xml_declaration=True)

    def _chain(self, layer: str) -> Iterator[str]:
        """A layer and everything that it depends on."""
        yield layer
        for edge in self._inputs.get(layer, {}).values():
            yield from self._chain(edge.get("from-layer", ""))

    def _copy(self, layer: str) -> str:
        """Copy a layer and everything that it depends on, for one user; return the copy's id."""
        number = str(max(map(int, self._layers)) + 1)
        twin = copy.deepcopy(self._layers[layer])
        twin.set("id", number)
        twin.set("name", f"{twin.get('name')}/{number}")
        for port in twin.iterfind("output/port"):
            port.attrib.pop("names", None)  # tensor names are unique in a graph
        self._layers[number] = twin
        self._layer_list.append(twin)
        self._uses[number] = 1
        for port, edge in self._inputs.get(layer, {}).items():
            source = self._copy(edge.get("from-layer", ""))
            new = ET.SubElement(self._edge_list, "edge", {**edge.attrib, "to-layer": number, "from-layer": source})
            self._inputs.setdefault(number, {})[port] = new
        return number


def rewrite_weights(xml: Path, out_xml: Path, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Write a copy of an IR in which each parameter W of `changes` is replaced by changes[name](W).

    All other bytes of the .bin are unchanged, and memory holds one weight at a time. OpenVINO stores equal constants
    once: if other layers share the bytes of a changed weight, the new bytes are added at the end.

    Args:
        xml: The IR to read; its .bin is next to it.
        out_xml: The IR to write.
        changes: Parameter -> its new value as a function of the old one, both f32.

    Raises:
        ModelError: a weight is stored in an unknown form, or a new value does not fit its type.
    """
    ir = Ir(xml)
    out_bin = out_xml.with_suffix(".bin")
    shutil.copyfile(xml.with_suffix(".bin"), out_bin)
    with xml.with_suffix(".bin").open("rb") as source, out_bin.open("r+b") as target:
        edited = False
        for name in changes:
            edited |= ir.own_weight(name)
        users = Counter(constant.offset for constant in ir.constants() if constant.size)
        for name, change in changes.items():
            weight = ir.weight(name)
            new = weight.encode(change(weight.decode(lambda constant: _read(source, constant))))
            for constant, content in new.items():
                offset = constant.offset
                if users[offset] > 1:
                    users[offset] -= 1
                    offset = -(-target.seek(0, 2) // _ALIGNMENT) * _ALIGNMENT
                    ir.move(constant, offset)
                    edited = True
                target.seek(offset)
                target.write(content)
    if edited:
        ir.save(out_xml)
    else:
        shutil.copyfile(xml, out_xml)


def _child(root: ET.Element, name: str) -> ET.Element:
    child = root.find(name)
    if child is None:
        raise ET.ParseError(f"no <{name}>")
    return child


def _data(layer: ET.Element) -> ET.Element:
    data = layer.find("data")
    return ET.SubElement(layer, "data") if data is None else data


def _port_shape(layer: ET.Element, port: str) -> tuple[int, ...]:
    return tuple(int(dim.text or "-1") for dim in layer.iterfind(f"input/port[@id='{port}']/dim"))


def _read(file: BinaryIO, constant: Constant) -> bytes:
    file.seek(constant.offset)
    content = file.read(constant.size)
    if len(content) < constant.size:
        raise ModelError(
            f"{file.name} ends at byte {constant.offset + len(content)}, inside a weight that ends at byte "
            f"{constant.offset + constant.size}; convert the model again"
        )
    return content


def _to_f32(constant: Constant, content: bytes) -> np.ndarray:
    """A new f32 array with the constant's values."""
    array = np.frombuffer(content, _DTYPES[constant.element_type]).reshape(constant.shape)
    if constant.element_type == "bf16":  # the upper half of an f32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def _from_f32(name: str, constant: Constant, array: np.ndarray) -> bytes:
    if constant.element_type == "bf16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        out = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
        finite = bool(np.isfinite(_to_f32(constant, out.tobytes())).all())
    else:
        with np.errstate(over="ignore"):
            out = array.astype(_DTYPES[constant.element_type])
        finite = bool(np.isfinite(out).all())
    if not finite:
        raise ModelError(
            f"the changed {name} does not fit {constant.element_type} "
            f"(largest value {np.abs(array).max():.3g}); lower the blend's weights"
        )
    return out.tobytes()


# NNCF's rules for 8 bits per output channel (nncf 3.4, quantization/algorithms/weight_compression/weight_lowering.py),
# so that a changed weight is stored as NNCF would store it. NNCF rounds with the f32 scale and stores the scale as f16.
_EPSILON = np.finfo(np.float32).eps


def _quantize_sym(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize with a signed scale: the value of largest magnitude becomes exactly -128."""
    axes = tuple(range(1, weight.ndim))
    low, high = np.abs(weight.min(axes, keepdims=True)), weight.max(axes, keepdims=True)
    scale = np.where(low >= high, low, -high) / np.float32(128)
    scale = np.where(np.abs(scale) < _EPSILON, _EPSILON, scale)
    return np.clip(np.round(weight / scale), -128, 127), scale


def _quantize_asym(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantize the range of the values, extended to contain zero, to 0..255."""
    axes = tuple(range(1, weight.ndim))
    low = np.minimum(weight.min(axes, keepdims=True), np.float32(0))
    high = np.maximum(weight.max(axes, keepdims=True), np.float32(0))
    scale = (high - low) / np.float32(255)
    scale = np.where(np.abs(scale) < _EPSILON, _EPSILON, scale)
    zero_point = np.clip(-np.round(low / scale), 0, 255)
    return np.clip(np.round(weight / scale + zero_point), 0, 255), scale, zero_point
