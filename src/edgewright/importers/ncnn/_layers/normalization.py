"""Layers that bring values to a mean, a variance or a length.

Source: Tencent/ncnn, src/layer/batchnorm.cpp, instancenorm.cpp, groupnorm.cpp, layernorm.cpp, rmsnorm.cpp, normalize.cpp and
lrn.cpp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

#: Normalize: how epsilon keeps from dividing by 0.
_ADDED, _AT_LEAST, _AT_LEAST_SQUARED = 0, 1, 2
#: Numbers that stand in for what is not in the .bin.
_MOST_STANDINS = 2**20


def batch_norm(layer: Layer) -> ir.Value:
    """BatchNorm: stored are slope, mean, variance and bias of each channel."""
    channels, epsilon = layer.count(0), layer.number(1, 0.0)
    layer.require_channels(channels, "norms")
    slope, mean, variance, bias = (layer.plain(channels) for _ in range(4))
    parts = {"scale": slope, "bias": bias, "mean": mean, "variance": variance}
    values = [layer.graph.weight(name, array) for name, array in parts.items()]
    return layer.graph.node("BatchNormalization", layer.x, *values, epsilon=epsilon)


def instance_norm(layer: Layer) -> ir.Value:
    """InstanceNorm: each channel of each sample by itself."""
    channels, epsilon = layer.count(0), layer.number(1, 0.001)
    affine = layer.flag(2, True)
    if len(layer.sizes) < 3:
        raise layer.unsupported(f"a blob of {len(layer.sizes)} sizes")
    count = layer.sizes[0]
    if affine:
        layer.require_channels(channels, "norms")
    gamma, beta = _affine(layer, affine, count)
    values = [layer.graph.weight("scale", gamma), layer.graph.weight("bias", beta)]
    return layer.graph.node("InstanceNormalization", layer.x, *values, epsilon=epsilon)


def group_norm(layer: Layer) -> ir.Value:
    """GroupNorm: each group of channels by itself."""
    groups, channels, epsilon = layer.integer(0, 1, low=1), layer.count(1), layer.number(2, 0.001)
    affine, sizes, graph = layer.flag(3, True), layer.sizes, layer.graph
    layer.require_channels(channels, "norms")
    if channels % groups:
        raise layer.refuse(f"{groups} groups do not divide its {channels} channels")
    gamma, beta = _affine(layer, affine, channels)
    rows = layer.reshape(layer.x, groups, math.prod(sizes) // groups)
    ones = [
        graph.weight(part, array) for part, array in zip(("one", "zero"), _affine(layer, False, groups), strict=True)
    ]
    y = layer.reshape(graph.node("InstanceNormalization", rows, *ones, epsilon=epsilon), *sizes)
    if not affine:
        return y
    y = graph.node("Mul", y, layer.per_channel("scale", gamma))
    return graph.node("Add", y, layer.per_channel("bias", beta))


def layer_norm(layer: Layer) -> ir.Value:
    """LayerNorm: over as many inner values as it has parameters."""
    size, epsilon, affine = layer.count(0), layer.number(1, 0.001), layer.flag(2, True)
    axes = _inner(layer, size)
    gamma, beta = _affine(layer, affine, size)
    inner = layer.sizes[-axes:]
    values = [layer.graph.weight("scale", gamma.reshape(inner)), layer.graph.weight("bias", beta.reshape(inner))]
    return layer.graph.node("LayerNormalization", layer.x, *values, axis=-axes, epsilon=epsilon)


def rms_norm(layer: Layer) -> ir.Value:
    """RMSNorm: x / sqrt(mean of the squares + epsilon) * gamma."""
    size, epsilon, affine = layer.count(0), layer.number(1, 0.001), layer.flag(2, True)
    axes, graph = _inner(layer, size), layer.graph
    squares = graph.node("Mul", layer.x, layer.x)
    shape = (graph.shape(layer.x)[0], *layer.sizes[:-axes], *[1] * axes)
    mean = graph.node("ReduceMean", squares, graph.ints(*range(-axes, 0)), shape=shape, keepdims=1)
    root = graph.node("Sqrt", graph.node("Add", mean, graph.scalar(epsilon)))
    y = graph.node("Div", layer.x, root)
    if not affine:
        return y
    return graph.node("Mul", y, graph.weight("scale", layer.plain(size).reshape(layer.sizes[-axes:])))


def _inner(layer: Layer, size: int) -> int:
    """How many inner axes have `size` values together: one, or of a blob with three sizes two.

    Raises:
        EdgewrightError: E215 where none have.
    """
    for axes in (1, 2) if len(layer.sizes) > 2 else (1,):
        if math.prod(layer.sizes[-axes:]) == size:
            return axes
    raise layer.refuse(f"it has parameters for {size} values, which the inner sizes of its input are not")


def _affine(layer: Layer, stored: bool, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets, 1 and 0 where none are stored.

    Raises:
        EdgewrightError: E202 where the file has too few bytes left, E215 for more stand-ins than memory should be taken for.
    """
    if stored:
        return layer.plain(count), layer.plain(count)
    if count > _MOST_STANDINS:
        raise layer.refuse(f"it has no parameters for its {count} values, more than {_MOST_STANDINS}")
    return np.ones(count, np.float32), np.zeros(count, np.float32)


