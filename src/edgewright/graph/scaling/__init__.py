"""Scaling: which channels of which tensors may carry a positive factor without changing what a network computes.

A convolution's output channel can be made s times larger by its weights, and the reader's weights can undo it. Between
the two, operators such as Relu, Add and pooling pass the factor on and so tie channels together: each class of tied
channels has one factor. What an operator of another kind makes or reads keeps the factor 1.

    scaling = find(ir_model)
    scaling.apply(factors, names=Names(ir_model))      # factors f64[classes], 1 where not scaling.free

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import Names, replace_constant
from edgewright.graph.scaling._constants import Factor, Layer
from edgewright.graph.scaling._layers import add_layer
from edgewright.graph.scaling._rules import RULES
from edgewright.graph.scaling._ties import Channels, Ties, connected

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Channels", "Factor", "Group", "Layer", "Scaling", "find"]


@dataclass(frozen=True)
class Group:
    """Tensors that are tied together, directly or over others.

    Attributes:
        values: The tensors, in graph order.
        classes: Indices of the factors that they use.
        barriers: Why some or all of the factors must stay 1, each reason once.
    """

    values: tuple[ir.Value, ...]
    classes: np.ndarray
    barriers: tuple[str, ...]


@dataclass(frozen=True)
class Scaling:
    """All that may be scaled in a network.

    Attributes:
        free: bool[classes], False where the factor must stay 1.
        channels: By tensor, which factor each of its channels has.
        layers: Layers with weights at which one factor ends and another begins.
        factors: Other constants that change with a factor: biases, added constants, norms' parameters.
        groups: Tensors that are tied together.
    """

    free: np.ndarray
    channels: Mapping[ir.Value, Channels]
    layers: tuple[Layer, ...]
    factors: tuple[Factor, ...]
    groups: tuple[Group, ...]

    def apply(self, factors: np.ndarray, *, names: Names) -> int:
        """Multiply every tensor's channels by their factors; returns how many constants changed.

        Args:
            factors: f64[classes], positive, 1 where not `free`.
            names: Names in use, for copies of shared constants.
        """
        assert factors.shape == self.free.shape
        assert (factors[~self.free] == 1).all()
        assert (factors > 0).all()
        count = 0
        changing: tuple[Layer | Factor, ...] = (*self.layers, *self.factors)
        for item in changing:
            array = item.scaled(factors)
            if array is not None:
                replace_constant(item.node, item.index, array, names=names)
                count += 1
        return count


def find(ir_model: ir.Model) -> Scaling:
    """What may be scaled in the main graph. Types and shapes must be inferred; the graph is not changed."""
    ties = Ties()
    for node in ir_model.graph:
        if not add_layer(node, ties):
            rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if rule is not None:
                rule(node, ties)
    for value, channels in tuple(ties.channels.items()):
        if value.is_graph_output():
            ties.freeze(channels, f"the graph returns `{value.name}`")
        for node, index in value.uses():
            if (node, index) not in ties.passed:
                ties.freeze(channels, ties.refusals.get((node, index), f"{node.op_type} reads `{value.name}`"))
    return _finish(ties)


def _finish(ties: Ties) -> Scaling:
    """Merge tied channels into classes, numbered by first appearance."""
    labels = connected(ties.count, ties.pairs)
    _, numbers = np.unique(labels, return_inverse=True)
    count = int(numbers.max(initial=-1)) + 1
    free = np.ones(count, bool)
    reasons: dict[str, list[np.ndarray]] = {}
    for ids, reason in ties.frozen:
        free[numbers[ids]] = False
        reasons.setdefault(reason, []).append(numbers[ids])
    channels = {value: Channels(item.axis, numbers[item.ids]) for value, item in ties.channels.items()}

    def renumber(ids: np.ndarray | None) -> np.ndarray | None:
        return None if ids is None else numbers[ids]

    return Scaling(
        free,
        channels,
        tuple(Layer(item.node, renumber(item.inputs), renumber(item.outputs)) for item in ties.layers),
        tuple(
            Factor(item.node, item.index, item.axis, renumber(item.up), renumber(item.down)) for item in ties.factors
        ),
        _groups(channels, count, reasons),
    )


def _groups(
    channels: Mapping[ir.Value, Channels], count: int, reasons: Mapping[str, list[np.ndarray]]
) -> tuple[Group, ...]:
    values = list(channels)
    pairs = [(np.full(len(channels[v].ids), count + i), channels[v].ids) for i, v in enumerate(values)]
    labels = connected(count + len(values), pairs)
    members: dict[int, list[ir.Value]] = {}
    for index, value in enumerate(values):
        members.setdefault(int(labels[count + index]), []).append(value)
    barriers: dict[int, list[str]] = {}
    for reason, classes in reasons.items():
        for label in np.unique(labels[np.concatenate(classes)]):
            barriers.setdefault(int(label), []).append(reason)
    return tuple(
        Group(tuple(tied), np.unique(np.concatenate([channels[v].ids for v in tied])), tuple(barriers.get(label, ())))
        for label, tied in members.items()
    )
