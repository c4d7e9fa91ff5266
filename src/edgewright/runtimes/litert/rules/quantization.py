"""QuantizeLinear and DequantizeLinear: integers with a meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import parameters, same

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
        if node.attributes.get_int("block_size", 0):
            raise Refused("LiteRT has no scales by block")
        shape = [1] * levels.ndim
        if len(held_as.scale) > 1:
            shape[node.attributes.get_int("axis", 1)] = -1
        floats = (levels.astype(np.int32) - held_as.zero_point.reshape(shape).astype(np.int32)).astype(np.float32)
        floats *= held_as.scale.reshape(shape)
        lowering.restore(made, floats)
        return
    assert data is not None
    held = lowering.raw(data)
    if not same(held.tensor.quantization, held_as):
        raise Refused("integers are read with another scale than they were made with")
    lowering.hold(made, held.tensor, held.order)