def normalize(layer: Layer) -> ir.Value:
    """Normalize: by the length of the whole blob, of each channel, or of each place."""
    spatial, shared, epsilon = layer.flag(0), layer.flag(1), layer.number(2, 1e-4)
    count, channel, mode, graph = layer.count(3), layer.flag(4, True), layer.integer(9, 0), layer.graph
    if len(layer.sizes) != 3 or not (spatial or channel) or mode not in (_ADDED, _AT_LEAST, _AT_LEAST_SQUARED):
        raise layer.unsupported(f"a blob of {len(layer.sizes)} sizes, or its mode,")
    axes = (1, 2, 3) if spatial and channel else (2, 3) if spatial else (1,)
    shape = [1 if axis in axes else size for axis, size in enumerate(graph.shape(layer.x))]
    total = graph.node("ReduceSumSquare", layer.x, graph.ints(*axes), shape=shape, keepdims=1)
    small = graph.scalar(epsilon)
    if mode == _AT_LEAST:
        length = graph.node("Max", graph.node("Sqrt", total), small)
    else:
        length = graph.node("Sqrt", graph.node("Add" if mode == _ADDED else "Max", total, small))
    factors = layer.plain(count)
    if not shared:
        layer.require_channels(count, "factors")
    y = graph.node("Div", layer.x, length)
    return graph.node("Mul", y, layer.per_channel("scale", factors[:1] if shared else factors))


def local_response(layer: Layer) -> ir.Value:
    """LRN: x * (bias + alpha * mean of the squares around)^-beta, over channels or over places."""
    within, size, graph = layer.flag(0), layer.integer(1, 5, low=1, high=2**16), layer.graph
    alpha, beta, shift = layer.number(2, 1.0), layer.number(3, 0.75), layer.number(4, 1.0)
    if len(layer.sizes) != 3 or size % 2 == 0 or alpha <= 0 or beta <= 0:
        raise layer.unsupported(
            f"a blob of {len(layer.sizes)} sizes, size {size}, alpha {alpha} and beta {beta} together"
        )
    if not within:
        return graph.node("LRN", layer.x, size=size, alpha=alpha, beta=beta, bias=shift)
    squares = graph.node("Mul", layer.x, layer.x)
    mean = graph.node(
        "AveragePool", squares, kernel_shape=[size] * 2, pads=[size // 2] * 4, count_include_pad=1
    )  # fmt: skip
    norm = graph.node("Add", graph.node("Mul", mean, graph.scalar(alpha)), graph.scalar(shift))
    return graph.node("Mul", layer.x, graph.node("Pow", norm, graph.scalar(-beta)))
