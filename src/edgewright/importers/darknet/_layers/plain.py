"""Layers without a kernel: softmax, batchnorm, normalization, activation, implicit, and those that do nothing.

Source: AlexeyAB/darknet, parser.c, softmax_layer.c, normalization_layer.c and representation_layer.c; pjreddie/darknet,
l2norm_layer.c and logistic_layer.c.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer
from edgewright.importers.darknet._layers.activations import activate
from edgewright.importers.darknet._layers.convolution import NORM_EPSILON
from edgewright.importers.darknet._layers.tree import read_tree, tree_softmax

if TYPE_CHECKING:
    import onnx_ir as ir


def identity(layer: Layer) -> ir.Value:
    """[dropout], [empty], [silence]: the input as it is."""
    return layer.x


def nothing(layer: Layer) -> None:
    """[cost], [contrastive]: losses, which Darknet leaves out at inference; what follows reads what came before."""
    del layer


def activation(layer: Layer) -> ir.Value:
    """[activation]."""
    return activate(layer, layer.x, layer.section.text("activation", "linear"))


def logistic(layer: Layer) -> ir.Value:
    """[logistic] of pjreddie/darknet."""
    return layer.graph.node("Sigmoid", layer.x)


def l2norm(layer: Layer) -> ir.Value:
    """[l2norm] of pjreddie/darknet: every place's channels divided by their length."""
    return layer.graph.node("LpNormalization", layer.x, axis=1, p=2)


def batchnorm(layer: Layer) -> ir.Value:
    """[batchnorm]: biases, scales, mean and variance of each channel."""
    channels = layer.chw[0]
    arrays = layer.read(dict.fromkeys(("bias", "scale", "mean", "variance"), (channels,)))
    values = [layer.graph.weight(f"bn.{name}", arrays[name]) for name in ("scale", "bias", "mean", "variance")]
    return layer.graph.node("BatchNormalization", layer.x, *values, epsilon=NORM_EPSILON)


def softmax(layer: Layer) -> ir.Value:
    """[softmax]: over everything, cut into `groups`; over channels with `spatial`; over each family of a `tree`."""
    graph, section, sizes = layer.graph, layer.section, layer.chw
    groups, temperature = section.integer("groups", 1, low=1), section.number("temperature", 1.0)
    if temperature == 0:
        raise layer.refuse("option `temperature` is 0", "temperature")
    total = math.prod(sizes)
    if total % groups:
        raise layer.refuse(f"option `groups` is {groups}, which does not divide its {total} values", "groups")
    # The quotient rounds like Darknet's, a product with the reciprocal would not.
    x = layer.x if temperature == 1 else graph.node("Div", layer.x, graph.scalar(temperature))
    if section.has("tree"):
        rows = graph.reshape(x, 1, total)
        return graph.reshape(tree_softmax(graph, rows, read_tree(layer, total)), *sizes)
    if section.number("spatial", 0.0):
        return graph.node("Softmax", x, axis=1)
    if groups == 1 and sizes[1:] == (1, 1):
        return graph.node("Softmax", x, axis=1)
    rows = graph.reshape(x, groups, total // groups)
    return graph.reshape(graph.node("Softmax", rows, axis=-1), *sizes)


def normalization(layer: Layer) -> ir.Value:
    """[normalization], [lrn]: x * (kappa + alpha * sum of squares of the channels around)^-beta.

    Darknet keeps a running sum that begins without channel size // 2 and yet takes it off later: every window's sum lacks
    the square of that channel.
    """
    graph, section, (channels, height, width) = layer.graph, layer.section, layer.chw
    size = section.integer("size", 5, low=1, high=2 * channels + 1)
    alpha, beta, kappa = (section.number(k, d) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("kappa", 1.0)))
    squares = graph.node("Mul", layer.x, layer.x)
    column = graph.reshape(squares, 1, channels, height * width)
    kernel = graph.weight("window", np.full((1, 1, size, 1), alpha, np.float32))
    sums = graph.node("Conv", column, kernel, kernel_shape=[size, 1], pads=[(size - 1) // 2, 0, size // 2, 0])
    sums = graph.reshape(sums, channels, height, width)
    if size // 2 < channels:
        lacking = graph.slice(squares, size // 2, size // 2 + 1)
        sums = graph.node("Sub", sums, graph.node("Mul", lacking, graph.scalar(alpha)))
    norm = graph.node("Add", sums, graph.scalar(kappa))
    return graph.node("Mul", layer.x, graph.node("Pow", norm, graph.scalar(-beta)))


def implicit(layer: Layer) -> ir.Value:
    """[implicit]: its weights, filters x atoms x 1, whatever the input."""
    graph, section = layer.graph, layer.section
    filters, atoms = section.integer("filters", 128, low=1), section.integer("atoms", 1, low=1)
    shape = layer.sized(filters, atoms, 1)
    weight = graph.weight("weight", layer.read({"weight": (1, filters, atoms, 1)})["weight"])
    if shape[0] == 1:
        return graph.node("Identity", weight, shape=shape)
    batch = graph.typed(graph.node("Shape", layer.x, shape=(1,), start=0, end=1), np.int64)
    sizes = graph.node("Concat", batch, graph.ints(filters, atoms, 1), shape=(4,), axis=0)
    return graph.node("Expand", weight, graph.typed(sizes, np.int64), shape=shape)
