"""What moves values or gives them another shape; softmax, which looks along one axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtimes.native.plan import KERNELS
from edgewright.runtimes.native.planner import LIMITED, Draft, Held, Planner, Rule, UnsupportedError, constant
from edgewright.runtimes.native.rules.windows import whole

if TYPE_CHECKING:
    import onnx_ir as ir


def _same(planner: Planner, node: ir.Node) -> None:
    planner.name(node.outputs[0], planner.value(node.inputs[0]))


def _cast(planner: Planner, node: ir.Node) -> None:
    import onnx_ir as ir

    if whole(node, "to") != int(ir.DataType.FLOAT):
        raise UnsupportedError("it makes other numbers than float32")
    planner.name(node.outputs[0], planner.floats(node.inputs[0]))


def _reshape(planner: Planner, node: ir.Node) -> None:
    held = planner.value(node.inputs[0])
    wanted = [int(size) for size in constant(node.inputs[1], "shape")]
    zero = whole(node, "allowzero")
    shape = [held.shape[at] if size == 0 and not zero else size for at, size in enumerate(wanted)]
    if -1 in shape:
        rest = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = math.prod(held.shape) // max(rest, 1)
    planner.name(node.outputs[0], planner.reshaped(held, tuple(shape)))


def _flatten(planner: Planner, node: ir.Node) -> None:
    held = planner.value(node.inputs[0])
    axis = whole(node, "axis", 1)
    axis %= len(held.shape) + 1 if axis < 0 else len(held.shape) + 2
    shape = (math.prod(held.shape[:axis]), math.prod(held.shape[axis:]))
    planner.name(node.outputs[0], planner.reshaped(held, shape))


def _squeeze(planner: Planner, node: ir.Node) -> None:
    held = planner.value(node.inputs[0])
    rank = len(held.shape)
    given = len(node.inputs) > 1 and node.inputs[1] is not None
    axes = {int(axis) % rank for axis in constant(node.inputs[1], "axes")} if given else set(range(rank))
    shape = tuple(size for axis, size in enumerate(held.shape) if not (axis in axes and size == 1))
    planner.name(node.outputs[0], planner.reshaped(held, shape))


def _unsqueeze(planner: Planner, node: ir.Node) -> None:
    held = planner.value(node.inputs[0])
    given = constant(node.inputs[1], "axes")
    rank = len(held.shape) + len(given)
    axes, sizes = {int(axis) % rank for axis in given}, iter(held.shape)
    planner.name(
        node.outputs[0], planner.reshaped(held, tuple(1 if axis in axes else next(sizes) for axis in range(rank)))
    )


def _transpose(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    rank = len(held.shape)
    perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else tuple(range(rank))[::-1]
    shape = tuple(held.shape[axis] for axis in perm)
    moved = [axis for axis in perm if held.shape[axis] > 1]
    if moved == sorted(moved):  # only axes of one value change their place
        found = planner.reshaped(held, shape)
    elif perm == (0, 2, 3, 1):
        found = planner.last(Held(planner.last(held).buffer, shape))
    elif perm == (0, 3, 1, 2):
        found = Held(planner.plain(held).buffer, shape, last=True)
    elif perm == (0, 2, 1):
        found = planner.fresh(shape)
        sizes = dict(zip(("batch", "rows", "columns"), held.shape, strict=True))
        planner.steps.append(Draft("transpose", sizes, {"x": held}, {"y": found}, stage=LIMITED))
    else:
        raise UnsupportedError(f"it moves the axes as {list(perm)}")
    planner.name(node.outputs[0], found)


def _concat(planner: Planner, node: ir.Node) -> None:
    parts = [planner.floats(value) for value in node.inputs]
    rank = len(parts[0].shape)
    axis = whole(node, "axis") % rank
    place = (0, 3, 1, 2)[axis] if parts[0].last else axis
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    if any(
        (part.last, *part.shape[:axis], *part.shape[axis + 1 :]) != (parts[0].last, *shape[:axis], *shape[axis + 1 :])
        for part in parts
    ):
        raise UnsupportedError("its inputs have different sizes")
    sizes = {"outer": math.prod(parts[0].memory[:place])}
    sizes |= {str(number): math.prod(part.memory[place:]) for number, part in enumerate(parts)}
    reads = {str(number): part for number, part in enumerate(parts)}
    result = planner.fresh(tuple(shape), last=parts[0].last)
    planner.add(node.outputs[0], Draft("concat", sizes, reads, {"y": result}, stage=LIMITED))


def _slice(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    given = [[int(number) for number in constant(value, "range")] for value in node.inputs[1:]]
    starts, ends = given[:2]
    axes = given[2] if len(given) > 2 else list(range(len(starts)))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    ranges = [range(size) for size in held.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise UnsupportedError("it goes backwards")
        ranges[axis] = range(held.shape[axis])[start:end:step]
    if not all(ranges):
        raise UnsupportedError("it keeps no values")
    _cut(planner, node, held, ranges)


def _pad(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    pads = [int(number) for number in constant(node.inputs[1], "padding")]
    rank = len(held.shape)
    axes = (
        [int(axis) % rank for axis in constant(node.inputs[3], "axes")] if len(node.inputs) > 3 else list(range(rank))
    )
    if mode != "constant" or min(pads, default=0) < 0:
        raise UnsupportedError(f"it pads by {pads}, mode {mode}; here by a fixed value, and never by less than 0")
    ranges = [range(size) for size in held.shape]
    for place, axis in enumerate(axes):
        ranges[axis] = range(-pads[place], held.shape[axis] + pads[len(axes) + place])
    fill = constant(node.inputs[2], "value") if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    _cut(planner, node, held, ranges, fill=float(fill.reshape(-1)[0]))


def _cut(planner: Planner, node: ir.Node, held: Held, ranges: list[range], *, fill: float = 0.0) -> None:
    """A step that takes these places of each axis; `fill` where they lie outside."""
    if len(held.shape) > 4:
        raise UnsupportedError(f"it works on {len(held.shape)} axes, here on up to 4")
    result = planner.fresh(tuple(len(places) for places in ranges), last=held.last)
    order = (0, 2, 3, 1) if held.last else tuple(range(len(ranges)))
    places = [*[range(1)] * (4 - len(ranges)), *(ranges[axis] for axis in order)]
    sizes = [*[1] * (4 - len(ranges)), *held.memory]
    columns = [
        (size, len(each), max(each.start, 0), max(-each.start, 0), each.step)
        for size, each in zip(sizes, places, strict=True)
    ]
    values = [number for row in zip(*columns, strict=True) for number in row]
    named = dict(zip(KERNELS["slice"].sizes, values, strict=True))
    planner.add(node.outputs[0], Draft("slice", named, {"x": held}, {"y": result}, fill=fill, stage=LIMITED))


def _softmax(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    rank = len(held.shape)
    axis = whole(node, "axis", -1) % rank
    if axis != (1 if held.last else rank - 1):
        raise UnsupportedError(
            f"it goes along axis {axis} of {rank}; here only along the channels of images, or the last"
        )
    columns = held.memory[-1]
    sizes = {"rows": math.prod(held.shape) // columns, "columns": columns}
    result = planner.fresh(held.shape, last=held.last)
    planner.add(node.outputs[0], Draft("softmax", sizes, {"x": held}, {"y": result}, stage=LIMITED))


RULES: dict[str, Rule] = {
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _same,
    "Flatten": _flatten,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
