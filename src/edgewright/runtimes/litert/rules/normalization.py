"""Normalizations, by parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import Held, sizes_of
from edgewright.runtimes.litert.layouts import NHWC, Order, moved_last
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.reduction import reduced

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("BatchNormalization")
def batch_normalization(lowering: Lowering, node: ir.Node) -> None:
    """x factor + offset by channel."""
    factor, added = factor_and_offset(lowering, node)
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    sizes = sizes_of(held.tensor)
    scaled = lowering.op("MUL", [held.tensor, by_channel(lowering, factor, held.order)], sizes)
    offset = by_channel(lowering, added, held.order)
    target, act = lowering.absorb(node.outputs[0])
    lowering.hold(target, lowering.op("ADD", [scaled, offset], sizes, fusedActivationFunction=act), held.order)


def factor_and_offset(lowering: Lowering, node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """A BatchNormalization as x factor + offset by channel, f64[C] each."""
    if node.attributes.get_int("training_mode", 0):
        raise Refused("it is in training mode")
    scale, bias, mean, variance = (
        lowering.required(value, "scale, bias, mean and variance").astype(np.float64) for value in node.inputs[1:5]
    )
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return factor, bias - mean * factor


@rule("InstanceNormalization")
def instance_normalization(lowering: Lowering, node: ir.Node) -> None:
    """Each channel of each sample by its own mean and variance."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    places = [place for place, axis in enumerate(held.order) if axis >= 2]
    made = _normalized(lowering, held.tensor, places, node.attributes.get_float("epsilon", 1e-5))
    lowering.hold(node.outputs[0], _scaled(lowering, node, made, held.order), held.order)


@rule("GroupNormalization")
def group_normalization(lowering: Lowering, node: ir.Node) -> None:
    """Each group of channels of each sample by its own mean and variance."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    made = normalized_groups(
        lowering, held, node.attributes.get_int("num_groups", 1), node.attributes.get_float("epsilon", 1e-5)
    )
    lowering.hold(node.outputs[0], _scaled(lowering, node, made, held.order), held.order)


def normalized_groups(lowering: Lowering, held: Held, groups: int, epsilon: float) -> Tensor:
    """Each group of channels of each sample by its own mean and variance, in the order that the file has."""
    place, batch = held.order.index(1), held.order.index(0)
    sizes = [*sizes_of(held.tensor)]
    split = lowering.reshaped(held.tensor, (*sizes[:place], groups, sizes[place] // groups, *sizes[place + 1 :]))
    kept = (batch if batch < place else batch + 1, place)
    places = [number for number in range(len(sizes) + 1) if number not in kept]
    return lowering.reshaped(_normalized(lowering, split, places, epsilon), sizes)


@rule("LayerNormalization")
def layer_normalization(lowering: Lowering, node: ir.Node) -> None:
    """Everything from `axis` on by its own mean and variance."""
    data = node.inputs[0]
    assert data is not None
    if any(value.uses() for value in node.outputs[1:]):
        raise Refused("its mean or deviation is read")
    held = lowering.get(data)
    first = node.attributes.get_int("axis", -1) % len(held.order)
    places = [place for place, axis in enumerate(held.order) if axis >= first]
    made = _normalized(lowering, held.tensor, places, node.attributes.get_float("epsilon", 1e-5))
    sizes = sizes_of(made)
    for kind, value in zip(("MUL", "ADD"), node.inputs[1:3], strict=False):
        if value is not None:
            made = lowering.op(kind, [made, lowering.fit(value, held.order)], sizes)
    lowering.hold(node.outputs[0], made, held.order)


@rule("LRN")
def local_response_normalization(lowering: Lowering, node: ir.Node) -> None:
    """LOCAL_RESPONSE_NORMALIZATION over channels, which it wants last; ONNX divides alpha by the size, LiteRT does not."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    size = node.attributes.get_int("size", 1)
    if size % 2 == 0:
        raise Refused("LiteRT sums over odd numbers of channels")
    order = NHWC if len(held.order) == 4 else moved_last(held.order, 1)
    tensor = lowering.ordered(held, order)
    made = lowering.op(
        "LOCAL_RESPONSE_NORMALIZATION", [tensor], sizes_of(tensor), radius=size // 2,
        bias=node.attributes.get_float("bias", 1.0), alpha=node.attributes.get_float("alpha", 1e-4) / size,
        beta=node.attributes.get_float("beta", 0.75),
    )  # fmt: skip
    lowering.hold(node.outputs[0], made, order)


@rule("LpNormalization")
def lp_normalization(lowering: Lowering, node: ir.Node) -> None:
    """x / |x| along one axis."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    place = held.order.index(node.attributes.get_int("axis", -1) % len(held.order))
    euclidean = node.attributes.get_int("p", 2) == 2
    powered = lowering.op("SQUARE" if euclidean else "ABS", [held.tensor], sizes_of(held.tensor))
    length = reduced(lowering, "SUM", powered, [place])
    if euclidean:
        length = lowering.op("SQRT", [length], sizes_of(length))
    lowering.hold(node.outputs[0], lowering.op("DIV", [held.tensor, length], sizes_of(held.tensor)), held.order)


def _normalized(lowering: Lowering, tensor: Tensor, places: Sequence[int], epsilon: float) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) over the file's own axes `places`."""
    sizes = sizes_of(tensor)
    centred = lowering.op("SUB", [tensor, reduced(lowering, "MEAN", tensor, places)], sizes)
    variance = reduced(lowering, "MEAN", lowering.op("SQUARE", [centred], sizes), places)
    small = sizes_of(variance)
    raised = lowering.op("ADD", [variance, lowering.number(epsilon, variance)], small)
    return lowering.op("MUL", [centred, lowering.op("RSQRT", [raised], small)], sizes)


def _scaled(lowering: Lowering, node: ir.Node, tensor: Tensor, order: Order) -> Tensor:
    sizes = sizes_of(tensor)
    scale, bias = (lowering.required(value, "scale and bias") for value in node.inputs[1:3])
    scaled = lowering.op("MUL", [tensor, by_channel(lowering, scale, order)], sizes)
    return lowering.op("ADD", [scaled, by_channel(lowering, bias, order)], sizes)


def by_channel(lowering: Lowering, values: np.ndarray, order: Order) -> Tensor:
    """Numbers of axis 1 as a constant that broadcasts; without leading ones, as kernels like it."""
    shape = [1] * len(order)
    shape[order.index(1)] = -1
    full = values.astype(np.float32).reshape(shape)
    return lowering.array(full.reshape(full.shape[order.index(1) :]), "by_channel")
