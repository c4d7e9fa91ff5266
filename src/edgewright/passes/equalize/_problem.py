"""The problem of one group: which of its tensors are quantized, which layers read them, and what their noise does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import QuantFormat
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.graph.scaling import Channels, Group, Layer, Scaling
from edgewright.passes.equalize._noise import Activation, Problem, Weights
from edgewright.passes.equalize._statistics import Observed

if TYPE_CHECKING:
    import onnx_ir as ir

#: They hand values on, so that no noise is added where they are quantized.
_MOVING = (
    *("Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    *("Dropout", "GlobalMaxPool", "Pad"),
)
#: Independent noise is averaged away.
_AVERAGING = ("AveragePool", "GlobalAveragePool", "ReduceMean")
#: A channel counts as at least this share of its tensor's range: on other samples it may hold more.
_LEAST_RANGE = 0.01
#: Output channels that stand for all of a layer's: the steps of more say nothing new.
_ROWS = 256
#: Power of the mean that says how far a channel's values reach, the few farthest aside.
_TAIL = 8


@dataclass(frozen=True)
class Points:
    """Where a graph will be quantized, as far as its groups go.

    Attributes:
        order: The main graph's nodes.
        channels: By tensor.
        names: Tensors that are quantized and add noise.
        layers: Layers that will run in int8, by node.
    """

    order: tuple[ir.Node, ...]
    channels: Mapping[ir.Value, Channels]
    names: frozenset[str]
    layers: Mapping[ir.Node, Layer]

    @classmethod
    def of(cls, ir_model: ir.Model, scaling: Scaling, form: QuantFormat) -> Points:
        """What the format `form` quantizes of the tensors that may be scaled."""
        layers = {layer.node: layer for layer in scaling.layers if layer.node.op_type in form.layers}
        names = {
            value.name or ""
            for value in scaling.channels
            if not is_standard(value.producer(), *_MOVING) and _is_read(value, layers, form, set())
        }
        return cls(tuple(ir_model.graph), scaling.channels, frozenset(names), layers)

    def quantized(self, group: Group) -> list[ir.Value]:
        """Tensors of the group whose quantization adds noise."""
        return [value for value in group.values if value.name in self.names]

    def readers(self, group: Group) -> list[Layer]:
        """Layers in int8 that read tensors of the group."""
        found = [
            self.layers[use.node]
            for value in group.values
            for use in value.uses()
            if use.node in self.layers and use.idx == 0
        ]
        return [layer for layer in found if layer.inputs is not None]

    def needed(self, group: Group) -> list[str]:
        """Names of the tensors whose statistics the group's problem is made of."""
        values = [*self.quantized(group)]
        for layer in self.readers(group):
            values += [layer.node.inputs[0], layer.node.outputs[0]]
        for node in self.order:
            if is_standard(node, *_AVERAGING) and node.outputs[0] in group.values:
                values += [node.inputs[0], node.outputs[0]]
        return list(dict.fromkeys(value.name for value in values))


def _is_read(value: ir.Value, layers: Mapping[ir.Node, Layer], form: QuantFormat, seen: set[ir.Value]) -> bool:
    """True where an int8 layer or operator reads the tensor itself: not a Relu that fuses into its producer."""
    seen.add(value)
    reader = sole_consumer(value)
    if reader is not None and is_standard(reader, "Relu", "Clip") and value.producer() in layers:
        return False
    for use in value.uses():
        node = use.node
        if node in layers:
            return True
        if is_standard(node, *_MOVING):
            if any(_is_read(output, layers, form, seen) for output in node.outputs if output not in seen):
                return True
        elif node.op_type in form.operators:
            return True
    return False


