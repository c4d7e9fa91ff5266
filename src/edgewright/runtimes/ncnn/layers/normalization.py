"""Normalizations, over channels, groups and the last axes, and softmax.

Source: Tencent/ncnn, docs/developer-guide/operators.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.runtimes.ncnn.network import (
    Network,
    UnsupportedError,
    axis_of,
    dims_of,
    given,
    require_constant,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Numbers of UnaryOp, BinaryOp and Reduction.
_EXP, _LOG, _SUBTRACT, _SUM, _MAX = 7, 8, 1, 0, 4


def _lower_batch_norm(network: Network, node: ir.Node) -> None:
    slope, bias, mean, variance = (
        require_constant(node.inputs[index], what)
        for index, what in ((1, "scale"), (2, "bias"), (3, "mean"), (4, "variance"))
    )
    if node.attributes.get_int("training_mode", 0):
        raise UnsupportedError("it is in training mode")
    data, shape = node.inputs[0], shape_of(node.inputs[0])
    assert data is not None
    if shape[0] != 1 or len(shape) < 2 or len(dims_of(shape)) != len(shape) - 1:
        raise UnsupportedError(f"ncnn normalizes one sample of up to three spatial axes, not {list(shape)}")
    params = {0: slope.size, 1: node.attributes.get_float("epsilon", 1e-5)}
    weights = [Weight(array) for array in (slope, mean, variance, bias)]
    network.add("BatchNorm", (network.read(data),), node.outputs[0], params, weights)


def _lower_instance_norm(network: Network, node: ir.Node) -> None:
    scale, bias = require_constant(node.inputs[1], "scale"), require_constant(node.inputs[2], "bias")
    data, dims = _channels(node)
    params = {0: scale.size, 1: node.attributes.get_float("epsilon", 1e-5), 2: 1}
    weights = (Weight(scale), Weight(bias))
    network.add("InstanceNorm", (network.read(data, dims),), node.outputs[0], params, weights, dims=dims)


def _lower_group_norm(network: Network, node: ir.Node) -> None:
    scale, bias = require_constant(node.inputs[1], "scale"), require_constant(node.inputs[2], "bias")
    data, dims = _channels(node)
    groups, epsilon = node.attributes.get_int("num_groups", 1), node.attributes.get_float("epsilon", 1e-5)
    params = {0: groups, 1: scale.size, 2: epsilon, 3: 1}
    weights = (Weight(scale), Weight(bias))
    network.add("GroupNorm", (network.read(data, dims),), node.outputs[0], params, weights, dims=dims)


def _channels(node: ir.Node) -> tuple[ir.Value, tuple[int, ...]]:
    """What a norm by channel reads, and its sizes as channels and two spatial axes."""
    data, shape = node.inputs[0], shape_of(node.inputs[0])
    assert data is not None
    if shape[0] != 1 or len(shape) < 3:
        raise UnsupportedError(f"ncnn normalizes one sample of channels, not {list(shape)}")
    return data, shape[1:] if len(shape) == 4 else (shape[1], 1, math.prod(shape[2:]))


def _lower_layer_norm(network: Network, node: ir.Node) -> None:
    data, shape = node.inputs[0], shape_of(node.inputs[0])
    assert data is not None
    if any(value.uses() for value in node.outputs[1:]):
        raise UnsupportedError("its mean or deviation is used")
    axis = node.attributes.get_int("axis", -1) % len(shape)
    inner = math.prod(shape[axis:])
    rows = math.prod(shape[:axis])
    scale = np.broadcast_to(require_constant(node.inputs[1], "scale"), shape[axis:])
    bias = np.zeros_like(scale) if given(node, 2) is None else require_constant(node.inputs[2], "bias")
    bias = np.broadcast_to(bias, shape[axis:])
    dims = (inner,) if rows == 1 else (rows, inner)
    params = {0: inner, 1: node.attributes.get_float("epsilon", 1e-5), 2: 1}
    weights = (Weight(scale), Weight(bias))
    network.add("LayerNorm", (network.read(data, dims),), node.outputs[0], params, weights, dims=dims)


def _lower_lrn(network: Network, node: ir.Node) -> None:
    data, dims = _channels(node)
    size = node.attributes.get_int("size", 1)
    if size % 2 == 0:
        raise UnsupportedError(f"its window is even, {size}: ncnn centres it otherwise")
    alpha, beta = node.attributes.get_float("alpha", 1e-4), node.attributes.get_float("beta", 0.75)
    params = {0: 0, 1: size, 2: alpha, 3: beta, 4: node.attributes.get_float("bias", 1.0)}
    network.add("LRN", (network.read(data, dims),), node.outputs[0], params, dims=dims)


def _lower_softmax(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    axis = axis_of(data, node.attributes.get_int("axis", -1))
    network.add("Softmax", (network.read(data),), node.outputs[0], {0: axis, 1: 1})


def _lower_log_softmax(network: Network, node: ir.Node) -> None:
    """x - max - log(sum(exp(x - max))): the logarithm of a softmax that is 0 would be infinite."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    axis = axis_of(data, node.attributes.get_int("axis", -1))
    along: dict[int, Param] = {1: 0, 3: (axis,), 4: 1, 5: 1}
    source = network.read(data)
    largest = network.add_inner("Reduction", (source,), made, {0: _MAX, **along})
    shifted = network.add_inner("BinaryOp", (source, largest), made, {0: _SUBTRACT})
    powers = network.add_inner("UnaryOp", (shifted,), made, {0: _EXP})
    total = network.add_inner("Reduction", (powers,), made, {0: _SUM, **along})
    logarithm = network.add_inner("UnaryOp", (total,), made, {0: _LOG})
    network.add("BinaryOp", (shifted, logarithm), made, {0: _SUBTRACT})


LOWERINGS = {
    "BatchNormalization": _lower_batch_norm,
    "GroupNormalization": _lower_group_norm,
    "InstanceNormalization": _lower_instance_norm,
    "LRN": _lower_lrn,
    "LayerNormalization": _lower_layer_norm,
    "LogSoftmax": _lower_log_softmax,
    "Softmax": _lower_softmax,
}
