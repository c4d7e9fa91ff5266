"""Conv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import rule
from edgewright.runtimes.litert.rules.integers import IntegerLayer, integer_layer
from edgewright.runtimes.litert.rules.normalization import factor_and_offset
from edgewright.runtimes.litert.rules.windows import Windows, hand_out, image, padded, windows

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("Conv")
def convolution(lowering: Lowering, node: ir.Node) -> None:
    """CONV_2D, with groups too, or DEPTHWISE_CONV_2D; in integers where all around it is quantized."""
    layer = integer_layer(lowering, node)
    data, shape = node.inputs[0], lowering.sizes(_required(node.inputs[1]))
    assert data is not None
    slid = windows(lowering, node, shape[2:])
    source = image(lowering, data, integers=layer is not None)
    groups = node.attributes.get_int("group", 1)
    depthwise = groups > 1 and groups == sizes_of(source)[3] and shape[1] == 1
    if layer is not None:
        weight = layer.stored(lowering, _turned(layer.weight, depthwise=depthwise), axis=3 if depthwise else 0)
        made = _slide(lowering, slid, [source, weight, layer.bias], layer.act, depthwise=depthwise, layer=layer)
        hand_out(lowering, layer.result, made)
        return
    constants, result = _constants(lowering, node)
    weight = lowering.array(_turned(constants[0], depthwise=depthwise), _required(node.inputs[1]).name or "weight")
    target, act = lowering.absorb(result)
    made = _slide(lowering, slid, [source, weight, _bias(lowering, node, constants[1])], act, depthwise=depthwise)
    hand_out(lowering, target, made)


def _constants(lowering: Lowering, node: ir.Node) -> tuple[tuple[np.ndarray, np.ndarray], ir.Value]:
    """Weights and bias, with the factors and offsets of the BatchNormalization that alone reads the result; its result."""
    weight = lowering.required(node.inputs[1], "weights")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(len(weight), np.float32) if value is None else lowering.required(value, "bias").astype(np.float32)
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "BatchNormalization") or reader.graph is not node.graph:
        return (weight, bias), node.outputs[0]
    factor, offset = factor_and_offset(lowering, reader)
    lowering.skip(reader)
    scaled = weight * factor.reshape([-1] + [1] * (weight.ndim - 1))
    return (scaled.astype(weight.dtype), (bias * factor + offset).astype(np.float32)), reader.outputs[0]


def _turned(weight: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """OIHW as OHWI, or 1HWO for a depthwise convolution; OIW has one row."""
    full = weight[:, :, None, :] if weight.ndim == 3 else weight
    return np.ascontiguousarray(full.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)))


def _slide(
    lowering: Lowering,
    slid: Windows,
    inputs: list[Tensor],
    act: str,
    *,
    depthwise: bool,
    layer: IntegerLayer | None = None,
) -> Tensor:
    source, weight, bias = inputs
    scheme = slid.scheme()
    if scheme is None:
        source, scheme = padded(lowering, source, slid.covering()), "VALID"
    channels = weight.shape[3] if depthwise else weight.shape[0]
    options: dict[str, Any] = {
        "padding": scheme, "fusedActivationFunction": act, "strideH": slid.strides[0], "strideW": slid.strides[1],
        "dilationHFactor": slid.dilations[0], "dilationWFactor": slid.dilations[1],
    }  # fmt: skip
    if depthwise:
        options["depthMultiplier"] = channels // sizes_of(source)[3]
    return lowering.op(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [source, weight, bias],
        (sizes_of(source)[0], *slid.made, channels),
        quantization=layer.quantization if layer else None,
        version=3 if layer else 2 if depthwise else 1,
        **options,
    )


def _bias(lowering: Lowering, node: ir.Node, bias: np.ndarray) -> Tensor:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return lowering.array(bias, (value.name if value is not None else None) or "bias")


def _required(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
