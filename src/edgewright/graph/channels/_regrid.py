"""regrid: where channels go that leave no grid, take what is left from where it lay before the moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._operands import Edit
from edgewright.graph.dataflow import drop_unused

if TYPE_CHECKING:
    import onnx_ir as ir


def regrid(edit: Edit) -> None:
    """Let every value that was moved out of a grid with holes come from the grid's source, in place; the moves go."""
    grids = edit.plan.walk.grids
    if not edit.ragged:
        return
    for node in tuple(edit.ir_model.graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or source.name not in edit.ragged:
            continue
        for value in node.outputs:
            if value.name in grids and value.name not in edit.ragged:
                _take(value, edit)
    for node in reversed(tuple(edit.ir_model.graph)):
        names = [value.name for value in node.outputs]
        moved = any(name in edit.ragged or name in edit.retaken for name in names)
        if moved and not any(value.uses() for value in node.outputs):
            inputs = [value for value in node.inputs if value is not None]
            edit.ir_model.graph.remove(node, safe=True)
            for value in inputs:
                drop_unused(value)


def _take(value: ir.Value, edit: Edit) -> None:
    """Gather, and where they are left over Reshape and Transpose."""
    walk = edit.plan.walk
    name = value.name or ""
    grid = walk.grids[name]
    kept = edit.kept(value)
    places = grid.places
    for number, axis in enumerate(grid.laid):
        if axis in kept:
            places = np.compress(kept[axis], places, number)
    stays = edit.kept_by_name(grid.source).get(grid.axis)
    places = places if stays is None else (np.cumsum(stays) - 1)[places]
    sizes = walk.view.sizes[grid.source]
    other = None if walk.other is None else walk.other.sizes[grid.source]
    target = grid.target(sizes, other, places.shape)
    assert target is not None
    node = value.producer()
    assert node is not None
    made = edit.taken(node, edit.values[grid.source], grid.axis, places.reshape(-1))
    if places.ndim != 1 or len(target) != len(sizes):
        made = edit.moved(node, made, target=target)
    order = grid.order(len(sizes))
    if order != sorted(order):
        made = edit.moved(node, made, order=order)
    made.type = value.type
    value.replace_all_uses_with(made)
    edit.rename(value, made)
