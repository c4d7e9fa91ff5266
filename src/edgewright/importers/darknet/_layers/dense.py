"""Layers of a matrix: connected, and local, whose weights differ from place to place.

Source: AlexeyAB/darknet, parser.c (load_connected_weights, load_local_weights), connected_layer.c and local_layer.c.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer, Parameters, chw
from edgewright.importers.darknet._layers.activations import activate
from edgewright.importers.darknet._layers.convolution import entered, norm_shapes, normalized

if TYPE_CHECKING:
    import onnx_ir as ir


def connected(layer: Layer) -> ir.Value:
    """[connected]: matrix times the flattened input, batch-norm, activation; f32[N, outputs, 1, 1]."""
    section = layer.section
    outputs = section.integer("output", 1, low=1)
    parameters = read_connected(layer, math.prod(layer.chw), outputs, section.flag("batch_normalize"))
    y = multiply(layer, flat(layer, layer.x), parameters)
    return square(layer, activate(layer, y, section.text("activation", "logistic")))


def flat(layer: Layer, x: ir.Value) -> ir.Value:
    """f32[N, C * H * W]."""
    return layer.graph.node("Flatten", x, shape=(layer.graph.shape(x)[0], math.prod(chw(x))), axis=1)


def square(layer: Layer, x: ir.Value) -> ir.Value:
    """f32[N, C, 1, 1] of f32[N, C]."""
    return layer.graph.node("Unsqueeze", x, layer.graph.ints(2, 3), shape=(*layer.graph.shape(x), 1, 1))


def read_connected(layer: Layer, inputs: int, outputs: int, norm: bool, part: str = "") -> Parameters:
    """Biases, matrix, [scales, mean, variance] of one connected layer: the triple comes last.

    Raises:
        EdgewrightError: E202 where the file has too few bytes left.
    """
    transposed = layer.network.weights.transposed
    stored = (inputs, outputs) if transposed else (outputs, inputs)
    arrays = layer.read({"bias": (outputs,), "weight": stored, **norm_shapes(layer, outputs, norm, part)})
    if transposed:
        arrays["weight"] = np.ascontiguousarray(arrays["weight"].T)
    return entered(layer, arrays, outputs, norm, part)


def multiply(layer: Layer, x: ir.Value, parameters: Parameters) -> ir.Value:
    """Matrix, bias and batch-norm on f32[N, inputs]."""
    assert parameters.weight.shape is not None
    shape = (layer.graph.shape(x)[0], int(parameters.weight.shape[0]))
    bias = [parameters.bias] if parameters.bias is not None else []
    y = layer.graph.node("Gemm", x, parameters.weight, *bias, shape=shape, transB=1)
    return normalized(layer, y, parameters)


def local(layer: Layer) -> ir.Value:
    """[local]: a convolution with weights of its own at every place; `pad` stands for half the size."""
    graph, section, (channels, height, width) = layer.graph, layer.section, layer.chw
    filters, size = section.integer("filters", 1, low=1), section.integer("size", 1, low=1)
    stride, pad = section.integer("stride", 1, low=1), size // 2 if section.flag("pad") else 0
    rows, columns = ((side - (1 if pad else size)) // stride + 1 for side in (height, width))
    shape = layer.sized(filters, rows, columns)
    places, window = rows * columns, channels * size * size
    arrays = layer.read({"bias": (filters, rows, columns), "weight": (places, filters, window)})
    below = (max(0, (rows - 1) * stride + size - height - pad), max(0, (columns - 1) * stride + size - width - pad))
    x, batch = layer.x, shape[0]
    if pad or any(below):
        grown = (batch, channels, height + pad + below[0], width + pad + below[1])
        x = graph.node("Pad", x, graph.ints(0, 0, pad, pad, 0, 0, *below), shape=grown)
    taken = graph.weight("places", _places(chw(x), (rows, columns), size, stride))
    patches = graph.node("Gather", flat(layer, x), taken, shape=(batch, places, window, 1), axis=1)
    weight = graph.weight("weight", arrays["weight"])
    columns_of = graph.node("MatMul", weight, patches, shape=(batch, places, filters, 1))
    by_filter = graph.node("Transpose", columns_of, shape=(batch, filters, places, 1), perm=[0, 2, 1, 3])
    y = graph.reshape(by_filter, *shape[1:])
    y = graph.node("Add", y, graph.weight("bias", arrays["bias"][None]))
    return activate(layer, y, section.text("activation", "logistic"))


def _places(sizes: tuple[int, int, int], places: tuple[int, int], size: int, stride: int) -> np.ndarray:
    """Which values of the flat map each window holds, i64[places, C * size * size, 1]; never more than its weights."""
    channels, height, width = sizes
    tops, lefts = np.arange(places[0]) * stride, np.arange(places[1]) * stride
    corner = (tops[:, None] * width + lefts).reshape(-1, 1, 1, 1)
    inside = np.arange(size)[:, None] * width + np.arange(size)
    window = np.arange(channels).reshape(-1, 1, 1) * (height * width) + inside
    return np.asarray((corner + window).reshape(len(corner), -1, 1), np.int64)
