"""Moves: operators that put positions elsewhere. Their rules are index maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._ties import Ids
from edgewright.graph.channels._walk import Axes, Rule, Walk, key
from edgewright.graph.dataflow import is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

#: Positions that one Reshape may spread a tensor's channels over.
_MOST = 2**22


def _idle(node: ir.Node, walk: Walk) -> bool:
    """True where a node reads no channels, or where all that it reads must stay since a size is unknown."""
    if all(not walk.labels(value) for value in node.inputs):
        return True
    if walk.known(node.inputs[0], node.outputs[0]):
        return False
    walk.freeze_all(node, f"the sizes of {node.op_type} `{key(node)}` are unknown")
    return True


def _transpose(node: ir.Node, walk: Walk) -> None:
    if _idle(node, walk):
        return
    rank = len(walk.shape(node.inputs[0]))
    order = list(node.attributes.get_ints("perm", None) or range(rank)[::-1])
    walk.label(node.outputs[0], {order.index(axis): ids for axis, ids in walk.labels(node.inputs[0]).items()})


def _squeeze(node: ir.Node, walk: Walk) -> None:
    _axes_only(node, walk, walk.shape(node.inputs[0]) if walk.known(node.inputs[0]) else ())


def _axes_only(node: ir.Node, walk: Walk, before: tuple[int, ...]) -> None:
    """Squeeze and Unsqueeze: axes of one position come or go, the others keep their order."""
    if _idle(node, walk):
        return
    named = walk.numbers(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    shape = walk.shape(node.outputs[0])
    if node.op_type == "Unsqueeze":
        if named is None:
            walk.freeze_all(node, f"the axes of Unsqueeze `{key(node)}` are unknown")
            return
        new = {axis % len(shape) for axis in named}
        order = [axis for axis in range(len(shape)) if axis not in new]
        found = {order[axis]: ids for axis, ids in walk.labels(node.inputs[0]).items()}
    else:
        gone = [axis for axis, size in enumerate(before) if size == 1] if named is None else named
        left = [axis for axis in range(len(before)) if axis not in {axis % len(before) for axis in gone}]
        walk.freeze(node.inputs[0], "Squeeze drops their axis", tuple(a for a in range(len(before)) if a not in left))
        found = {left.index(axis): ids for axis, ids in walk.labels(node.inputs[0]).items() if axis in left}
    walk.label(node.outputs[0], found)


def _concat(node: ir.Node, walk: Walk) -> None:
    """Places behind one another along the axis; along the others the operands go together."""
    if all(not walk.labels(value) for value in node.inputs):
        return
    if not walk.known(*node.inputs, node.outputs[0]):
        walk.freeze_all(node, f"the sizes of Concat `{key(node)}` are unknown")
        return
    shape = walk.shape(node.outputs[0])
    along = node.attributes.get_int("axis", 0) % len(shape)
    axes: Axes = {}
    for axis in range(len(shape)):
        if axis == along:
            continue
        found = [ids for value in node.inputs if (ids := walk.labels(value).get(axis)) is not None]
        if found:
            axes[axis] = found[0]
            for index in range(len(node.inputs)):
                walk.meet(node, index, axis, found[0])
    if any(along in walk.labels(value) for value in node.inputs):
        axes[along] = np.concatenate([_part(node, index, along, walk) for index in range(len(node.inputs))])
    walk.label(node.outputs[0], axes)


def _part(node: ir.Node, index: int, axis: int, walk: Walk) -> Ids:
    """Numbers of one operand of a Concat; constants may shrink too, what else has none stays."""
    value = node.inputs[index]
    assert value is not None
    own = walk.labels(value).get(axis)
    if own is not None:
        return own
    size = walk.shape(value)[axis]
    if walk.is_constant(value):
        ids = walk.ties.fresh(size)
        walk.use(node, index, axis, ids, "along")
        return ids
    return walk.fixed(size, f"they come from `{value.name}`, whose positions stay")


def _split(node: ir.Node, walk: Walk) -> None:
    source = node.inputs[0]
    if _idle(node, walk):
        return
    rank = len(walk.shape(source))
    along = node.attributes.get_int("axis", 0) % rank
    start = 0
    for output in node.outputs:
        size = walk.view.shape(output)
        if size is None:
            walk.freeze(source, f"the sizes of Split `{key(node)}` are unknown")
            return
        part = slice(start, start + size[along])
        start += size[along]
        labels = walk.labels(source)
        walk.label(output, {axis: ids[part] if axis == along else ids for axis, ids in labels.items()})


def _slice(node: ir.Node, walk: Walk) -> None:
    source, shape = node.inputs[0], walk.view.shape(node.inputs[0])
    if _idle(node, walk) or shape is None:
        return
    bounds = slice_bounds(node, walk, len(shape))
    cut = tuple(walk.labels(source)) if bounds is None else ()
    walk.freeze(source, f"the bounds of Slice `{key(node)}` are unknown", cut)
    found: Axes = {}
    for axis, ids in walk.labels(source).items():
        if axis not in cut:
            found[axis] = ids[bounds[axis]] if bounds is not None and axis in bounds else ids
    walk.label(node.outputs[0], found)


def slice_bounds(node: ir.Node, walk: Walk, rank: int) -> dict[int, slice] | None:
    """What a Slice takes of its axes; None where open sizes decide it."""
    numbers = [walk.numbers(value) for value in node.inputs[1:]]
    numbers += [None] * (4 - len(numbers))
    starts, ends, axes, steps = numbers
    given = [value is not None for value in node.inputs[1:]] + [False] * (5 - len(node.inputs))
    if starts is None or ends is None or (given[2] and axes is None) or (given[3] and steps is None):
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # A negative step may go on to before the first place, which numpy cannot write as a number.
        stop = None if step < 0 and end < -(2**31) else end
        found[axis % rank] = slice(start, stop, step)
    return found


def _gather(node: ir.Node, walk: Walk) -> None:
    source, chosen = node.inputs[0], node.inputs[1]
    data, places = walk.view.shape(source), walk.view.shape(chosen)
    if data is None or places is None:
        walk.freeze_all(node, f"the sizes of Gather `{key(node)}` are unknown")
        return
    along = node.attributes.get_int("axis", 0) % len(data)
    walk.freeze(chosen, "Gather reads them as places")
    if walk.is_constant(source) and not walk.is_constant(chosen):
        _embedding(node, walk, along, data, len(places))
        return
    found = {axis + (len(places) - 1 if axis > along else 0): i for axis, i in walk.labels(source).items()}
    ids = found.pop(along, None) if along in walk.labels(source) else None
    if ids is not None:
        numbers = walk.numbers(chosen)
        if numbers is None or len(places) > 1:
            walk.freeze(source, f"Gather `{key(node)}` picks them at run time", (along,))
        elif not places:
            walk.ties.freeze(ids[numbers], f"Gather `{key(node)}` picks them alone")
        else:
            found[along] = ids[numbers]
    walk.label(node.outputs[0], found)


def _embedding(node: ir.Node, walk: Walk, along: int, data: tuple[int, ...], rank: int) -> None:
    """Rows of a table: the row's length is a layer's width."""
    found: Axes = {}
    for axis, size in enumerate(data):
        if axis != along and size > 1:
            ids = walk.ties.fresh(size)
            walk.use(node, 0, axis, ids, "made")
            found[axis + (rank - 1 if axis > along else 0)] = ids
    walk.label(node.outputs[0], found)


def _pad(node: ir.Node, walk: Walk) -> None:
    """Positions that Pad adds may go like any other."""
    if _idle(node, walk):
        return
    source = node.inputs[0]
    rank = len(walk.shape(source))
    pads = pad_sizes(node, walk, rank)
    mode = node.attributes.get_string("mode", "constant")
    found: Axes = {}
    for axis, ids in walk.labels(source).items():
        before, after = (None, None) if pads is None else pads.get(axis, (0, 0))
        if before is None or after is None or min(before, after) < 0 or (mode != "constant" and (before or after)):
            walk.freeze(source, f"Pad `{key(node)}` fills or cuts them", (axis,))
        else:
            found[axis] = np.concatenate([walk.ties.fresh(before), ids, walk.ties.fresh(after)])
    walk.label(node.outputs[0], found)


def pad_sizes(node: ir.Node, walk: Walk, rank: int) -> dict[int, tuple[int, int]] | None:
    """Positions before and after by axis; None where unknown."""
    numbers = walk.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    given = len(node.inputs) > 3 and node.inputs[3] is not None
    axes = walk.numbers(node.inputs[3]) if given else list(range(rank))
    if numbers is None or axes is None:
        return None
    half = len(numbers) // 2
    return {axis % rank: (numbers[i], numbers[half + i]) for i, axis in enumerate(axes)}


def _expand(node: ir.Node, walk: Walk) -> None:
    """Axes of one position may grow, the others stay as they are."""
    if _idle(node, walk):
        return
    source = node.inputs[0]
    before, after = walk.shape(source), walk.shape(node.outputs[0])
    if (node.inputs[1].name if node.inputs[1] else None) not in walk.view.numbers:
        walk.freeze(source, f"the target of Expand `{key(node)}` is unknown")
    shift = len(after) - len(before)
    grown = tuple(axis for axis, size in enumerate(before) if size != after[axis + shift])
    walk.freeze(source, "Expand repeats them", grown)
    walk.label(node.outputs[0], {a + shift: ids for a, ids in walk.labels(source).items() if a not in grown})


def _tile(node: ir.Node, walk: Walk) -> None:
    if _idle(node, walk):
        return
    source = node.inputs[0]
    before, after = walk.shape(source), walk.shape(node.outputs[0])
    walk.label(node.outputs[0], {a: np.tile(i, after[a] // before[a]) for a, i in walk.labels(source).items()})


# --- reshaping --------------------------------------------------------------------------------------------------------


def _reshape(node: ir.Node, walk: Walk) -> None:
    """Blocks of axes that hold the same positions before and after are followed one by one."""
    if _idle(node, walk):
        return
    source, result = node.inputs[0], node.outputs[0]
    if is_standard(node, "Reshape") and (node.inputs[1] is None or node.inputs[1].name not in walk.view.numbers):
        walk.freeze(source, f"the target of Reshape `{key(node)}` is unknown")
        return
    before, after = walk.shape(source), walk.shape(result)
    axes: Axes = {}
    for old, new in _blocks(before, after):
        for axis in old:
            ids = walk.labels(source).get(axis)
            if ids is None:
                continue
            placed = _spread(ids, old.index(axis), [before[a] for a in old], [after[a] for a in new], walk, node)
            if placed is None:
                continue
            own = new[placed[0]]
            if own in axes:
                walk.ties.freeze(axes[own], f"Reshape `{key(node)}` mixes them with others")
                walk.ties.freeze(placed[1], f"Reshape `{key(node)}` mixes them with others")
            axes[own] = placed[1]
    walk.label(result, axes)


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of axes with equal numbers of positions; axes of one position at the end join the last run."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        old, new = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left *= before[i]
                old.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            else:
                break
        blocks.append((old, new))
    if blocks:
        blocks[-1][0].extend(range(i, len(before)))
        blocks[-1][1].extend(range(j, len(after)))
    return blocks


def _spread(
    ids: Ids, place: int, before: list[int], after: list[int], walk: Walk, node: ir.Node
) -> tuple[int, Ids] | None:
    """The axis of the new block along which the channels lie, and their numbers; None where they must stay."""
    if math.prod(before) != math.prod(after) or math.prod(before) > _MOST:
        walk.ties.freeze(ids, f"Reshape `{key(node)}` cannot be followed")
        return None
    shape = [1] * len(before)
    shape[place] = len(ids)
    spread = np.broadcast_to(walk.ties.roots(ids).reshape(shape), before).reshape(after)
    varying = [axis for axis in range(len(after)) if (spread != spread.take([0], axis)).any()]
    if not varying:
        if len(np.unique(spread)) == 1:
            walk.ties.freeze(ids, f"Reshape `{key(node)}` spreads a single channel")
        return None
    axis = _preferred(varying, after, node)
    rows = np.moveaxis(spread, axis, 0).reshape(after[axis], -1)
    for column in np.unique(rows, axis=1).T:
        walk.ties.tie(rows[:, 0], column)
    return axis, rows[:, 0].copy()


def _preferred(varying: list[int], sizes: list[int], node: ir.Node) -> int:
    """Where one channel has to become a whole slice along one of several axes: the longest, and of equals the last.

    For InstanceNormalization, which takes statistics over all axes but two, only the axis of its channels leaves these
    as they are, so that groups of a GroupNorm written this way go as a whole.
    """
    readers = [user for user in node.outputs[0].consumers() if is_standard(user, "InstanceNormalization")]
    if readers:
        return varying[0]
    return max(varying, key=lambda axis: (sizes[axis], axis))


def _depth_to_space(node: ir.Node, walk: Walk) -> None:
    """The b x b channels that become one place's neighbours go together."""
    ids = walk.labels(node.inputs[0]).get(1)
    side = node.attributes.get_int("blocksize", 1) ** 2
    walk.freeze(node.inputs[0], "DepthToSpace moves them", tuple(a for a in walk.labels(node.inputs[0]) if a != 1))
    if ids is None:
        return
    columns = node.attributes.get_string("mode", "DCR") == "CRD"
    rows = ids.reshape(-1, side).T if columns else ids.reshape(side, -1)
    for row in rows[1:]:
        walk.ties.tie(rows[0], row)
    walk.label(node.outputs[0], {1: rows[0].copy()})


def _space_to_depth(node: ir.Node, walk: Walk) -> None:
    ids = walk.labels(node.inputs[0]).get(1)
    side = node.attributes.get_int("blocksize", 1) ** 2
    walk.freeze(node.inputs[0], "SpaceToDepth moves them", tuple(a for a in walk.labels(node.inputs[0]) if a != 1))
    if ids is not None:
        walk.label(node.outputs[0], {1: np.tile(ids, side)})


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": lambda node, walk: _axes_only(node, walk, ()),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
