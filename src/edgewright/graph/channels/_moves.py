"""Moves: operators that put positions elsewhere. Their rules are index maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._grids import blocks, whole
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
    source = node.inputs[0]
    if not walk.known(source, node.outputs[0]):
        _idle(node, walk)
        return
    rank = len(walk.shape(source))
    order = list(node.attributes.get_ints("perm", None) or range(rank)[::-1])
    grid = walk.grid(source)
    if grid is not None and walk.carry(node.outputs[0], grid.transposed(order)):
        return
    walk.label(node.outputs[0], {order.index(axis): ids for axis, ids in walk.labels(node.inputs[0]).items()})


def _squeeze(node: ir.Node, walk: Walk) -> None:
    """Axes of one position go, the others keep their order."""
    source = node.inputs[0]
    before = walk.shape(source) if walk.known(source) else ()
    named = _named_axes(node, walk, len(before))
    gone = [axis for axis, size in enumerate(before) if size == 1] if named is None else named
    grid = walk.grid(source)
    if grid is not None and walk.carry(node.outputs[0], grid.squeezed(gone)):
        return
    if _idle(node, walk):
        return
    left = [axis for axis in range(len(before)) if axis not in gone]
    walk.freeze(source, "Squeeze drops their axis", tuple(gone))
    walk.label(node.outputs[0], {left.index(axis): ids for axis, ids in walk.labels(source).items() if axis in left})


def _unsqueeze(node: ir.Node, walk: Walk) -> None:
    """Axes of one position come, the others keep their order."""
    source = node.inputs[0]
    rank = len(walk.shape(node.outputs[0])) if walk.known(node.outputs[0]) else 0
    new = _named_axes(node, walk, rank)
    grid = walk.grid(source)
    if grid is not None and new is not None and walk.carry(node.outputs[0], grid.unsqueezed(new)):
        return
    if _idle(node, walk):
        return
    if new is None:
        walk.freeze_all(node, f"the axes of Unsqueeze `{key(node)}` are unknown")
        return
    order = [axis for axis in range(rank) if axis not in new]
    walk.label(node.outputs[0], {order[axis]: ids for axis, ids in walk.labels(source).items()})


def _named_axes(node: ir.Node, walk: Walk, rank: int) -> list[int] | None:
    """The axes that input 1 names, of `rank`; None where it names none or they are unknown."""
    named = walk.numbers(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return None if named is None or not rank else [axis % rank for axis in named]


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
    if not walk.known(source):
        _idle(node, walk)
        return
    along = node.attributes.get_int("axis", 0) % len(walk.shape(source))
    if _split_grid(node, walk, along) or _idle(node, walk):
        return
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


def _split_grid(node: ir.Node, walk: Walk, along: int) -> bool:
    grid = walk.grid(node.inputs[0])
    if grid is None or not walk.known(*node.outputs):
        return False
    ends = np.cumsum([walk.shape(output)[along] for output in node.outputs])
    parts = [grid.taken(along, part) for part in np.split(np.arange(ends[-1]), ends[:-1])]
    if all(walk.carry(output, part) for output, part in zip(node.outputs, parts, strict=True)):
        return True
    for output in node.outputs:
        walk.grids.pop(output.name or "", None)
    return False


def _slice(node: ir.Node, walk: Walk) -> None:
    source, shape = node.inputs[0], walk.view.shape(node.inputs[0])
    grid = walk.grid(source)
    cut_axes = {} if grid is None or shape is None else slice_bounds(node, walk, len(shape)) or {}
    if grid is not None and shape is not None and len(cut_axes) == 1:
        ((axis, taken),) = cut_axes.items()
        if walk.carry(node.outputs[0], grid.taken(axis, np.arange(shape[axis])[taken])):
            return
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
    grid, picked = walk.grid(source), walk.numbers(chosen)
    if grid is not None and picked is not None and len(places) <= 1:
        part = grid.taken(along, np.array(picked).reshape(places) % data[along])
        if walk.carry(node.outputs[0], part):
            return
    if walk.is_constant(source) and not walk.is_constant(chosen):
        _embedding(node, walk, along, data, len(places))
        return
    labels = dict(walk.labels(source))
    ids = labels.pop(along, None)
    found = {axis + (len(places) - 1 if axis > along else 0): own for axis, own in labels.items()}
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
    source, result = node.inputs[0], node.outputs[0]
    if _lay(node, walk) or _idle(node, walk):
        return
    if is_standard(node, "Reshape") and (node.inputs[1] is None or node.inputs[1].name not in walk.view.numbers):
        walk.freeze(source, f"the target of Reshape `{key(node)}` is unknown")
        return
    before, after = walk.shape(source), walk.shape(result)
    axes: Axes = {}
    for old, new in blocks(before, after):
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


def _lay(node: ir.Node, walk: Walk) -> bool:
    """Positions of one axis are laid over several, or gathered from these."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or not walk.known(source, result):
        return False
    before, after = walk.shape(source), walk.shape(result)
    grid = walk.grid(source)
    if grid is None:
        if len(walk.labels(source)) != 1:
            return False
        (axis,) = walk.labels(source)
        grid = whole(source.name or "", axis, before).reshaped(before, after)
        if grid is None or len(grid.long) < 2:
            return False
        return walk.carry(result, grid)
    return walk.carry(result, grid.reshaped(before, after))


def _spread(
    ids: Ids, place: int, before: list[int], after: list[int], walk: Walk, node: ir.Node
) -> tuple[int, Ids] | None:
    """The axis of the new block along which the channels lie, and their numbers; None where they must stay."""
    if math.prod(before) != math.prod(after) or math.prod(before) > _MOST:
        walk.ties.freeze(ids, f"Reshape `{key(node)}` cannot be followed")
        return None
    shape = [1] * len(before)
    shape[place] = len(ids)
    return walk.settled(np.broadcast_to(ids.reshape(shape), before).reshape(after), node.outputs[0])


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
    "Unsqueeze": _unsqueeze,
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
