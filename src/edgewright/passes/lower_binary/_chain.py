"""What follows a binary layer channel by channel: as an affine function, or, before a sign, as a comparison of integers.

A dot product of n signs is one of n + 1 integers. So the comparison is not derived but looked up: the chain is evaluated,
operation by operation in float32 as the graph does, on every integer that can occur, and the sign of each is seen. Ties,
batch norms with a factor of 0 or below, and steps that rounding merges are right by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.passes.lower_binary._layers import Layer, Signs, per_channel

if TYPE_CHECKING:
    import onnx_ir as ir

#: Numbers in a table of outcomes: 16 MiB of them.
_TABLE = 2**22

#: f32[K, M] -> f32[K, M], rounded as the operator rounds; the parameters are those of the filters `rows`.
Function = Callable[[np.ndarray, slice], np.ndarray]


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        node: The node.
        function: What it does to each channel.
        factor: f64[M]: it is x * factor + shift; None where it is no such function.
        shift: f64[M].
    """

    node: ir.Node
    function: Function
    factor: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclass(frozen=True)
class Chain:
    """Steps that follow one another, each the only reader of the one before.

    Attributes:
        steps: The steps.
        end: What the last one makes.
    """

    steps: tuple[Step, ...]
    end: ir.Value


def chain_of(layer: Layer) -> Chain:
    """The longest chain that follows the layer."""
    end, steps = layer.node.outputs[0], []
    rank = layer.bits.ndim
    while (node := sole_consumer(end)) is not None and node.graph is layer.node.graph:
        step = _step(node, end, layer.filters, rank)
        if step is None:
            break
        steps.append(step)
        end = node.outputs[0]
    return Chain(tuple(steps), end)


def affine(layer: Layer, chain: Chain) -> tuple[np.ndarray, np.ndarray, int]:
    """(scale f32[M], shift f32[M], steps that are in them): y = dot * scale + shift.

    Equal to the graph to the last bit where it has one factor, besides powers of two, and one shift: they are not rounded.
    """
    scale = layer.magnitude.astype(np.float64)
    shift = np.zeros(layer.filters) if layer.bias is None else layer.bias.astype(np.float64)
    count = 0
    for step in chain.steps:
        if step.factor is None or step.shift is None:
            break
        with np.errstate(all="ignore"):
            wider = (scale * step.factor, shift * step.factor + step.shift)
            if not np.isfinite(np.asarray(wider, np.float32)).all():
                break
        (scale, shift), count = wider, count + 1
    return scale.astype(np.float32), shift.astype(np.float32), count


