"""Several nodes that are one operator: what exporters write for Gelu and GroupNormalization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.rules.normalization import by_channel, normalized_groups

if TYPE_CHECKING:
    import onnx_ir as ir


def written_as_gelu(lowering: Lowering, node: ir.Node) -> bool:
    """Write 0.5 x (1 + erf(x / sqrt 2)) as GELU where `node` makes x / sqrt 2 of it; False where it does not."""
    x = _scaled(node, math.sqrt(0.5))
    erf = _reader(node, "Erf")
    raised = _reader(erf, "Add")
    product = _reader(raised, "Mul")
    if x is None or erf is None or raised is None or product is None or _scaled(raised, 1.0) is None:
        return False
    other = next((value for value in product.inputs if value is not raised.outputs[0]), None)
    half = _reader(product, "Mul")
    skipped = [erf, raised, product]
    if other is x and half is not None and _scaled(half, 0.5) is product.outputs[0]:
        skipped.append(half)
    elif other is None or other.producer() is None or _scaled(other.producer(), 0.5) is not x:
        return False
    held = lowering.get(x)
    for part in skipped:
        lowering.skip(part)
    tensor = lowering.op("GELU", [held.tensor], sizes_of(held.tensor), approximate=False)
    lowering.hold(skipped[-1].outputs[0], tensor, held.order)
    return True


def written_as_groups(lowering: Lowering, node: ir.Node) -> bool:
    """Write a Reshape to [N, groups, rest], InstanceNormalization and the Reshape back without moving axes."""
    data = node.inputs[0]
    norm = _reader(node, "InstanceNormalization")
    back = _reader(norm, "Reshape")
    if data is None or norm is None or back is None or not lowering.is_held(data):
        return False
    sizes, between = lowering.sizes(data), lowering.sizes(node.outputs[0])
    scale, bias = constant_array(norm.inputs[1]), constant_array(norm.inputs[2])
    fits = len(sizes) > 2 and len(between) == 3 and lowering.sizes(back.outputs[0]) == sizes and between[0] == sizes[0]
    if not fits or scale is None or bias is None or sizes[1] % between[1]:
        return False
    held = lowering.get(data)
    made = normalized_groups(lowering, held, between[1], norm.attributes.get_float("epsilon", 1e-5))
    for kind, values, neutral in (("MUL", scale, 1), ("ADD", bias, 0)):
        if np.any(values != neutral):
            each = by_channel(lowering, np.repeat(values, sizes[1] // between[1]), held.order)
            made = lowering.op(kind, [made, each], sizes_of(made))
    lowering.skip(norm)
    lowering.skip(back)
    lowering.hold(back.outputs[0], made, held.order)
    return True


def _scaled(node: ir.Node | None, factor: float) -> ir.Value | None:
    """What a Mul multiplies by `factor`, a Div divides by its inverse, or an Add adds `factor` to; else None."""
    if node is None or not is_standard(node, "Mul", "Div", "Add"):
        return None
    first, second = node.inputs
    wanted = 1 / factor if node.op_type == "Div" else factor
    pairs = [(first, second)] if node.op_type == "Div" else [(first, second), (second, first)]
    for value, constant in pairs:
        array = constant_array(constant)
        if array is not None and array.size == 1 and math.isclose(float(array.reshape(())), wanted, rel_tol=1e-4):
            return value
    return None


def _reader(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """The node of this operator that alone reads what `node` makes."""
    reader = None if node is None else sole_consumer(node.outputs[0])
    return reader if reader is not None and node is not None and is_standard(reader, op_type) else None
