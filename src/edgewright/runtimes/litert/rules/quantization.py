"""QuantizeLinear and DequantizeLinear: integers with a meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.litert.drafting import parameters, sizes_of
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import same

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("QuantizeLinear")
def quantize(lowering: Lowering, node: ir.Node) -> None:
    """QUANTIZE, also from integers of another meaning; nothing where they mean the same already."""
    held_as, made = parameters(node), node.outputs[0]
    data = node.inputs[0]
    assert data is not None
    dtype = made.dtype.numpy().name if made.dtype is not None else "int8"
    if held_as is None or len(held_as.scale) != 1 or dtype not in ("int8", "uint8"):
        raise Refused("activations are quantized with one constant scale, to int8")
    held = lowering.raw(data)
    if held.tensor.dtype == dtype and same(held.tensor.quantization, held_as):
        lowering.hold(made, held.tensor, held.order)
        return
    tensor = lowering.op("QUANTIZE", [held.tensor], sizes_of(held.tensor), dtype, made.name, quantization=held_as)
    lowering.hold(made, tensor, held.order)


@rule("DequantizeLinear")
def dequantize(lowering: Lowering, node: ir.Node) -> None:
    """Nothing: integers know what they mean, and become floats where floats are needed. Constants become floats here."""
    data, made = node.inputs[0], node.outputs[0]
    levels, held_as = constant_array(data), parameters(node)
    if held_as is None:
        raise Refused("its scale and zero point must be constant")
    if levels is not None:
        lowering.restore(made, _floats(levels, node))
        return
    assert data is not None
    held = lowering.raw(data)
    if not same(held.tensor.quantization, held_as):
        raise Refused("integers are read with another scale than they were made with")
    lowering.hold(made, held.tensor, held.order)


def _floats(levels: np.ndarray, node: ir.Node) -> np.ndarray:
    """What stored integers mean, by tensor, channel or block. Source: ONNX operator specification, DequantizeLinear."""
    scale, zero = constant_array(node.inputs[1]), constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    assert scale is not None
    parts = [scale.astype(np.float32), np.zeros_like(scale, np.int32) if zero is None else zero.astype(np.int32)]
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if block:
        parts = [np.take(np.repeat(part, block, axis), range(levels.shape[axis]), axis) for part in parts]
    elif scale.size > 1:
        shape = [1] * levels.ndim
        shape[axis] = -1
        parts = [part.reshape(shape) for part in parts]
    floats: np.ndarray = (levels.astype(np.int32) - parts[1]).astype(np.float32) * parts[0]
    return floats
