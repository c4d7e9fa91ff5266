"""The family as an ONNX graph, node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.model import OPSET_VERSION
from edgewright.zoo.efficientnet_lite.architecture import (
    HEAD_CHANNELS,
    SQUEEZE_RATIO,
    STEM_CHANNELS,
    Block,
    blocks,
    round_channels,
    same_padding,
    width,
)
from edgewright.zoo.efficientnet_lite.weights import Weights

if TYPE_CHECKING:
    import onnx_ir as ir

INPUT, OUTPUT, BATCH = "image", "logits", "N"
_EPSILON = 1e-3


@dataclass(frozen=True)
class Form:
    """What is built.

    Attributes:
        name: The network.
        resolution: Height and width of the input in pixels.
        batch: Size of the first axis, or its name.
        classes: Logits.
        activation: `relu6`, `swish` or `relu`.
        squeeze_excite: Squeeze and excitation in every block.
        fixed_stem_head: Stem, head, first and last stage are not scaled.
    """

    name: str
    resolution: int
    batch: int | str
    classes: int
    activation: str
    squeeze_excite: bool
    fixed_stem_head: bool


class Builder:
    """Adds nodes; each node's output has the node's name, weights are NAME.weight, NAME.bn.scale and so on."""

    def __init__(self, form: Form, weights: Weights) -> None:
        self._form = form
        self._weights = weights
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}

    def graph(self) -> ir.Graph:
        """The whole network's graph; call it once."""
        import onnx_ir as ir

        form = self._form
        image = _value(INPUT, (form.batch, 3, form.resolution, form.resolution))
        stem, head = STEM_CHANNELS, HEAD_CHANNELS
        if not form.fixed_stem_head:
            stem, head = (round_channels(channels, width(form.name)) for channels in (stem, head))
        x = self._unit("stem", image, stem, keys=("_conv_stem", "_bn0"), kernel=3, stride=2)
        for index, block in enumerate(blocks(form.name, fixed_stem_head=form.fixed_stem_head)):
            x = self._block(index, x, block)
        x = self._unit("head", x, head, keys=("_conv_head", "_bn1"))
        x = self._node("GlobalAveragePool", "pool", [x], (form.batch, head, 1, 1))
        x = self._node("Flatten", "flatten", [x], (form.batch, head))
        weight = self._weight("classifier.weight", "_fc.weight", (form.classes, head))
        bias = self._weight("classifier.bias", "_fc.bias", (form.classes,))
        shape = (form.batch, form.classes)
        logits = self._node("Gemm", "classifier", [x, weight, bias], shape, attributes={"transB": 1}, output=OUTPUT)
        return ir.Graph(
            [image],
            [logits],
            nodes=self._nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports={"": OPSET_VERSION},
            name=form.name,
        )

    def _block(self, index: int, x: ir.Value, block: Block) -> ir.Value:
        name, key, shortcut = f"blocks.{index}", f"_blocks.{index}.", x
        expanded = block.channels_in * block.expansion
        if block.expansion != 1:
            x = self._unit(f"{name}.expand", x, expanded, keys=(f"{key}_expand_conv", f"{key}_bn0"))
        x = self._unit(
            f"{name}.depthwise", x, expanded, keys=(f"{key}_depthwise_conv", f"{key}_bn1"), kernel=block.kernel,
            stride=block.stride, groups=expanded,
        )  # fmt: skip
        if self._form.squeeze_excite:
            x = self._squeeze_excite(f"{name}.se", x, key, max(1, int(block.channels_in * SQUEEZE_RATIO)))
        keys = (f"{key}_project_conv", f"{key}_bn2")
        x = self._unit(f"{name}.project", x, block.channels_out, keys=keys, activate=False)
        if block.stride == 1 and block.channels_in == block.channels_out:
            x = self._node("Add", f"{name}.add", [x, shortcut], _sizes(x))
        return x

    def _squeeze_excite(self, name: str, x: ir.Value, key: str, squeezed: int) -> ir.Value:
        batch, channels, *_ = _sizes(x)
        gate = self._node("GlobalAveragePool", f"{name}.pool", [x], (batch, channels, 1, 1))
        gate = self._convolution(f"{name}.reduce", gate, squeezed, key=f"{key}_se_reduce", bias=True)
        gate = self._activate(f"{name}.reduce.act", gate)
        gate = self._convolution(f"{name}.expand", gate, int(channels), key=f"{key}_se_expand", bias=True)
        gate = self._node("Sigmoid", f"{name}.gate", [gate], _sizes(gate))
        return self._node("Mul", f"{name}.scale", [x, gate], _sizes(x))

    def _unit(
        self, name: str, x: ir.Value, channels: int, *, keys: tuple[str, str], kernel: int = 1, stride: int = 1,
        groups: int = 1, activate: bool = True,
    ) -> ir.Value:  # fmt: skip
        """Convolution, batch-norm and, where asked, the activation."""
        x = self._convolution(name, x, channels, key=keys[0], kernel=kernel, stride=stride, groups=groups)
        inputs = [x]
        for part, key in (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var")):
            inputs.append(self._weight(f"{name}.bn.{part}", f"{keys[1]}.{key}", (channels,)))
        self._weights.skip(f"{keys[1]}.num_batches_tracked")
        x = self._node("BatchNormalization", f"{name}.bn", inputs, _sizes(x), attributes={"epsilon": _EPSILON})
        return self._activate(f"{name}.act", x) if activate else x

    def _convolution(
        self, name: str, x: ir.Value, channels: int, *, key: str, kernel: int = 1, stride: int = 1, groups: int = 1,
        bias: bool = False,
    ) -> ir.Value:  # fmt: skip
        batch, channels_in, size, _ = _sizes(x)
        before, after = same_padding(int(size), kernel, stride)
        inputs = [
            x,
            self._weight(f"{name}.weight", f"{key}.weight", (channels, int(channels_in) // groups, kernel, kernel)),
        ]
        if bias:
            inputs.append(self._weight(f"{name}.bias", f"{key}.bias", (channels,)))
        attributes = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "group": groups,
                      "pads": [before, before, after, after]}  # fmt: skip
        out = math.ceil(int(size) / stride)
        return self._node("Conv", name, inputs, (batch, channels, out, out), attributes=attributes)

    def _activate(self, name: str, x: ir.Value) -> ir.Value:
        if self._form.activation == "relu":
            return self._node("Relu", name, [x], _sizes(x))
        if self._form.activation == "swish":
            gate = self._node("Sigmoid", f"{name}.sigmoid", [x], _sizes(x))
            return self._node("Mul", name, [x, gate], _sizes(x))
        limits = [self._constant("relu6.min", 0.0), self._constant("relu6.max", 6.0)]
        return self._node("Clip", name, [x, *limits], _sizes(x))

    def _weight(self, name: str, key: str, shape: tuple[int, ...]) -> ir.Value:
        return self._initializer(name, self._weights.take(key, shape))

    def _constant(self, name: str, number: float) -> ir.Value:
        if name in self._initializers:
            return self._initializers[name]
        return self._initializer(name, np.array(number, np.float32))

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        import onnx_ir as ir

        value = _value(name, array.shape)
        value.const_value = ir.Tensor(array, name=name)
        self._initializers[name] = value
        return value

    def _node(
        self, kind: str, name: str, inputs: Sequence[ir.Value], shape: Sequence[int | str],
        *, attributes: Mapping[str, Any] | None = None, output: str | None = None,
    ) -> ir.Value:  # fmt: skip
        import onnx_ir as ir

        value = _value(output or name, shape)
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=[value], name=name))
        return value


def _value(name: str, shape: Sequence[int | str]) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def _sizes(value: ir.Value) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