def problem(
    group: Group,
    scaling: Scaling,
    points: Points,
    statistics: Mapping[str, Observed],
    weight_bits: int,
    rounding: float,
) -> Problem:
    """Noise of the group by its factors, relative to the signal of the layers that read it, each counting the same."""
    place = np.full(len(scaling.free), -1)
    place[group.classes] = np.arange(len(group.classes))
    local = {value: place[points.channels[value].ids] for value in group.values}
    readers = [layer for layer in points.readers(group) if _signal(layer, statistics) > 0]
    losses = _losses(group, points, statistics, readers, local)
    dead = np.ones(len(group.classes), bool)
    activations = []
    for value in points.quantized(group):
        item = _activation(statistics[value.name or ""], local[value], losses[value])
        dead &= item.losses == 0
        activations.append(item)
    steps = 2 ** (weight_bits - 1) - 1
    weights = []
    for layer in readers:
        matrix, source = layer.matrix(), layer.node.inputs[0]
        assert source is not None
        if matrix.shape[2] > 1:  # a single input's factor moves the weights' step as well, and nothing changes
            ids = local[source].reshape(matrix.shape[0], -1)
            power = statistics[source.name or ""].both.power.reshape(ids.shape) * matrix.shape[3]
            step = -(-matrix.shape[1] // _ROWS)
            rows = matrix[:, ::step]
            scale = rounding * matrix.shape[1] / rows.shape[1] / _signal(layer, statistics) / steps**2 / 12
            weights.append(Weights(np.abs(rows).max(axis=3), ids, power, scale))
    return Problem(scaling.free[group.classes], dead, tuple(activations), tuple(weights))


def _activation(seen: Observed, ids: np.ndarray, losses: np.ndarray) -> Activation:
    sides = []
    for sign in (-1, 1):
        extreme = np.abs(seen.learnt.low if sign < 0 else seen.learnt.high)
        beyond = np.maximum(sign * seen.learnt.values.astype(np.float64), 0.0)
        tail = np.mean((beyond / max(float(beyond.max(initial=0.0)), 1e-30)) ** _TAIL, axis=1) ** (1 / _TAIL)
        sides.append([_by_class(item, ids, len(losses)) for item in (extreme, tail * beyond.max(initial=0.0))])
    used = _by_class(np.maximum(seen.both.high, -seen.both.low), ids, len(losses)) > 0  # 0 is quantized without noise
    (low, low_tail), (high, high_tail) = sides
    return Activation(
        {"extremes": (low, high), "tails": (low_tail, high_tail)},
        np.where(used, losses, 0.0),
        ids,
        seen.learnt.values,
        seen.judged.values,
    )


def _by_class(reach: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """The largest of each class, at least a share of the largest of all, for what is not always 0."""
    result = np.zeros(count)
    np.maximum.at(result, ids, reach)
    return np.where(result > 0, np.maximum(result, _LEAST_RANGE * result.max(initial=0.0)), 0.0)


def _signal(layer: Layer, statistics: Mapping[str, Observed]) -> float:
    return float(statistics[layer.node.outputs[0].name or ""].both.variance.sum())


def _losses(
    group: Group,
    points: Points,
    statistics: Mapping[str, Observed],
    readers: list[Layer],
    local: Mapping[ir.Value, np.ndarray],
) -> dict[ir.Value, np.ndarray]:
    """For each tensor what noise of power 1 in each channel does, at the readers it reaches directly or over others."""
    count = len(group.classes)
    losses = {value: np.zeros(count) for value in group.values}
    reading = {layer.node: layer for layer in readers}
    for node in reversed(points.order):
        if node in reading:
            matrix = reading[node].matrix()
            gains = np.square(matrix, dtype=np.float64).sum(axis=(1, 3)).reshape(-1)
            source = node.inputs[0]
            np.add.at(losses[source], local[source], gains / _signal(reading[node], statistics))
            continue
        if node in points.layers:
            continue
        for output in node.outputs:
            if output not in losses:
                continue
            for value in dict.fromkeys(node.inputs):
                if value in losses:
                    within = np.isin(np.arange(count), local[value])
                    losses[value] += np.where(within, losses[output], 0.0) * _passed(node, statistics)
    return losses


def _passed(node: ir.Node, statistics: Mapping[str, Observed]) -> float:
    """How much of the power of independent noise `node` passes on."""
    if not is_standard(node, *_AVERAGING):
        return 1.0
    before, after = (
        statistics[value.name or ""].both.positions for value in (node.inputs[0], node.outputs[0]) if value
    )
    return after / max(before, 1)
