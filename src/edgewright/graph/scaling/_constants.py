"""Constants that take factors: the weights of a layer, and what is multiplied or added along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Layer:
    """A node whose output channels are linear in its input channels, by the constant weights of its input 1.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        inputs: The factor of each input channel; None where what it reads has none.
        outputs: The factor of each output channel.
    """

    node: ir.Node
    inputs: np.ndarray | None
    outputs: np.ndarray | None
    index: ClassVar[int] = 1

    def matrix(self) -> np.ndarray:
        """The weights as f32[G, O / G, I / G, K]: groups, output channels, input channels, kernel positions."""
        weight = constant_array(self.node.inputs[1])
        assert weight is not None
        if is_standard(self.node, "Conv"):
            groups = self.node.attributes.get_int("group", 1)
            return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        if is_standard(self.node, "ConvTranspose"):
            groups = self.node.attributes.get_int("group", 1)
            return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).transpose(0, 2, 1, 3)
        return (weight if self.node.attributes.get_int("transB", 0) else weight.T)[None, :, :, None]

    def scaled(self, factors: np.ndarray) -> np.ndarray | None:
        """The weights in the node's own layout, outputs multiplied and inputs divided; None where nothing changes."""
        up, down = (None if ids is None else factors[ids] for ids in (self.outputs, self.inputs))
        if all(item is None or (item == 1).all() for item in (up, down)):
            return None
        weight = constant_array(self.node.inputs[1])
        assert weight is not None
        matrix = self.matrix()
        groups = matrix.shape[0]
        ratio = np.ones((groups, *matrix.shape[1:3]))
        if up is not None:
            ratio *= up.reshape(groups, -1, 1)
        if down is not None:
            ratio /= down.reshape(groups, 1, -1)
        if is_standard(self.node, "Conv", "ConvTranspose"):
            if is_standard(self.node, "ConvTranspose"):
                ratio = ratio.transpose(0, 2, 1)
            ratio = ratio.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
        else:
            ratio = ratio[0] if self.node.attributes.get_int("transB", 0) else ratio[0].T
        return (weight * ratio).astype(weight.dtype)


@dataclass(frozen=True, eq=False)
class Factor:
    """A constant that is multiplied along one axis: by the factors `up`, divided by those of `down`.

    Attributes:
        node: Its reader.
        index: Which of the reader's inputs it is.
        axis: The channel axis, counted from the end (negative): constants broadcast from there.
        up: Numbers of the factors, or None.
        down: The same.
    """

    node: ir.Node
    index: int
    axis: int
    up: np.ndarray | None
    down: np.ndarray | None = None

    def scaled(self, factors: np.ndarray) -> np.ndarray | None:
        """The new constant; None where nothing changes."""
        old = constant_array(self.node.inputs[self.index])
        assert old is not None
        ratio = np.ones(1)
        if self.up is not None:
            ratio = ratio * factors[self.up]
        if self.down is not None:
            ratio = ratio / factors[self.down]
        if (ratio == 1).all() or not old.any():
            return None
        ratio = ratio.reshape(-1, *[1] * (-self.axis - 1))
        return np.asarray((old * ratio).astype(old.dtype))
