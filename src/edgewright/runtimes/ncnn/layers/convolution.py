"""Convolutions and their transposes, of one, two and three spatial axes.

Source: Tencent/ncnn, docs/developer-guide/operators.md, for the numbers of parameters and the order of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.runtimes.ncnn.layers.quantized import (
    FLOATS_OUT,
    SCALES,
    Handed,
    Quantized,
    hand_on,
    handed_on,
    quantized,
)
from edgewright.runtimes.ncnn.network import Network, UnsupportedError, dims_of, given, require_constant, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: Numbers of the parameters that have one value for each spatial axis, in ONNX's order of axes, by their count.
_KERNEL = {1: (1,), 2: (11, 1), 3: (21, 11, 1)}
_DILATION = {1: (2,), 2: (12, 2), 3: (22, 12, 2)}
_STRIDE = {1: (3,), 2: (13, 3), 3: (23, 13, 3)}
_BEFORE = {1: (4,), 2: (14, 4), 3: (24, 14, 4)}
_AFTER = {1: (15,), 2: (16, 15), 3: (17, 16, 15)}
_OUTPUT_PAD = {1: (18,), 2: (19, 18), 3: (20, 19, 18)}
_RANK = {1: "1D", 2: "", 3: "3D"}
_FEATURES = 31
#: Of the mask of features that a layer must not use: Winograd convolutions.
_NO_WINOGRAD = 64


def lower_conv(network: Network, node: ir.Node) -> None:
    """Conv, or InnerProduct where it reads a single place."""
    integers = quantized(node)
    weight = require_constant(node.inputs[1], "weight") if integers is None else integers.levels
    bias = None if given(node, 2) is None else require_constant(node.inputs[2], "bias")
    spatial, shape = weight.ndim - 2, shape_of(node.inputs[0])
    if shape[0] != 1 or not 1 <= spatial <= 3:
        raise UnsupportedError(f"ncnn convolves one sample of one to three spatial axes, not {list(shape)}")
    group = node.attributes.get_int("group", 1)
    pads = padding(node, shape[2:], weight.shape[2:])
    params: dict[int, Param] = {0: weight.shape[0], 5: int(bias is not None), 6: weight.size}
    params |= dict(zip(_KERNEL[spatial], weight.shape[2:], strict=True))
    params |= dict(zip(_DILATION[spatial], _attribute(node, "dilations", spatial), strict=True))
    params |= dict(zip(_STRIDE[spatial], _attribute(node, "strides", spatial), strict=True))
    params |= dict(zip(_BEFORE[spatial], pads[:spatial], strict=True))
    params |= dict(zip(_AFTER[spatial], pads[spatial:], strict=True))
    if group > 1:
        params[7] = group
    kind = f"Convolution{'DepthWise' if group > 1 else ''}{_RANK[spatial]}"
    point = group == 1 and math.prod((*weight.shape[2:], *shape[2:])) == 1 and not any(pads)
    if point:  # a dense layer, for which ncnn has faster code
        kind, params = "InnerProduct", {0: weight.shape[0], 1: int(bias is not None), 2: weight.size}
    _finish(network, node, kind, params, _Numbers(weight, bias, integers), flat=point)


def lower_conv_transpose(network: Network, node: ir.Node) -> None:
    """ConvTranspose: ncnn lays weights out by output, ONNX by input."""
    weight = require_constant(node.inputs[1], "weight")
    bias = None if given(node, 2) is None else require_constant(node.inputs[2], "bias")
    spatial, shape = weight.ndim - 2, shape_of(node.inputs[0])
    if shape[0] != 1 or not 1 <= spatial <= 3:
        raise UnsupportedError(f"ncnn convolves one sample of one to three spatial axes, not {list(shape)}")
    group = node.attributes.get_int("group", 1)
    grouped = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    outputs = group * weight.shape[1]
    pads, extra = _transposed_pads(node, shape[2:], weight.shape[2:])
    params: dict[int, Param] = {0: outputs, 5: int(bias is not None), 6: weight.size}
    params |= dict(zip(_KERNEL[spatial], weight.shape[2:], strict=True))
    params |= dict(zip(_DILATION[spatial], _attribute(node, "dilations", spatial), strict=True))
    params |= dict(zip(_STRIDE[spatial], _attribute(node, "strides", spatial), strict=True))
    params |= dict(zip(_BEFORE[spatial], pads[:spatial], strict=True))
    params |= dict(zip(_AFTER[spatial], pads[spatial:], strict=True))
    params |= dict(zip(_OUTPUT_PAD[spatial], extra, strict=True))
    if group > 1:
        params[7] = group
    kind = f"Deconvolution{'DepthWise' if group > 1 else ''}{_RANK[spatial]}"
    _finish(network, node, kind, params, _Numbers(grouped.swapaxes(1, 2), bias))


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Weights and bias of one layer, and its scales where it is int8."""

    weight: np.ndarray
    bias: np.ndarray | None
    integers: Quantized | None = None

    def weights(self, network: Network, handed: Handed | None) -> tuple[Weight, ...]:
        """All of them, as ncnn loads them."""
        first = network.weight(self.weight) if self.integers is None else Weight(self.weight, tagged=True)
        bias = () if self.bias is None else (Weight(self.bias.reshape(-1)),)
        return (first, *bias, *(() if self.integers is None else self.integers.scales(handed)))


