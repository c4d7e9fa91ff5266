"""Pooling: maximum (also over channels), local average, global average.

Source: AlexeyAB/darknet, parser.c (parse_maxpool, parse_local_avgpool) and maxpool_layer.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer, chw
from edgewright.importers.darknet._layers.convolution import blurred

if TYPE_CHECKING:
    import onnx_ir as ir


def maxpool(layer: Layer) -> ir.Value:
    """[maxpool], with maxpool_depth over channels instead of places."""
    section = layer.section
    strides, size, padding = _options(layer)
    blur_mode = section.integer("antialiasing", 0)
    depth = section.flag("maxpool_depth")
    channels = section.integer("out_channels", 1, low=1)
    if depth:
        y = _over_channels(layer, channels)
    else:
        y = _pooled(layer, "MaxPool", size, (1, 1) if blur_mode else strides, padding)
    return blurred(layer, y, strides, blur_mode) if blur_mode else y


def local_avgpool(layer: Layer) -> ir.Value:
    """[local_avgpool]: the mean of the cells of the window that lie inside."""
    strides, size, padding = _options(layer)
    return _pooled(layer, "AveragePool", size, strides, padding)


def avgpool(layer: Layer) -> ir.Value:
    """[avgpool]: the mean of each channel."""
    return layer.graph.node("GlobalAveragePool", layer.x, shape=layer.sized(layer.chw[0], 1, 1))


def _options(layer: Layer) -> tuple[tuple[int, int], int, int]:
    section = layer.section
    stride = section.integer("stride", 1, low=1)
    strides = (section.integer("stride_y", stride, low=1), section.integer("stride_x", stride, low=1))
    size = section.integer("size", stride, low=1)
    return strides, size, section.integer("padding", size - 1)


def _pooled(layer: Layer, op_type: str, size: int, strides: tuple[int, int], padding: int) -> ir.Value:
    """`padding` is the sum of both sides; the smaller half lies above and left, and C division leaves cells out."""
    graph, x = layer.graph, layer.x
    channels, height, width = chw(x)
    outputs = [(side + padding - size) // step + 1 for side, step in zip((height, width), strides, strict=True)]
    shape = layer.sized(channels, *outputs)
    before = padding // 2
    after = [
        max(0, (out - 1) * step + size - side - before)
        for out, step, side in zip(outputs, strides, (height, width), strict=True)
    ]
    pads = [before, before, *after]
    if max(pads) >= size:  # ONNX pools no window that lies outside as a whole
        if op_type != "MaxPool":
            raise layer.refuse(f"option `padding` is {padding}: some windows of size {size} lie outside", "padding")
        edges = graph.ints(0, 0, before, before, 0, 0, *after)
        grown = (shape[0], channels, height + before + after[0], width + before + after[1])
        layer.sized(channels, grown[2], grown[3])
        x = graph.node("Pad", x, edges, graph.scalar(float(np.finfo(np.float32).min)), shape=grown)
        pads = [0, 0, 0, 0]
    counted = {} if op_type == "MaxPool" else {"count_include_pad": 0}
    return graph.node(op_type, x, shape=shape, kernel_shape=[size, size], strides=list(strides), pads=pads, **counted)


def _over_channels(layer: Layer, outputs: int) -> ir.Value:
    """Output channel g is the maximum of the channels g, g + outputs, g + 2 * outputs and so on."""
    channels, height, width = layer.chw
    if outputs > channels:
        raise layer.refuse(f"option `out_channels` is {outputs}, but its input has {channels} channels", "out_channels")
    graph, x = layer.graph, layer.x
    rows = -(-channels // outputs)
    missing = rows * outputs - channels
    if missing:
        edges = graph.ints(0, 0, 0, 0, 0, missing, 0, 0)
        shape = (graph.shape(x)[0], rows * outputs, height, width)
        x = graph.node("Pad", x, edges, graph.scalar(float(np.finfo(np.float32).min)), shape=shape)
    stacked = graph.reshape(x, rows, outputs, height * width)
    batch = graph.shape(x)[0]
    highest = graph.node("ReduceMax", stacked, graph.ints(1), shape=(batch, outputs, height * width), keepdims=0)
    return graph.reshape(highest, *layer.sized(outputs, height, width)[1:])
