"""Ties between channels, collected node by node, and their closure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.scaling._constants import Factor, Layer

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Attributes:
        axis: Which axis they are, counted from the front.
        ids: For each channel the number of its factor.
    """

    axis: int
    ids: np.ndarray


@dataclass
class Ties:
    """What the rules have found so far.

    Attributes:
        channels: By tensor; those that are missing have no channels that may be scaled.
        passed: (node, input index) of every reader that passes factors on.
        refusals: Why a reader does not, where more can be said than its operator.
        pairs: Channels that must have equal factors, as two lists of numbers each.
        frozen: Channels whose factor must be 1, with the reason.
        layers: See `scaling.Scaling`; so is `factors`.
        count: Numbers given out.
    """

    channels: dict[ir.Value, Channels] = field(default_factory=dict)
    passed: set[tuple[ir.Node, int]] = field(default_factory=set)
    refusals: dict[tuple[ir.Node, int], str] = field(default_factory=dict)
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    count: int = 0

    def fresh(self, count: int) -> np.ndarray:
        """Numbers for `count` channels that are tied to nothing yet."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def of(self, node: ir.Node, index: int) -> Channels | None:
        """Channels of an input of `node`; None where it has none that may be scaled."""
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if value is None else self.channels.get(value)

    def passes(self, node: ir.Node, index: int, result: Channels, output: int = 0) -> None:
        """Let an output of `node` have the channels `result`, and note that it passes factors of that input on."""
        self.passed.add((node, index))
        self.channels[node.outputs[output]] = result

    def refuse(self, node: ir.Node, index: int, reason: str) -> None:
        """Say why an input of `node` must keep the factor 1."""
        self.refusals[node, index] = reason

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Give two lists of channels, of equal length, equal factors."""
        self.pairs.append((first, second))

    def freeze(self, channels: Channels | np.ndarray, reason: str) -> None:
        """Keep factors at 1."""
        self.frozen.append((channels.ids if isinstance(channels, Channels) else channels, reason))


def connected(count: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each of `count` items the smallest item that it is connected to by `pairs`, int64[count]."""
    labels = np.arange(count)
    if not pairs:
        return labels
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    while True:
        one, other = labels[first], labels[second]
        if np.array_equal(one, other):
            return labels
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
