"""What moves values or gives them another shape; softmax, which looks along one axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