def thresholds(layer: Layer, chain: Chain, signs: Signs) -> tuple[np.ndarray, np.ndarray] | None:
    """(threshold i32[M], flip bool[M]): a sign is -1 where dot < threshold, or where not, if flip.

    None where the sign of some filter changes more than once as its dot product grows: no comparison is like that.
    """
    dots = np.arange(-layer.terms, layer.terms + 1, 2)
    threshold, flip = np.empty(layer.filters, np.int32), np.empty(layer.filters, bool)
    limits = np.broadcast_to(signs.threshold, (layer.filters,))
    block = max(1, _TABLE // len(dots))
    for start in range(0, layer.filters, block):
        rows = slice(start, start + block)
        below = _outcomes(layer, chain, dots, rows) < limits[rows]
        changes = below[1:] != below[:-1]
        if (changes.sum(0) > 1).any():
            return None
        constant = ~changes.any(0)
        first = dots[changes.argmax(0) + 1]
        flip[rows] = ~below[0] & ~constant
        # All below: above any dot product; none below: the least one.
        threshold[rows] = np.where(constant, np.where(below[0], layer.terms + 1, -layer.terms), first)
    return threshold, flip


def _outcomes(layer: Layer, chain: Chain, dots: np.ndarray, rows: slice) -> np.ndarray:
    """What the chain makes of each dot product, f32[K, filters in rows]."""
    with np.errstate(all="ignore"):
        y = dots.astype(np.float32)[:, None] * layer.magnitude[rows]
        if layer.bias is not None:
            y = y + layer.bias[rows]
        for step in chain.steps:
            y = step.function(y, rows)
    return np.asarray(y, np.float32)


def _step(node: ir.Node, value: ir.Value, filters: int, rank: int) -> Step | None:
    if is_standard(node, "Identity"):
        return Step(node, lambda x, rows: x, np.ones(filters), np.zeros(filters))
    if is_standard(node, "BatchNormalization"):
        return _batch_norm(node, filters)
    if is_standard(node, "Mul", "Add", "Sub", "Div"):
        return _arithmetic(node, value, filters, rank)
    if is_standard(node, "Relu", "LeakyRelu", "PRelu"):
        return _rectifier(node, value, filters, rank)
    return _clip(node) if is_standard(node, "Clip") else None


def _clip(node: ir.Node) -> Step | None:
    limits: list[Any] = [np.float32(-np.inf), np.float32(np.inf)]
    for index, value in enumerate(node.inputs[1:]):
        if value is not None:
            found = constant_array(value)
            if found is None or found.size != 1:
                return None
            limits[index] = found.reshape(())[()]
    low, high = limits
    return Step(node, lambda x, rows: np.minimum(np.maximum(x, low), high))


def _arithmetic(node: ir.Node, value: ir.Value, filters: int, rank: int) -> Step | None:
    first = node.inputs[0] is value
    found = per_channel(node.inputs[1] if first else node.inputs[0], rank)
    if found is None or len(found) not in (1, filters) or (node.op_type == "Div" and not first):
        return None
    vector = np.broadcast_to(found, (filters,))
    wide, one, zero = vector.astype(np.float64), np.ones(filters), np.zeros(filters)
    if node.op_type == "Mul":
        return Step(node, lambda x, rows: x * vector[rows], wide, zero)
    if node.op_type == "Div":
        with np.errstate(all="ignore"):
            return Step(node, lambda x, rows: x / vector[rows], 1 / wide, zero)
    if node.op_type == "Add":
        return Step(node, lambda x, rows: x + vector[rows], one, wide)
    if first:
        return Step(node, lambda x, rows: x - vector[rows], one, -wide)
    return Step(node, lambda x, rows: vector[rows] - x, -one, wide)


def _batch_norm(node: ir.Node, filters: int) -> Step | None:
    """(x - mean) * (scale / sqrt(variance + epsilon)) + bias, each operation rounded, as the reference runtime has it."""
    if node.attributes.get_int("training_mode", 0) or any(output.uses() for output in node.outputs[1:]):
        return None
    arrays = [constant_array(value) for value in node.inputs[1:5]]
    given = [array for array in arrays if array is not None and array.dtype == np.float32 and array.shape == (filters,)]
    if len(given) != 4:
        return None
    scale, bias, mean, variance = given
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + np.float32(node.attributes.get_float("epsilon", 1e-5)))
    if not np.isfinite(factor).all():
        return None
    wide = factor.astype(np.float64)
    return Step(
        node, lambda x, rows: (x - mean[rows]) * factor[rows] + bias[rows], wide,
        bias.astype(np.float64) - mean.astype(np.float64) * wide,
    )  # fmt: skip


def _rectifier(node: ir.Node, value: ir.Value, filters: int, rank: int) -> Step | None:
    if node.op_type == "Relu":
        return Step(node, lambda x, rows: np.maximum(x, np.float32(0)))
    if node.op_type == "LeakyRelu":
        slope = np.full(filters, node.attributes.get_float("alpha", 0.01), np.float32)
    else:
        found = per_channel(node.inputs[1], rank) if node.inputs[0] is value else None
        if found is None or len(found) not in (1, filters):
            return None
        slope = np.broadcast_to(found, (filters,))
    return Step(node, lambda x, rows: np.where(x < 0, x * slope[rows], x))
