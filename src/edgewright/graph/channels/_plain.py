"""Plain operators: those that leave each position where it is, by elements, by windows or along other axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.graph.channels._ties import Ids
from edgewright.graph.channels._walk import Axes, Rule, Walk, align

if TYPE_CHECKING:
    import onnx_ir as ir


def _unknown(node: ir.Node, walk: Walk) -> bool:
    """True, and everything stays, where a size is unknown."""
    if walk.known(*node.inputs, node.outputs[0]):
        return False
    walk.freeze_all(node, f"the sizes of {node.op_type} `{node.outputs[0].name}` are unknown")
    return True


def _elementwise(node: ir.Node, walk: Walk) -> None:
    """Operands that are broadcast against each other."""
    if all(not walk.labels(value) for value in node.inputs) or _unknown(node, walk):
        return
    shape = walk.shape(node.outputs[0])
    axes: Axes = {}
    for axis, size in enumerate(shape):
        ids = _along(node, walk, axis, size, len(shape))
        if ids is not None:
            axes[axis] = ids
    walk.label(node.outputs[0], axes)


def _along(node: ir.Node, walk: Walk, axis: int, size: int, rank: int) -> Ids | None:
    joined: list[tuple[int, int]] = []
    found: Ids | None = None
    for index, value in enumerate(node.inputs):
        own = None if value is None else align(walk.shape(value), rank, axis)
        if value is None or own is None:
            continue
        ids = walk.labels(value).get(own)
        if walk.shape(value)[own] < size:
            walk.freeze(value, f"{node.op_type} repeats them", (own,))
            continue
        joined.append((index, own))
        found = ids if found is None else found
    if found is not None:
        for index, own in joined:
            walk.meet(node, index, own, found)
    return found


def _same(node: ir.Node, walk: Walk) -> None:
    """One operand that matters; all axes go through."""
    walk.label(node.outputs[0], dict(walk.labels(node.inputs[0])))


def _quantizer(node: ir.Node, walk: Walk) -> None:
    labels = walk.labels(node.inputs[0])
    if node.attributes.get_int("block_size", 0):
        walk.freeze(node.inputs[0], f"`{node.outputs[0].name}` has scales by block")
    for value in node.inputs[1:]:
        walk.freeze(value, f"{node.op_type} reads them as scales")
    for axis, ids in labels.items():
        walk.scales(node, walk.view.shape(node.inputs[0]), axis, ids)
    _same(node, walk)


def _windows(node: ir.Node, walk: Walk) -> None:
    """Pooling: channels go through, and along other axes only where a window is one position."""
    source = node.inputs[0]
    found: Axes = {}
    for axis, ids in walk.labels(source).items():
        step = 1 if axis == 1 else picks(node, axis)
        if step is None:
            walk.freeze(source, f"{node.op_type} runs along them", (axis,))
        else:
            found[axis] = ids[::step]
    walk.label(node.outputs[0], found)
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        walk.freeze(source, f"the places that {node.op_type} returns count all channels")


def picks(node: ir.Node, axis: int) -> int | None:
    """The step of a pool along an axis where its window is one position, 1 along the batch; None for real windows."""
    if axis == 0:
        return 1
    sides, steps = node.attributes.get_ints("kernel_shape", ()), node.attributes.get_ints("strides", ())
    pads, place = node.attributes.get_ints("pads", ()), axis - 2
    if place >= len(sides or ()) or sides[place] != 1:
        return None
    if pads and (pads[place] or pads[place + len(sides)]):
        return None
    return steps[place] if steps else 1


def _batch_norm(node: ir.Node, walk: Walk) -> None:
    """Parameters by channel."""
    ids = walk.labels(node.inputs[0]).get(1)
    walk.freeze(node.inputs[0], f"{node.op_type} runs along them", _but(walk, node, 1))
    if ids is None:
        return
    for index in range(1, len(node.inputs)):
        walk.meet(node, index, 0, ids)
    walk.label(node.outputs[0], {1: ids})


def _but(walk: Walk, node: ir.Node, *kept: int) -> tuple[int, ...]:
    return tuple(axis for axis in walk.labels(node.inputs[0]) if axis not in kept)


def _group_norm(node: ir.Node, walk: Walk) -> None:
    """GroupNormalization: statistics of a whole group, so that only whole groups may go."""
    groups = node.attributes.get_int("num_groups", 1)
    ids = walk.labels(node.inputs[0]).get(1)
    walk.freeze(node.inputs[0], f"{node.op_type} runs along them", _but(walk, node, 1))
    if ids is None:
        return
    rows = ids.reshape(groups, -1)
    if groups == 1:
        walk.ties.freeze(ids, "GroupNormalization takes statistics over all of them")
    for column in rows.T[1:]:
        walk.ties.tie(rows[:, 0], column)
    for index in (1, 2):
        if walk.view.shape(node.inputs[index]) == (groups,) and rows.shape[1] > 1:
            walk.meet(node, index, 0, rows[:, 0])
        else:
            walk.meet(node, index, 0, ids)
    walk.label(node.outputs[0], {1: ids})


def _last_axes(node: ir.Node, walk: Walk) -> None:
    """LayerNormalization, RMSNormalization: statistics along the axes from `axis` on."""
    source = node.inputs[0]
    rank = len(walk.view.shape(source) or ())
    start = node.attributes.get_int("axis", -1) % max(rank, 1)
    _stay(node, walk, tuple(range(start, rank)), "takes statistics over them")
    for value in node.inputs[1:]:
        walk.freeze(value, f"{node.op_type} reads them as parameters")
    if not rank:
        walk.freeze(source, f"{node.op_type} reads them")


def _one_axis(node: ir.Node, walk: Walk) -> None:
    """Softmax and its kind, ArgMax, CumSum: all positions along an axis count."""
    rank = len(walk.view.shape(node.inputs[0]) or ())
    named = node.attributes.get_int("axis", -1)
    _stay(node, walk, (named % rank,) if rank else tuple(walk.labels(node.inputs[0])), "weighs them against each other")


def _stay(node: ir.Node, walk: Walk, axes: tuple[int, ...], reason: str) -> None:
    """What runs along `axes` freezes these and lets the others through."""
    walk.freeze(node.inputs[0], f"{node.op_type} {reason}", axes)
    passed = {axis: ids for axis, ids in walk.labels(node.inputs[0]).items() if axis not in axes}
    for output in node.outputs:
        if output.name and walk.view.shape(output) == walk.view.shape(node.inputs[0]):
            walk.label(output, passed)
    if walk.view.shape(node.outputs[0]) != walk.view.shape(node.inputs[0]):
        walk.freeze(node.inputs[0], f"{node.op_type} `{node.outputs[0].name}` reads them")


def _cumulative(node: ir.Node, walk: Walk) -> None:
    numbers = walk.numbers(node.inputs[1])
    rank = len(walk.view.shape(node.inputs[0]) or ())
    axes = tuple(walk.labels(node.inputs[0])) if numbers is None or not rank else (numbers[0] % rank,)
    _stay(node, walk, axes, "adds them up one by one")


def _sum_norm(node: ir.Node, walk: Walk) -> None:
    """LpNormalization: a sum, to which channels that are zero add nothing."""
    _same(node, walk)


def reduced_axes(node: ir.Node, walk: Walk) -> set[int] | None:
    """Axes that a reduction runs over, None where they are unknown."""
    shape = walk.view.shape(node.inputs[0])
    given = node.inputs[1] if len(node.inputs) > 1 else None
    numbers = list(node.attributes.get_ints("axes", ()) or ()) if given is None else walk.numbers(given)
    if shape is None or numbers is None:
        return None
    if not numbers and node.attributes.get_int("noop_with_empty_axes", 0):
        return set()
    return {axis % len(shape) for axis in numbers} or set(range(len(shape)))


def _reduction(node: ir.Node, walk: Walk) -> None:
    """Sums forget channels that are zero. Means of such do too, but for how many they divide by; extremes do not."""
    source = node.inputs[0]
    axes = reduced_axes(node, walk)
    if axes is None:
        walk.freeze(source, f"{node.op_type} `{node.outputs[0].name}` has unknown axes")
        return
    mean_of_zeros = node.op_type == "ReduceMean" and source is not None and source.name in walk.zeros
    if node.op_type not in _SUMS and not mean_of_zeros:
        walk.freeze(source, f"{node.op_type} runs over them", tuple(axes))
    kept = [axis for axis in range(len(walk.shape(source))) if axis not in axes]
    keep = node.attributes.get_int("keepdims", 1)
    found = {axis: ids for axis, ids in walk.labels(source).items() if axis not in axes}
    walk.label(node.outputs[0], {axis if keep else kept.index(axis): ids for axis, ids in found.items()})


def _arg(node: ir.Node, walk: Walk) -> None:
    """ArgMax, ArgMin: the place along an axis counts all positions."""
    source = node.inputs[0]
    rank = len(walk.view.shape(source) or ())
    axis = node.attributes.get_int("axis", 0) % max(rank, 1)
    walk.freeze(source, f"{node.op_type} counts them", (axis,) if rank else None)
    keep = node.attributes.get_int("keepdims", 1)
    found = {own: ids for own, ids in walk.labels(source).items() if own != axis and rank}
    walk.label(node.outputs[0], {own - (0 if keep or own < axis else 1): ids for own, ids in found.items()})


def _resize(node: ir.Node, walk: Walk) -> None:
    """Channels go through where their axis keeps its size."""
    source, result = node.inputs[0], node.outputs[0]
    if not walk.labels(source) or _unknown(node, walk):
        return
    before, after = walk.shape(source), walk.shape(result)
    moved = tuple(axis for axis in walk.labels(source) if before[axis] != after[axis])
    walk.freeze(source, "Resize runs along them", moved)
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        walk.freeze(source, "Resize crops")
    axes = node.attributes.get_ints("axes", ())
    if len(node.inputs) > 3 and node.inputs[3] is not None and node.inputs[3].name not in walk.view.numbers:
        walk.freeze(source, "the sizes of Resize are unknown", None if not axes else tuple(axes))
    walk.label(result, {a: ids for a, ids in walk.labels(source).items() if a not in moved})


def _grid_sample(node: ir.Node, walk: Walk) -> None:
    source = node.inputs[0]
    walk.freeze(source, "GridSample runs along them", tuple(a for a in walk.labels(source) if a != 1))
    walk.freeze(node.inputs[1], "GridSample reads them as places")
    walk.label(node.outputs[0], {a: ids for a, ids in walk.labels(source).items() if a == 1})


def _local_response(node: ir.Node, walk: Walk) -> None:
    walk.freeze(node.inputs[0], f"{node.op_type} mixes neighbours", (1,))
    _same(node, walk)


def _number(node: ir.Node, walk: Walk) -> None:
    """Shape: numbers that keep saying what the original's sizes were."""
    walk.labels(node.inputs[0])


def _size(node: ir.Node, walk: Walk) -> None:
    walk.freeze(node.inputs[0], "Size counts them")


_SUMS = ("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2")
_ELEMENTWISE = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos"),
    *("Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf"),
    *("IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
    *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "CastLike"),
)
_BROADCAST = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _same),
    **dict.fromkeys(_BROADCAST, _elementwise),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantizer),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _windows),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _windows),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _batch_norm),
    "GroupNormalization": _group_norm,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _last_axes),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _one_axis),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    "CumSum": _cumulative,
    "LpNormalization": _sum_norm,
    **dict.fromkeys((*_SUMS, "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _reduction),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), _reduction),
    "Resize": _resize,
    "GridSample": _grid_sample,
    "LRN": _local_response,
    "Shape": _number,
    "Size": _size,
}
