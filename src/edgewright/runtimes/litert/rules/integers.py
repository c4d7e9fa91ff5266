"""Layers in integers: which nodes of a QDQ graph run in int8, and the constants that they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Quantization, Tensor
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import parameters
from edgewright.runtimes.litert.lowering import Lowering, clamp

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Result:
    """What an operator in integers makes.

    Attributes:
        value: The integers, output of a QuantizeLinear.
        quantization: What they mean.
        act: The activation between the operator and the QuantizeLinear, by its name in LiteRT.
        skipped: Nodes that are part of it.
    """

    value: ir.Value
    quantization: Quantization
    act: str
    skipped: tuple[ir.Node, ...]


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer that runs in int8.

    Attributes:
        weight: Integers in the node's own layout, int8.
        scales: Of each output channel.
        bias: The bias in steps of the product, i32[O].
        result: The value that it makes, integers.
        quantization: What these mean.
        act: Activation fused into it.
    """

    weight: np.ndarray
    scales: np.ndarray
    bias: Tensor
    result: ir.Value
    quantization: Quantization
    act: str

    def stored(self, lowering: Lowering, weight: np.ndarray, *, axis: int) -> Tensor:
        """The weights as a constant of the file, `axis` being that of the output channels there."""
        zero = np.zeros(len(self.scales), np.int64)
        data = np.ascontiguousarray(weight)
        return Tensor(
            lowering.fresh("weight:q"),
            "int8",
            data.shape,
            data=data,
            quantization=Quantization(self.scales, zero, axis),
        )


def same(first: Quantization | None, second: Quantization | None) -> bool:
    """True where integers mean the same."""
    if first is None or second is None:
        return first is second
    return np.array_equal(first.scale, second.scale) and np.array_equal(first.zero_point, second.zero_point)


def is_int8(lowering: Lowering, value: ir.Value | None) -> bool:
    """True for floats that are held by int8."""
    if value is None or not lowering.is_held(value):
        return False
    tensor = lowering.raw(value).tensor
    return tensor.quantization is not None and tensor.dtype == "int8"


def result_of(lowering: Lowering, node: ir.Node, value: ir.Value | None = None) -> Result | None:
    """Where the node's output goes through one QuantizeLinear, maybe after a fusable activation: what that makes."""
    made = node.outputs[0] if value is None else value
    reader = sole_consumer(made)
    act, skipped = "NONE", []
    if reader is not None and is_standard(reader, "Relu", "Clip"):
        kind = clamp(reader, lowering)
        if kind not in ("RELU", "RELU6", "RELU_N1_TO_1"):
            return None
        act, made = kind, reader.outputs[0]
        skipped.append(reader)
        reader = sole_consumer(made)
    if reader is None or not is_standard(reader, "QuantizeLinear"):
        return None
    held = parameters(reader)
    dtype = reader.outputs[0].dtype
    if held is None or len(held.scale) != 1 or dtype is None or dtype.numpy() != np.int8:
        return None
    return Result(reader.outputs[0], held, act, (*skipped, reader))


def integer_layer(lowering: Lowering, node: ir.Node, *, adder: ir.Node | None = None) -> IntegerLayer | None:
    """How a Conv, Gemm or MatMul runs in int8; None where something around it is float."""
    if not is_int8(lowering, node.inputs[0]):
        return None
    stored = _stored_constant(node.inputs[1])
    result = result_of(lowering, node, adder.outputs[0] if adder is not None else None)
    if stored is None or result is None or stored[0].dtype != np.int8 or np.any(stored[1].zero_point):
        return None
    weight, scales = stored[0], stored[1].scale
    outputs = _outputs(node, weight)
    data = lowering.raw(_value(node.inputs[0])).tensor.quantization
    assert data is not None
    scales = np.broadcast_to(scales, (outputs,)).astype(np.float32)
    bias = _bias(lowering, node, adder, scales * data.scale)
    if bias is None or len(stored[1].scale) not in (1, outputs):
        return None
    for part in result.skipped:
        lowering.skip(part)
    return IntegerLayer(weight, scales, bias, result.value, result.quantization, result.act)


def _outputs(node: ir.Node, weight: np.ndarray) -> int:
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and node.attributes.get_int("transB", 0))
    return int(weight.shape[0 if first else -1])


def _bias(lowering: Lowering, node: ir.Node, adder: ir.Node | None, steps: np.ndarray) -> Tensor | None:
    """The integer bias; None where it is no constant in these steps."""
    zero = np.zeros(len(steps), np.int64)
    if adder is not None:
        value = next((item for item in adder.inputs if item is not node.outputs[0]), None)
    else:
        value = node.inputs[2] if len(node.inputs) > 2 else None
    levels = np.zeros(len(steps), np.int32)
    if value is not None:
        stored = _stored_constant(value)
        if stored is None or stored[0].dtype != np.int32 or np.any(stored[1].zero_point):
            return None
        if stored[0].shape != (len(steps),) or not np.allclose(stored[1].scale, steps, rtol=1e-4, atol=0):
            return None
        levels = stored[0]
    return Tensor(
        lowering.fresh("bias:q"), "int32", levels.shape, data=levels, quantization=Quantization(steps, zero, 0)
    )


def _stored_constant(value: ir.Value | None) -> tuple[np.ndarray, Quantization] | None:
    """Integers behind a DequantizeLinear and what they mean."""
    node = None if value is None else value.producer()
    if node is None or not is_standard(node, "DequantizeLinear"):
        return None
    levels, held = constant_array(node.inputs[0]), parameters(node)
    return None if levels is None or held is None else (levels, held)


def _value(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
