"""int8: layers between DequantizeLinear run on integers, as ncnn's own int8 layers do.

A layer takes floats and quantizes them, or takes the integers that the layer before made for it. ncnn knows symmetric
int8 activations with one step for a tensor and int8 weights with a step for each output channel, and nothing else.

Source: Tencent/ncnn, docs/how-to-use-and-FAQ/quantized-int8-inference.md and src/layer/convolution.cpp (`int8_scale_term`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.runtimes.ncnn.network import Blob, Network, Refusal, name_of

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = ("Conv", "Gemm", "MatMul")
#: Numbers of the parameter that says that a layer has scales; above 100 it hands on integers.
_SCALES, _INTEGERS_OUT = 8, 100


@dataclass(frozen=True, eq=False)
class Quantized:
    """The integers of a layer.

    Attributes:
        levels: int8 weights in the node's own layout.
        steps: Step of each output channel.
        step: Step of what it reads.
        step_out: Step of what it hands on; None where that is float.
    """

    levels: np.ndarray
    steps: np.ndarray
    step: float

    def scales(self) -> tuple[Weight, ...]:
        """Scales as ncnn loads them: one over the step."""
        return (Weight(1 / self.steps.astype(np.float64)), Weight(np.array([1 / self.step], np.float32)))

    def finish(self, network: Network, value: ir.Value, params: dict[int, Param], kind: str) -> None:
        """Say in the parameters that the layer is int8."""
        params[_SCALES] = 1

    def hand_on(self, network: Network, value: ir.Value) -> None:
        """Nothing to do where the layer hands on floats."""


def quantized(network: Network, node: ir.Node) -> Quantized | None:
    """The integers of a layer between DequantizeLinear; None for a float layer."""
    data, weight = _dequantize(node.inputs[0]), _dequantize(node.inputs[1])
    if data is None or weight is None:
        return None
    levels = constant_array(weight.inputs[0])
    step = _step(data)
    if levels is None or levels.dtype != np.int8 or step is None or np.abs(levels.astype(np.int16)).max() > 127:
        return None
    zero = constant_array(weight.inputs[2]) if len(weight.inputs) > 2 else None
    if zero is not None and zero.any():
        return None
    steps = constant_array(weight.inputs[1])
    axis = 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) else 1
    outputs = levels.shape[axis]
    if steps is None or steps.size not in (1, outputs):
        return None
    if steps.size > 1 and weight.attributes.get_int("axis", 1) % levels.ndim != axis:
        return None
    if node.op_type == "Conv" and node.attributes.get_int("group", 1) not in (1, outputs):
        return None
    return Quantized(levels, np.broadcast_to(steps.reshape(-1), (outputs,)).astype(np.float32), step)


def lower_quantize(network: Network, node: ir.Node) -> None:
    """QuantizeLinear: nothing, the layers that read the result quantize for themselves."""
    if _symmetric_step(node) is None:
        raise Refusal("ncnn quantizes activations to symmetric int8 with one step")
    data = node.inputs[0]
    assert data is not None
    network.alias(node.outputs[0], network.blob(data))


def lower_dequantize(network: Network, node: ir.Node) -> None:
    """DequantizeLinear: of weights nothing; of activations, the values on the grid where something reads them as floats."""
    if constant_array(node.inputs[0]) is not None:
        return
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    if quantize is None or not is_standard(quantize, "QuantizeLinear") or _symmetric_step(node) != _symmetric_step(quantize):
        raise Refusal("ncnn dequantizes only what it quantized, by the same step")
    step, blob = _symmetric_step(node), network.blobs[name_of(quantize.outputs[0])]
    assert step is not None
    value = node.outputs[0]
    if all(_reads_integers(network, use.node, use.idx) for use in value.uses()) and not value.is_graph_output():
        network.alias(value, blob)
        return
    scale, back = Weight(np.array([1 / step], np.float32)), {0: 2, 1: 1, 2: step}
    levels = network.add_inner("Quantize", (blob.name,), value, {0: 1}, (scale,))
    floats = network.add_inner("Cast", (levels,), value, {0: 3, 1: 1})
    network.add("BinaryOp", (floats,), value, back, dims=blob.dims)


def _reads_integers(network: Network, node: ir.Node, index: int) -> bool:
    return index == 0 and is_standard(node, *_LAYERS) and quantized(network, node) is not None


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and is_standard(producer, "DequantizeLinear") else None


def _step(dequantize: ir.Node) -> float | None:
    """The step of activations that come through a Q and DQ which ncnn executes."""
    return _symmetric_step(dequantize) if constant_array(dequantize.inputs[0]) is None else None


def _symmetric_step(node: ir.Node) -> float | None:
    scale = constant_array(node.inputs[1])
    zero = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.size != 1 or zero is None or zero.dtype != np.int8 or zero.any():
        return None
    return float(scale.reshape(()))


LOWERINGS = {"QuantizeLinear": lower_quantize, "DequantizeLinear": lower_dequantize}
_ = Blob
