"""Zeros: where a tensor is zero at a channel for which the layer that makes it, and all that is added by channel, give zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.graph.channels._walk import Walk, key
from edgewright.graph.dataflow import constant_array

if TYPE_CHECKING:
    import onnx_ir as ir

#: The first operand decides: f(0) is 0, positions are moved, or other axes are summed up.
_KEEP = frozenset((
    *("Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu", "Dropout", "Elu", "Erf", "Floor"),
    *("Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign"),
    *("Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
    *("Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "Expand", "Tile", "Reshape", "Flatten", "Resize"),
    *("DepthToSpace", "SpaceToDepth", "AveragePool", "MaxPool", "LpPool", "CumSum", "LpNormalization"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "BatchNormalization", "InstanceNormalization"),
    *("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"),
))  # fmt: skip
_ADD = frozenset(("Add", "Sub", "Sum", "Mean", "Max", "Min"))
_PRODUCTS = frozenset(("MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose"))


def note(node: ir.Node, walk: Walk) -> None:
    """Remember what a node makes, once its rule has labelled that, where it is zero as the module says."""
    made = [value for value in node.outputs if _labelled(value, walk)]
    if made and _vanishes(node, walk):
        walk.zeros.update(value.name for value in made if value.name)


def _vanishes(node: ir.Node, walk: Walk) -> bool:
    kind = node.op_type
    if kind in _PRODUCTS or (kind == "Gather" and walk.is_constant(node.inputs[0])):  # of an embedding's rows
        return _product(node, walk)
    if kind == "Concat":
        return all(value is None or value.name in walk.zeros or not _labelled(value, walk) for value in node.inputs)
    if kind in _KEEP:
        return node.inputs[0] is not None and node.inputs[0].name in walk.zeros
    axes = set(walk.ties.labels.get(node.outputs[0].name or "", {}))
    zero = [_zero_axes(node, index, walk) for index in range(len(node.inputs))]
    if kind in _ADD:
        return all(axes <= own for own in zero)
    if kind == "Mul":
        return axes <= zero[0] | zero[1]
    passes = kind in ("Div", "PRelu") or (kind in ("Pow", "Clip") and _passes_zero(node))
    return passes and axes <= zero[0]


def _product(node: ir.Node, walk: Walk) -> bool:
    """What weights make is zero by their zeros; what only goes along, by those of what is read."""
    made = bool(walk.ties.makers) and walk.ties.makers[-1][0] == key(node)
    read = [value for value in node.inputs[:2] if _labelled(value, walk)]
    alone = len(walk.ties.labels.get(node.outputs[0].name or "", {})) == 1
    return (made and alone) or (bool(read) and all(value is not None and value.name in walk.zeros for value in read))


def _passes_zero(node: ir.Node) -> bool:
    """Of Pow and Clip, by their constants."""
    numbers = [None if value is None else constant_array(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(numbers, node.inputs[1:], strict=True)):
        return False
    if node.op_type == "Pow":
        return all(array is not None and bool((array > 0).all()) for array in numbers)
    low, high = (*numbers, None, None)[:2]
    return (low is None or bool((low <= 0).all())) and (high is None or bool((high >= 0).all()))


def _zero_axes(node: ir.Node, index: int, walk: Walk) -> set[int]:
    """Axes of a result along which an operand that is broadcast to it is zero where channels are gone.

    A constant that goes with the channels has a zero where one is gone; any other constant has none.
    """
    value, result = node.inputs[index], walk.view.shape(node.outputs[0])
    shape = walk.view.shape(value)
    if value is None or shape is None or result is None:
        return set()
    if walk.is_constant(value):
        own = {axis for axis in range(len(shape)) if (key(node), index, axis) in walk.ties.uses}
    else:
        own = set(walk.ties.labels.get(value.name or "", {})) if value.name in walk.zeros else set()
    return {axis + len(result) - len(shape) for axis in own}


def _labelled(value: ir.Value | None, walk: Walk) -> bool:
    """Without choosing an axis where channels lie over several, as `Walk.labels` would."""
    return value is not None and (value.name in walk.ties.labels or value.name in walk.grids)
