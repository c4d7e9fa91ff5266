"""Reductions over axes, Softmax and LogSoftmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import arranged, moved_last, without
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule

if TYPE_CHECKING:
    import onnx_ir as ir

#: ONNX operator -> operators before, the reduction, operators after.
_REDUCTIONS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "ReduceMean": ((), "MEAN", ()),
    "ReduceSum": ((), "SUM", ()),
    "ReduceMax": ((), "REDUCE_MAX", ()),
    "ReduceMin": ((), "REDUCE_MIN", ()),
    "ReduceProd": ((), "REDUCE_PROD", ()),
    "ReduceL1": (("ABS",), "SUM", ()),
    "ReduceL2": (("SQUARE",), "SUM", ("SQRT",)),
    "ReduceSumSquare": (("SQUARE",), "SUM", ()),
    "ReduceLogSum": ((), "SUM", ("LOG",)),
}


@rule(*_REDUCTIONS)
def reduce(lowering: Lowering, node: ir.Node) -> None:
    """The reduction over the same axes, wherever the file has them."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    held = lowering.get(data)
    rank = len(held.order)
    value = node.inputs[1] if len(node.inputs) > 1 else None
    axes = [] if value is None else [int(axis) % rank for axis in lowering.required(value, "axes").reshape(-1)]
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            lowering.hold(made, held.tensor, held.order)
            return
        axes = list(range(rank))
    before, kind, after = _REDUCTIONS[node.op_type]
    keep = bool(node.attributes.get_int("keepdims", 1))
    tensor = held.tensor
    for step in before:
        tensor = lowering.op(step, [tensor], sizes_of(tensor))
    order = held.order if keep else without(held.order, axes)
    tensor = reduced(lowering, kind, tensor, [held.order.index(axis) for axis in axes], keep=keep)
    for step in after:
        tensor = lowering.op(step, [tensor], sizes_of(tensor))
    lowering.hold(made, tensor, order)


def reduced(lowering: Lowering, kind: str, tensor: Tensor, places: Sequence[int], *, keep: bool = True) -> Tensor:
    """A reduction of a tensor of the file over its own axes `places`."""
    axes = lowering.array(np.array(sorted(places), np.int32), "axes")
    if keep:
        sizes = [1 if place in places else size for place, size in enumerate(sizes_of(tensor))]
    else:
        sizes = [size for place, size in enumerate(sizes_of(tensor)) if place not in places]
    return lowering.op(kind, [tensor, axes], sizes, keepDims=keep)


@rule("Softmax", "LogSoftmax")
def softmax(lowering: Lowering, node: ir.Node) -> None:
    """SOFTMAX or LOG_SOFTMAX, which work along the last axis of the file."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.get(data)
    if not held.order:
        raise Refused("it has no axis")
    order = moved_last(held.order, node.attributes.get_int("axis", -1) % len(held.order))
    tensor = lowering.ordered(held, order)
    if node.op_type == "Softmax":
        made = lowering.op("SOFTMAX", [tensor], sizes_of(tensor), beta=1.0)
    else:
        made = lowering.op("LOG_SOFTMAX", [tensor], sizes_of(tensor))
    lowering.hold(node.outputs[0], made, order)


@rule("ReduceLogSumExp")
def log_sum_exp(lowering: Lowering, node: ir.Node) -> None:
    """log sum exp(x - max) + max, which does not overflow."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    held = lowering.get(data)
    rank = len(held.order)
    axes = [int(axis) % rank for axis in lowering.required(node.inputs[1], "axes").reshape(-1)]
    places = [held.order.index(axis) for axis in axes]
    top = reduced(lowering, "REDUCE_MAX", held.tensor, places)
    shifted = lowering.op("SUB", [held.tensor, top], sizes_of(held.tensor))
    total = reduced(lowering, "SUM", lowering.op("EXP", [shifted], sizes_of(shifted)), places)
    tensor = lowering.op("ADD", [lowering.op("LOG", [total], sizes_of(total)), top], sizes_of(top))
    order = held.order
    if not node.attributes.get_int("keepdims", 1):
        order = without(held.order, axes)
        tensor = lowering.reshaped(tensor, arranged(lowering.sizes(made), order))
    lowering.hold(made, tensor, order)
