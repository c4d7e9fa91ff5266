"""Gather, TopK, ArgMax, CumSum: elements by their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Operator, Tensor
from edgewright.runtimes.litert.drafting import Held, sizes_of
from edgewright.runtimes.litert.layouts import Batch, arranged, identity, moved_last, without
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of the schema's TensorType.
_INT32 = 2


@rule("Gather")
def gather(lowering: Lowering, node: ir.Node) -> None:
    """GATHER along one axis."""
    data, indices, made = node.inputs[0], node.inputs[1], node.outputs[0]
    assert data is not None
    assert indices is not None
    held = lowering.get(data)
    rank = len(held.order)
    axis = node.attributes.get_int("axis", 0) % rank
    length = held.sizes[axis]
    array = None if lowering.is_held(indices) else lowering.constant(indices)
    if array is not None:
        if isinstance(length, Batch) and (array < 0).any():
            raise Refused("it counts from the end of the batch")
        index = lowering.array(np.where(array < 0, array + length, array).astype(np.int32), indices.name or "indices")
    else:
        index = lowering.ordered(lowering.get(indices), identity(len(lowering.sizes(indices))))
    width = len(index.shape)
    if width == 0:
        order = without(held.order, [axis])
    elif width == 1:
        order = held.order
    else:
        held = Held(lowering.ordered(held, identity(rank)), identity(rank))
        order = identity(rank + width - 1)
    sizes = arranged(lowering.sizes(made), order)
    tensor = lowering.op("GATHER", [held.tensor, index], sizes, axis=held.order.index(axis))
    lowering.hold(made, tensor, order)


@rule("ArgMax", "ArgMin")
def arg_max(lowering: Lowering, node: ir.Node) -> None:
    """ARG_MAX or ARG_MIN, the first of equals."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    if node.attributes.get_int("select_last_index", 0):
        raise Refused("LiteRT gives the first of equals, not the last")
    held = lowering.get(data)
    axis = node.attributes.get_int("axis", 0) % len(held.order)
    place = lowering.array(np.array([held.order.index(axis)], np.int32), "axis")
    order = without(held.order, [axis])
    sizes = [size for number, size in enumerate(sizes_of(held.tensor)) if number != held.order.index(axis)]
    kind = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    tensor = lowering.op(kind, [held.tensor, place], sizes, "int32", outputType=_INT32)
    if node.attributes.get_int("keepdims", 1):
        tensor, order = lowering.reshaped(tensor, arranged(lowering.sizes(made), held.order)), held.order
    lowering.hold(made, tensor, order)


@rule("TopK")
def top_k(lowering: Lowering, node: ir.Node) -> None:
    """TOPK_V2 along the last axis of the file, largest first."""
    data = node.inputs[0]
    assert data is not None
    if not node.attributes.get_int("largest", 1):
        raise Refused("LiteRT finds the largest only")
    count = lowering.required(node.inputs[1], "count").reshape(())
    held = lowering.get(data)
    order = moved_last(held.order, node.attributes.get_int("axis", -1) % len(held.order))
    tensor = lowering.ordered(held, order)
    sizes = (*sizes_of(tensor)[:-1], int(count))
    values = lowering.tensor("topk_v2", tensor.dtype, sizes)
    indices = lowering.tensor("topk_v2", "int32", sizes)
    inputs = [tensor, lowering.array(np.array(int(count), np.int32), "count")]
    lowering.operators.append(Operator("TOPK_V2", inputs, [values, indices]))
    for value, made in zip(node.outputs, (values, indices), strict=False):
        lowering.hold(value, made, order)


@rule("CumSum")
def cumulative_sum(lowering: Lowering, node: ir.Node) -> None:
    """CUMSUM."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    axis = int(lowering.required(node.inputs[1], "axis").reshape(())) % len(held.order)
    place: Tensor = lowering.array(np.array(held.order.index(axis), np.int32), "axis")
    made = lowering.op(
        "CUMSUM", [held.tensor, place], sizes_of(held.tensor), exclusive=bool(node.attributes.get_int("exclusive", 0)),
        reverse=bool(node.attributes.get_int("reverse", 0)),
    )  # fmt: skip
    lowering.hold(node.outputs[0], made, held.order)
