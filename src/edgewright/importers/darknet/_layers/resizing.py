"""Layers that move values to other places: upsample, reorg, reorg3d, crop.

Source: AlexeyAB/darknet, blas.c (upsample_cpu, reorg_cpu), reorg_layer.c, reorg_old_layer.c and crop_layer.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir


def upsample(layer: Layer) -> ir.Value:
    """[upsample]: each value `stride` x `stride` times; a negative stride sums such blocks. Then times `scale`."""
    graph, (channels, height, width) = layer.graph, layer.chw
    stride, scale = layer.section.signed("stride", 2), layer.section.number("scale", 1.0)
    if stride == 0:
        raise layer.refuse("option `stride` is 0", "stride")
    if stride < 0:
        _require_divisible(layer, -stride)
        shape = layer.sized(channels, height // -stride, width // -stride)
        y = graph.node("AveragePool", layer.x, shape=shape, kernel_shape=[-stride] * 2, strides=[-stride] * 2)
        scale *= stride * stride
    else:
        scales = graph.weight("scales", np.array([1, 1, stride, stride], np.float32))
        y = graph.node(
            "Resize", layer.x, None, scales, shape=layer.sized(channels, height * stride, width * stride),
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
    return y if scale == 1 else graph.node("Mul", y, graph.scalar(scale))


def reorg3d(layer: Layer) -> ir.Value:
    """[reorg3d]: blocks of places become channels, the place in the block counting slowest.

    With `reverse` the same loop runs the other way over the sizes of the output: its memory is read as it lies.
    """
    graph, (channels, height, width), stride = layer.graph, layer.chw, _stride(layer)
    if not layer.section.flag("reverse"):
        _require_divisible(layer, stride)
        shape = layer.sized(channels * stride**2, height // stride, width // stride)
        return graph.node("SpaceToDepth", layer.x, shape=shape, blocksize=stride)
    _require_channels(layer, stride**4)
    sizes = layer.sized(channels // stride**2, height * stride, width * stride)[1:]
    y = _depth_to_space(layer, graph.reshape(layer.x, *sizes), stride)
    return graph.reshape(y, *sizes)


def reorg(layer: Layer) -> ir.Value:
    """[reorg] of YOLOv2: reorg3d over memory that is read as if it had `stride`^2 fewer channels and a larger map."""
    graph, (channels, height, width), stride = layer.graph, layer.chw, _stride(layer)
    _require_channels(layer, stride**2)
    less = channels // stride**2
    if layer.section.flag("reverse"):
        layer.sized(less, height * stride, width * stride)
        return _depth_to_space(layer, layer.x, stride)
    _require_divisible(layer, stride)
    wide = graph.reshape(layer.x, less, height * stride, width * stride)
    shape = (graph.shape(layer.x)[0], channels, height, width)
    y = graph.node("SpaceToDepth", wide, shape=shape, blocksize=stride)
    return graph.reshape(y, channels * stride**2, height // stride, width // stride)


def crop(layer: Layer) -> ir.Value:
    """[crop]: the centre, then x * 2 - 1 unless `noadjust`."""
    graph, section, (channels, height, width) = layer.graph, layer.section, layer.chw
    rows = section.integer("crop_height", 1, low=1, high=height)
    columns = section.integer("crop_width", 1, low=1, high=width)
    top, left = (height - rows) // 2, (width - columns) // 2
    y = layer.x
    if (rows, columns) != (height, width):
        y = graph.node(
            "Slice", y, graph.ints(top, left), graph.ints(top + rows, left + columns), graph.ints(2, 3),
            shape=layer.sized(channels, rows, columns),
        )  # fmt: skip
    if section.flag("noadjust"):
        return y
    return graph.node("Sub", graph.node("Mul", y, graph.scalar(2)), graph.scalar(1))


def _stride(layer: Layer) -> int:
    return layer.section.integer("stride", 1, low=1, high=2**14)


def _depth_to_space(layer: Layer, x: ir.Value, stride: int) -> ir.Value:
    batch, channels, height, width = layer.graph.shape(x)
    assert isinstance(channels, int)
    assert isinstance(height, int)
    assert isinstance(width, int)
    shape = (batch, channels // stride**2, height * stride, width * stride)
    return layer.graph.node("DepthToSpace", x, shape=shape, blocksize=stride, mode="DCR")


def _require_divisible(layer: Layer, stride: int) -> None:
    _, height, width = layer.chw
    if height % stride or width % stride:
        raise layer.refuse(f"its input is {height} x {width}, which a stride of {stride} does not divide", "stride")


def _require_channels(layer: Layer, divisor: int) -> None:
    channels = layer.chw[0]
    if channels % divisor:
        raise layer.refuse(f"its input has {channels} channels, but must have a multiple of {divisor}", "stride")
