"""Operators that pass factors on, and how: one rule for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array
from edgewright.graph.scaling._constants import Factor
from edgewright.graph.scaling._layers import usable
from edgewright.graph.scaling._ties import Channels, Ties

if TYPE_CHECKING:
    import onnx_ir as ir

#: Exporters write "no bound" so.
_LARGEST = float(np.finfo(np.float32).max)

Rule = Callable[["ir.Node", Ties], None]


def _same(node: ir.Node, ties: Ties) -> None:
    """What is done to a channel does not mind its factor: f(s x) = s f(x)."""
    channels = ties.of(node, 0)
    if channels is not None:
        ties.passes(node, 0, channels)


def _sizes_only(node: ir.Node, ties: Ties) -> None:
    ties.passed.add((node, 0))


def _slopes(node: ir.Node, ties: Ties) -> None:
    if constant_array(node.inputs[1]) is not None:
        _same(node, ties)


def _dropout(node: ir.Node, ties: Ties) -> None:
    training = constant_array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.False_
    if training is not None and not training.any():
        _same(node, ties)


def _clip(node: ir.Node, ties: Ties) -> None:
    """Without a finite bound other than 0 it is a Relu. A bound would cut a scaled channel elsewhere."""
    low, high = (_bound(node, index, default) for index, default in ((1, -math.inf), (2, math.inf)))
    if low in (0, -math.inf) and high in (0, math.inf):
        _same(node, ties)
        return
    ties.refuse(node, 0, f"Clip `{node.outputs[0].name}` bounds it")


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    if len(node.inputs) <= index or node.inputs[index] is None:
        return default
    array = constant_array(node.inputs[index])
    if array is None or array.size != 1:
        return None
    bound = float(array.reshape(()))
    return math.copysign(math.inf, bound) if abs(bound) >= _LARGEST else bound


# --- several tensors --------------------------------------------------------------------------------------------------


def _sum(node: ir.Node, ties: Ties) -> None:
    """Tensors of equal factors, and constants, which are scaled with them."""
    rank = _rank(node.outputs[0])
    given = {index: ties.of(node, index) for index in range(len(node.inputs))}
    known = {index: channels for index, channels in given.items() if channels is not None}
    if not known or rank is None:
        return
    places = {channels.axis - (_rank(node.inputs[index]) or 0) for index, channels in known.items()}
    counts = {len(channels.ids) for channels in known.values()}
    first = next(iter(known.values()))
    constants = [index for index in given if index not in known]
    place = min(places)
    if len(places) > 1 or len(counts) > 1 or not _fits(node.outputs[0], rank + place, len(first.ids)):
        reason = "adds channels that are not the same in number or place"
    elif any(not _addable(node.inputs[index], place, len(first.ids), rank) for index in constants):
        reason = "has an operand that cannot be scaled"
    else:
        for index, channels in known.items():
            ties.tie(first.ids, channels.ids)
            ties.passes(node, index, Channels(rank + place, first.ids))
        ties.factors += [Factor(node, index, place, first.ids) for index in constants]
        return
    for index in known:
        ties.refuse(node, index, f"{node.op_type} `{node.outputs[0].name}` {reason}")


def _addable(value: ir.Value | None, place: int, channels: int, rank: int) -> bool:
    array = usable(value)
    if array is None or array.ndim > rank:
        return False
    return array.ndim < -place or array.shape[place] in (1, channels)


def _gate(node: ir.Node, ties: Ties) -> None:
    """A product: one side keeps its factor where the other has none."""
    sides = [ties.of(node, 0), ties.of(node, 1)]
    if all(side is not None for side in sides):
        return
    index = 0 if sides[0] is not None else 1
    channels, rank = sides[index], _rank(node.outputs[0])
    if channels is None or rank is None or (node.op_type == "Div" and index == 1):
        return
    axis = channels.axis - (_rank(node.inputs[index]) or 0) + rank
    if _fits(node.outputs[0], axis, len(channels.ids)):
        ties.passes(node, index, Channels(axis, channels.ids))


def _fits(value: ir.Value, axis: int, channels: int) -> bool:
    """True unless broadcasting has made several channels of one."""
    return channels > 1 or (value.shape is not None and value.shape[axis] == 1)


def _concat(node: ir.Node, ties: Ties) -> None:
    known = {i: channels for i in range(len(node.inputs)) if (channels := ties.of(node, i)) is not None}
    rank = _rank(node.outputs[0])
    if not known or rank is None or len({channels.axis for channels in known.values()}) > 1:
        return
    first = next(iter(known.values()))
    if node.attributes.get_int("axis") % rank == first.axis:
        parts = [
            known[i].ids if i in known else _frozen(value, first.axis, ties) for i, value in enumerate(node.inputs)
        ]
        if any(part is None for part in parts):
            return
        result = Channels(first.axis, np.concatenate([part for part in parts if part is not None]))
    elif len(known) == len(node.inputs):
        for channels in known.values():
            ties.tie(first.ids, channels.ids)
        result = first
    else:
        return
    for index in known:
        ties.passes(node, index, result)


def _frozen(value: ir.Value | None, axis: int, ties: Ties) -> np.ndarray | None:
    """Numbers for channels of a tensor that cannot be scaled; None where it is not known how many it has."""
    size = None if value is None or value.shape is None else value.shape[axis]
    if value is None or not isinstance(size, int):
        return None
    ids = ties.fresh(size)
    ties.freeze(ids, f"`{value.name}` cannot be scaled")
    return ids


def _split(node: ir.Node, ties: Ties) -> None:
    channels, rank = ties.of(node, 0), _rank(node.inputs[0])
    if channels is None or rank is None:
        return
    if node.attributes.get_int("axis", 0) % rank != channels.axis:
        parts = [channels.ids] * len(node.outputs)
    else:
        sizes = [None if value.shape is None else value.shape[channels.axis] for value in node.outputs]
        known = [size for size in sizes if isinstance(size, int)]
        if len(known) < len(sizes) or sum(known) != len(channels.ids):
            return
        parts = np.split(channels.ids, np.cumsum(known)[:-1])
    for index, ids in enumerate(parts):
        ties.passes(node, 0, Channels(channels.axis, ids), index)


# --- shapes -----------------------------------------------------------------------------------------------------------


def _reduce(node: ir.Node, ties: Ties) -> None:
    channels, rank = ties.of(node, 0), _rank(node.inputs[0])
    axes = _integers(node, 1)
    if channels is None or rank is None or axes is None or len(axes) == 0:
        return
    gone = {axis % rank for axis in axes}
    if channels.axis in gone:
        ties.refuse(node, 0, f"{node.op_type} `{node.outputs[0].name}` mixes its channels")
        return
    kept = node.attributes.get_int("keepdims", 1)
    axis = channels.axis if kept else channels.axis - sum(item < channels.axis for item in gone)
    ties.passes(node, 0, Channels(axis, channels.ids))


def _transpose(node: ir.Node, ties: Ties) -> None:
    channels, rank = ties.of(node, 0), _rank(node.inputs[0])
    if channels is None or rank is None:
        return
    order = list(node.attributes.get_ints("perm", list(range(rank))[::-1]))
    ties.passes(node, 0, Channels(order.index(channels.axis), channels.ids))


def _squeeze(node: ir.Node, ties: Ties) -> None:
    channels, rank, result = ties.of(node, 0), _rank(node.inputs[0]), _rank(node.outputs[0])
    axes = _integers(node, 1)
    if channels is None or rank is None or result is None or axes is None:
        return
    adding = node.op_type == "Unsqueeze"
    places = {axis % (result if adding else rank) for axis in axes}
    if not adding and channels.axis in places:
        return
    if adding:
        axis = [place for place in range(result) if place not in places][channels.axis]
    else:
        axis = channels.axis - sum(place < channels.axis for place in places)
    ties.passes(node, 0, Channels(axis, channels.ids))


def _reshape(node: ir.Node, ties: Ties) -> None:
    """Other axes may merge or split; the channels may become a longer axis in which each repeats."""
    channels, source, result = ties.of(node, 0), node.inputs[0], node.outputs[0]
    if channels is None or source is None or source.shape is None or result.shape is None:
        return
    after = _product(source.shape[channels.axis + 1 :])
    count = len(channels.ids)
    for axis in range(result.shape.rank()):
        behind = _product(result.shape[axis + 1 :])
        if after is None or behind is None or axis > channels.axis:
            continue
        if result.shape[axis] == count and behind == after:
            ties.passes(node, 0, Channels(axis, channels.ids))
            return
        if result.shape[axis] == count * after and behind == 1:
            ties.passes(node, 0, Channels(axis, np.repeat(channels.ids, after)))
            return
    ties.refuse(node, 0, f"{node.op_type} `{result.name}` takes its channels apart")


def _resize(node: ir.Node, ties: Ties) -> None:
    """Interpolation is linear in the values; beyond the edge it must not put a constant."""
    channels, result = ties.of(node, 0), node.outputs[0]
    if channels is None or result.shape is None or result.shape[channels.axis] != len(channels.ids):
        return
    cropped = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if not cropped and "axes" not in node.attributes:
        _same(node, ties)


def _pad(node: ir.Node, ties: Ties) -> None:
    channels, rank, pads = ties.of(node, 0), _rank(node.inputs[0]), _integers(node, 1)
    axes = _integers(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else range(rank or 0)
    fill = _bound(node, 2, 0.0)
    if channels is None or rank is None or pads is None or axes is None:
        return
    places = [axis % rank for axis in axes]
    before, after = (dict(zip(places, half, strict=True)) for half in (pads[: len(places)], pads[len(places) :]))
    around = (before.get(channels.axis, 0), after.get(channels.axis, 0))
    constant = node.attributes.get_string("mode", "constant") == "constant"
    if (constant and fill != 0) or min(around) < 0 or (any(around) and not constant):
        ties.refuse(node, 0, f"Pad `{node.outputs[0].name}` pads with more than zeros")
        return
    ids = np.concatenate([ties.fresh(around[0]), channels.ids, ties.fresh(around[1])])
    ties.passes(node, 0, Channels(channels.axis, ids))


def _slice(node: ir.Node, ties: Ties) -> None:
    channels, rank = ties.of(node, 0), _rank(node.inputs[0])
    starts, ends = _integers(node, 1), _integers(node, 2)
    if channels is None or rank is None or starts is None or ends is None:
        return
    axes = _integers(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else range(len(starts))
    steps = _integers(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else [1] * len(starts)
    if axes is None or steps is None:
        return
    ids = channels.ids
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % rank == channels.axis:
            if step < 0:
                return
            ids = ids[start:end:step]
    ties.passes(node, 0, Channels(channels.axis, ids))


# --- small questions --------------------------------------------------------------------------------------------------


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else int(value.shape.rank())


def _integers(node: ir.Node, index: int) -> list[int] | None:
    array = constant_array(node.inputs[index]) if index < len(node.inputs) else None
    return None if array is None else [int(item) for item in array.reshape(-1)]


def _product(sizes: Sequence[object]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Identity", "Abs", "Neg"), _same),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _same),
    **dict.fromkeys(("Shape", "Size"), _sizes_only),
    **dict.fromkeys(("Add", "Sub", "Sum", "Max", "Min", "Mean"), _sum),
    **dict.fromkeys(("Mul", "Div"), _gate),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("Flatten", "Reshape"), _reshape),
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "PRelu": _slopes,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
