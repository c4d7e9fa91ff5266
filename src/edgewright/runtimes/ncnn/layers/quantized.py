"""int8: layers between DequantizeLinear run on integers, as ncnn's own int8 layers do.

A layer takes floats and quantizes them, or takes the integers that the layer before made for it. ncnn knows symmetric
int8 activations with one step for a tensor and int8 weights with a step for each output channel, and nothing else.

Source: Tencent/ncnn, docs/how-to-use-and-FAQ/quantized-int8-inference.md and src/layer/convolution.cpp (`int8_scale_term`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.runtimes.ncnn.network import Network, UnsupportedError, name_of

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = ("Conv", "Gemm", "MatMul")
#: The parameter that says that a layer has scales, and its values: for what hands on floats, or integers.
SCALES, FLOATS_OUT, INTEGERS_OUT = 8, 1, 101
_FORMAT = (
    "ncnn executes symmetric int8 activations with one step alone; compress the float network for it: "
    "edgewright compress MODEL --recipe int8 --runtime ncnn"
)


@dataclass(frozen=True, eq=False)
class Quantized:
    """The integers of a layer.

    Attributes:
        levels: int8 weights in the node's own layout.
        steps: Step of each output channel.
        step: Step of what it reads.
    """

    levels: np.ndarray
    steps: np.ndarray
    step: float

    def scales(self, handed_on: Handed | None = None) -> tuple[Weight, ...]:
        """Scales as ncnn loads them, one over the step: of the weights, of what is read and of what is handed on."""
        with np.errstate(divide="ignore", over="ignore"):
            inverse = (1 / self.steps.astype(np.float64)).astype(np.float32)
        inverse[~np.isfinite(inverse)] = 0  # a channel without weights; ncnn knows 0 as one
        last = () if handed_on is None else (Weight(np.array([1 / handed_on.step], np.float32)),)
        return (Weight(inverse), Weight(np.array([1 / self.step], np.float32)), *last)


@dataclass(frozen=True, eq=False)
class Handed:
    """Integers that a layer hands on to int8 layers, which take them as they are.

    Attributes:
        quantize: The QuantizeLinear that the layer does along.
        step: Its step.
    """

    quantize: ir.Node
    step: float


def handed_on(value: ir.Value) -> Handed | None:
    """What the layer that makes `value` can hand on in int8: where int8 convolutions alone read it."""
    quantize = sole_consumer(value)
    if quantize is None or not is_standard(quantize, "QuantizeLinear") or quantize.inputs[0] is not value:
        return None
    step, integers = _symmetric_step(quantize), quantize.outputs[0]
    if step is None or integers.is_graph_output():
        return None
    for use in integers.uses():
        made = use.node.outputs[0]
        same = is_standard(use.node, "DequantizeLinear") and _symmetric_step(use.node) == step
        if not same or made.is_graph_output() or not all(_reads_blobs(other.node, other.idx) for other in made.uses()):
            return None
    return Handed(quantize, step)


def hand_on(
    network: Network,
    value: ir.Value,
    handed: Handed,
    kind: str,
    source: str,
    params: dict[int, Param],
    *,
    weights: Sequence[Weight],
) -> None:
    """Add the layer, whose blob then holds integers; `value` is shown as what these mean."""
    integers = handed.quantize.outputs[0]
    network.add(kind, (source,), integers, params | {SCALES: INTEGERS_OUT}, weights)
    blob = replace(network.blob(integers), scale=handed.step)
    network.alias(integers, blob)
    network.alias(value, blob)
    network.done.add(id(handed.quantize))
    for use in integers.uses():
        network.alias(use.node.outputs[0], blob)
        network.done.add(id(use.node))


def quantized(node: ir.Node) -> Quantized | None:
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
    if node.op_type == "Conv" and (levels.ndim != 4 or not _whole_or_depthwise(node, levels)):
        return None
    return Quantized(levels, np.broadcast_to(steps.reshape(-1), (outputs,)).astype(np.float32), step)


def lower_quantize(network: Network, node: ir.Node) -> None:
    """QuantizeLinear: nothing, the layers that read the result quantize for themselves."""
    if _symmetric_step(node) is None:
        raise UnsupportedError(_FORMAT)
    data = node.inputs[0]
    assert data is not None
    network.alias(node.outputs[0], network.blob(data), shown=False)


def lower_dequantize(network: Network, node: ir.Node) -> None:
    """DequantizeLinear: of weights nothing; of activations, the values on the grid where something reads them as floats."""
    if constant_array(node.inputs[0]) is not None:
        return
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    step = _symmetric_step(node)
    if quantize is None or not is_standard(quantize, "QuantizeLinear") or step != _symmetric_step(quantize):
        raise UnsupportedError("ncnn dequantizes only what it quantized, by the same step")
    if step is None:
        raise UnsupportedError(_FORMAT)
    blob, value = network.blobs[name_of(quantize.outputs[0])], node.outputs[0]
    if all(_reads_integers(use.node, use.idx) for use in value.uses()) and not value.is_graph_output():
        network.alias(value, blob, shown=False)
        return
    scale, back = Weight(np.array([1 / step], np.float32)), {0: 2, 1: 1, 2: step}
    levels = network.add_inner("Quantize", (blob.name,), value, {0: 1}, (scale,))
    floats = network.add_inner("Cast", (levels,), value, {0: 3, 1: 1})
    network.add("BinaryOp", (floats,), value, back, dims=blob.dims)


def _reads_integers(node: ir.Node, index: int) -> bool:
    return index == 0 and is_standard(node, *_LAYERS) and quantized(node) is not None


def _reads_blobs(node: ir.Node, index: int) -> bool:
    """True for what takes integers in the sizes that the layer before makes them in: no Reshape need come between."""
    return is_standard(node, "Conv") and _reads_integers(node, index)


def _whole_or_depthwise(node: ir.Node, levels: np.ndarray) -> bool:
    group = node.attributes.get_int("group", 1)
    return group == 1 or levels.shape[:2] == (group, 1)


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