def _finish(
    network: Network, node: ir.Node, kind: str, params: dict[int, Param], numbers: _Numbers, *, flat: bool = False
) -> None:
    """Add the layer with the activation, and the quantization, that follow it."""
    data = node.inputs[0]
    assert data is not None
    activation = network.activation(node.outputs[0])
    made = activation.value
    params |= activation.params
    handed = None
    if numbers.integers is not None:
        params[SCALES] = FLOATS_OUT
        handed = None if flat else handed_on(made)
        if kind == "Convolution" and params[1] == params[11] == 3:
            params[_FEATURES] = _NO_WINOGRAD  # whose sums of 8-bit weights leave 16 bits
    weights = numbers.weights(network, handed)
    inner, result = dims_of(shape_of(data)), dims_of(shape_of(made))
    if flat:
        inner, result = (math.prod(inner),), (math.prod(result),)
    source = network.read(data, inner)
    if handed is not None:
        hand_on(network, made, handed, kind, source, params, weights=weights)
    else:
        network.add(kind, (source,), made, params, weights, dims=result)


def padding(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Pads of a convolution or pool: before, by axis, then after.

    Raises:
        UnsupportedError: Where one is negative.
    """
    spatial = len(kernel)
    rule = node.attributes.get_string("auto_pad", "NOTSET")
    pads = list(node.attributes.get_ints("pads", [0] * 2 * spatial)) if rule == "NOTSET" else [0] * 2 * spatial
    if rule.startswith("SAME"):
        strides, dilations = _attribute(node, "strides", spatial), _attribute(node, "dilations", spatial)
        for axis, size in enumerate(sizes):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[spatial + axis] = (less, more) if rule == "SAME_UPPER" else (more, less)
    if min(pads) < 0:
        raise UnsupportedError(f"it pads by {pads}, ncnn's layers cannot cut")
    return pads


def _transposed_pads(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Pads of a ConvTranspose (before by axis, then after) and its output padding.

    Source: the ONNX operator ConvTranspose, for what `output_shape` and `auto_pad` mean.
    """
    spatial = len(kernel)
    rule = node.attributes.get_string("auto_pad", "NOTSET")
    strides, dilations = _attribute(node, "strides", spatial), _attribute(node, "dilations", spatial)
    extra = list(node.attributes.get_ints("output_padding", [0] * spatial))
    wanted = node.attributes.get_ints("output_shape", [])
    if not wanted and not rule.startswith("SAME"):
        pads = list(node.attributes.get_ints("pads", [0] * 2 * spatial)) if rule == "NOTSET" else [0] * 2 * spatial
    else:
        pads = [0] * 2 * spatial
        for axis, size in enumerate(sizes):
            target = wanted[-spatial:][axis] if wanted else size * strides[axis]
            full = strides[axis] * (size - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            less, more = (full - target) // 2, (full - target) - (full - target) // 2
            pads[axis], pads[spatial + axis] = (less, more) if rule == "SAME_UPPER" else (more, less)
    if min(pads) < 0:
        raise UnsupportedError(f"it pads by {pads}, ncnn's layers cannot cut")
    return pads, extra


def _attribute(node: ir.Node, name: str, spatial: int) -> list[int]:
    return list(node.attributes.get_ints(name, [1] * spatial))


LOWERINGS = {"Conv": lower_conv, "ConvTranspose": lower_conv_transpose}
