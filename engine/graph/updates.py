"""The update that a socket adds to a layer's output, up · (down · x), as OpenVINO operations."""

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op

__all__ = ["PlugLayer", "conv_update", "linear_update", "time_rows"]


@dataclass(frozen=True)
class PlugLayer:
    """A layer that adapters plug into: linear (kernel ()), or a convolution with equal strides and equal pads."""

    in_features: int
    out_features: int
    kernel: tuple[int, ...]
    stride: int
    pad: int


def linear_update(
    x: ov.Output, down: ov.Output, ups: list[ov.Output], layer: PlugLayer, weights: ov.Output | None
) -> list[ov.Output]:
    """The updates [1, …, out / n] of a linear layer, one for each of the n ups.

    Args:
        x: The layer's input, [1, …, in].
        down: [rank, in].
        ups: [out / n, rank] each.
        layer: Its sizes.
        weights: [tokens or 1, rank], the weight of each rank at each place, or None.
    """
    hidden = op.matmul(x, down, False, True)
    if weights is not None:
        hidden = op.multiply(hidden, weights)
    return [op.matmul(hidden, up, False, True).output(0) for up in ups]


def conv_update(
    x: ov.Output, down: ov.Output, ups: list[ov.Output], layer: PlugLayer, weights: ov.Output | None
) -> list[ov.Output]:
    """The updates [1, out / n, height', width'] of a convolution, one for each of the n ups.

    The CPU plugin refuses a convolution whose weights have a dynamic shape. But a convolution is a sum over its taps,
    and the product with `down` is the same at every place: one MatMul computes all taps, and the sum is over shifted
    maps with only as many channels as the rank.

    Args:
        x: The layer's input, [1, in, height, width].
        down: [rank, in] or [taps, rank, in].
        ups: [out / n, rank] each.
        layer: Its sizes.
        weights: [rank, places or 1], the weight of each rank at each place, or None.
    """
    channels, height, width = (d.get_length() for d in list(x.get_partial_shape())[1:])
    flat = op.reshape(x, op.constant(np.array([channels, height * width])), False).output(0)
    if layer.kernel == (1, 1) and layer.stride == 1:
        hidden, rows, columns = op.matmul(down, flat, False, False).output(0), height, width
    else:
        rows, columns = (
            (side + 2 * layer.pad - k) // layer.stride + 1
            for side, k in zip((height, width), layer.kernel, strict=True)
        )
        if layer.kernel == (1, 1):
            down = op.unsqueeze(down, op.constant(np.array([0]))).output(0)
        hidden = _sum_of_taps(flat, down, layer, (height, width), (rows, columns))
    if weights is not None:
        hidden = op.multiply(hidden, weights).output(0)
    shape = op.constant(np.array([1, layer.out_features // len(ups), rows, columns]))
    return [op.reshape(op.matmul(up, hidden, False, False), shape, False).output(0) for up in ups]


def _sum_of_taps(
    flat: ov.Output, down: ov.Output, layer: PlugLayer, size: tuple[int, int], out_size: tuple[int, int]
) -> ov.Output:
    """The sum over all taps, [rank, height' · width'], of flat [in, height · width] and down [taps, rank, in]."""
    taps = int(np.prod(layer.kernel))
    maps = op.matmul(down, op.unsqueeze(flat, op.constant(np.array([0]))), False, False)
    maps = op.reshape(maps, op.constant(np.array([taps, 0, *size])), True)  # 0: the rank stays, even if it is 0
    pads = op.constant(np.array([0, 0, layer.pad, layer.pad]))
    maps = op.pad(maps, pads, pads, "constant", op.constant(np.float32(0)))
    axes, steps = op.constant(np.array([0, 2, 3])), op.constant(np.array([1, layer.stride, layer.stride]))
    total: ov.Node | None = None
    for tap in range(taps):
        i, j = divmod(tap, layer.kernel[1])
        stop = [tap + 1, i + (out_size[0] - 1) * layer.stride + 1, j + (out_size[1] - 1) * layer.stride + 1]
        part = op.slice(maps, op.constant(np.array([tap, i, j])), op.constant(np.array(stop)), steps, axes)
        total = part if total is None else op.add(total, part)
    assert total is not None
    total = op.squeeze(total, op.constant(np.array([0])))
    return op.reshape(total, op.constant(np.array([0, out_size[0] * out_size[1]])), True).output(0)


def time_rows(x: ov.Output, down: ov.Output, up: ov.Output, select: ov.Output) -> ov.Output:
    """The update of each column's own ranks, [columns, out], from x [1, in] and select [columns, rank]."""
    hidden = op.multiply(op.matmul(x, down, False, True), select)
    return op.matmul(hidden, up, False, True).output(0)
