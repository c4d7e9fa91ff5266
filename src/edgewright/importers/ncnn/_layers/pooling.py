"""Pooling over windows, over everything, and to a given size; of lines, maps and volumes.

Source: Tencent/ncnn, src/layer/pooling.cpp, pooling1d.cpp and pooling3d.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import UNSET, Layer
from edgewright.importers.ncnn._layers.shaping import padded

if TYPE_CHECKING:
    import onnx_ir as ir

_LOWEST = float(np.finfo(np.float32).min)
_FULL, _VALID, _SAME_UPPER, _SAME_LOWER = range(4)
_LARGEST_WINDOW = 2**16
#: Of an adaptive result, where every cell needs nodes of its own.
_MOST_CELLS = 1024
#: Parameters of each axis, innermost first: kernel, stride, pad before, pad after, size of the result.
_AXES = ((1, 2, 3, 14, 8), (11, 12, 13, 15, 18), (21, 22, 23, 16, 28))


def pooling(rank: int) -> Callable[[Layer], ir.Value]:
    """The builder of pooling over `rank` axes."""

    def build(layer: Layer) -> ir.Value:
        return _pooling(layer, rank)

    return build


def _pooling(layer: Layer, rank: int) -> ir.Value:
    average, everything, mode = (
        layer.integer(0, 0, low=0, high=1) == 1,
        layer.flag(4),
        layer.integer(5, 0, low=0, high=3),
    )
    counted, adaptive = layer.flag(6), layer.flag(7)
    windows = [_axis(layer, place) for place in range(rank)]
    targets = [layer.integer(keys[4], 0) for keys in _AXES[:rank]]
    if len(layer.sizes) != rank + 1:
        raise layer.refuse(f"its input has {len(layer.sizes)} sizes, but needs {rank + 1}")
    if everything:
        op_type = "GlobalAveragePool" if average else "GlobalMaxPool"
        y = layer.graph.node(op_type, layer.x, shape=layer.shaped(layer.sizes[0], *[1] * rank))
        return _kept(layer, layer.reshape(y, layer.sizes[0]))
    if adaptive:
        return _kept(layer, _adaptive(layer, average, _resolved(layer, targets)))
    kernel, strides, before, after = (list(reversed(part)) for part in zip(*windows, strict=True))
    sides = layer.sizes[1:]
    if mode in (_SAME_UPPER, _SAME_LOWER) and average and not counted:
        if any(before) or any(after):
            raise layer.unsupported("an average with pads beside SAME")
        counted = True  # what SAME adds counts in ncnn, whatever the flag says
    for axis in range(rank):
        extra = _extra(mode, sides[axis], kernel[axis], strides[axis], before[axis] + after[axis])
        if mode in (_SAME_UPPER, _SAME_LOWER):
            low, high = extra // 2, extra - extra // 2
            before[axis], after[axis] = (low, high) if mode == _SAME_UPPER else (high, low)
        else:
            after[axis] += extra
    return _kept(layer, _windows(layer, average, counted, kernel, strides, before, after))


def _axis(layer: Layer, place: int) -> tuple[int, int, int, int]:
    """Kernel, stride and pads of one axis; outer ones take those of the width where they have none of their own."""
    kernel, stride, before, after, _ = _AXES[place]
    width = _AXES[0]
    size = layer.integer(kernel, layer.integer(width[0], 0, low=0), low=0, high=_LARGEST_WINDOW)
    step = layer.integer(stride, layer.integer(width[1], 1), low=1, high=_LARGEST_WINDOW)
    pad = layer.integer(before, layer.integer(width[2], 0), low=0, high=_LARGEST_WINDOW)
    return size, step, pad, layer.integer(after, pad, low=0, high=_LARGEST_WINDOW)


def _extra(mode: int, side: int, kernel: int, stride: int, pads: int) -> int:
    """What is padded beyond the given pads: for windows that are not full, or for as many windows as SAME asks for."""
    if mode == _FULL:
        return -(side + pads - kernel) % stride
    if mode == _VALID:
        return 0
    return max(kernel + (side - 1) // stride * stride - side, 0)


def _windows(
    layer: Layer,
    average: bool,
    counted: bool,
    kernel: list[int],
    strides: list[int],
    before: list[int],
    after: list[int],
) -> ir.Value:
    """Pooling over windows.

    Raises:
        EdgewrightError: E204 where some window of an average lies outside as a whole, E215 where none fits.
    """
    graph, channels, sides, x = layer.graph, layer.sizes[0], layer.sizes[1:], layer.x
    if min(kernel) < 1:
        raise layer.refuse("its window has no size")
    spans = [side + low + high for side, low, high in zip(sides, before, after, strict=True)]
    shape = layer.shaped(channels, *((n - k) // s + 1 for n, k, s in zip(spans, kernel, strides, strict=True)))
    if any(max(low, high) >= size for low, high, size in zip(before, after, kernel, strict=True)):
        if average and not counted:
            raise layer.unsupported("an average over windows that lie outside")
        # ONNX pools no window that lies outside as a whole.
        x = padded(layer, x, [(0, 0), *zip(before, after, strict=True)], 0.0 if average else _LOWEST)
        before, after = [0] * len(before), [0] * len(after)
    if average:
        return graph.node("AveragePool", x, shape=shape, kernel_shape=kernel, strides=strides, pads=[*before, *after],
                          count_include_pad=int(counted))  # fmt: skip
    return graph.node("MaxPool", x, shape=shape, kernel_shape=kernel, strides=strides, pads=[*before, *after])


def _resolved(layer: Layer, targets: Sequence[int]) -> list[int]:
    """Rows and columns of the result, outermost first; -233 keeps the input's, outer ones take the width's."""
    wanted = [layer.integer(keys[4], targets[0]) for keys in _AXES[: len(targets)]]
    sizes = [side if size == UNSET else size for size, side in zip(reversed(wanted), layer.sizes[1:], strict=True)]
    layer.shaped(layer.sizes[0], *sizes)
    return sizes


def _adaptive(layer: Layer, average: bool, targets: list[int]) -> ir.Value:
    """Cell i of n is the mean or maximum of the places from i * side / n, rounded down, to (i + 1) * side / n, rounded up."""
    graph, sides = layer.graph, layer.sizes[1:]
    if all(side % target == 0 for side, target in zip(sides, targets, strict=True)):
        kernel = [side // target for side, target in zip(sides, targets, strict=True)]
        shape = layer.shaped(layer.sizes[0], *targets)
        return graph.node(
            "AveragePool" if average else "MaxPool", layer.x, shape=shape, kernel_shape=kernel, strides=kernel
        )
    if max(targets) > _MOST_CELLS:
        raise layer.refuse(f"it makes {max(targets)} cells of unequal size, more than {_MOST_CELLS}")
    y = layer.x
    for axis, (side, target) in enumerate(zip(sides, targets, strict=True), start=2):
        if side != target:
            y = _adaptive_axis(layer, y, average, axis, side, target)
    return y


def _adaptive_axis(layer: Layer, x: ir.Value, average: bool, axis: int, side: int, target: int) -> ir.Value:
    graph = layer.graph
    cells = []
    shape = list(graph.shape(x))
    shape[axis] = 1
    for cell in range(target):
        part = graph.slice(x, cell * side // target, -((cell + 1) * side // -target), axis=axis)
        op_type = "ReduceMean" if average else "ReduceMax"
        cells.append(graph.node(op_type, part, graph.ints(axis), shape=shape, keepdims=1))
    shape[axis] = target
    return graph.node("Concat", *cells, shape=shape, axis=axis)


def _kept(layer: Layer, y: ir.Value) -> ir.Value:
    if layer.x in layer.network.positive:
        layer.network.positive.add(y)
    return y
