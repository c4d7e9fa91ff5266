"""remove: slice weights, and rewrite every number in the graph that says how many channels there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.channels._groups import Groups
from edgewright.graph.channels._operands import OPERANDS, Edit
from edgewright.graph.channels._regrid import regrid
from edgewright.graph.channels._ties import Use
from edgewright.graph.channels._view import share_constants
from edgewright.graph.channels._walk import key
from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused, is_standard, lift_constants
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer

if TYPE_CHECKING:
    import onnx_ir as ir

Kept = dict[int, np.ndarray]  # by axis bool[size], False where gone


def remove(
    ir_model: ir.Model, groups: Groups, removed: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, tuple[int, ...]]]:
    """Remove channels in place.

    Args:
        ir_model: The network that `groups` were found in, or a clone of it.
        groups: What can be removed.
        removed: Channels by group's name.

    Returns:
        For each activation that shrank, by axis, the indices that are left of the original's.

    Raises:
        EdgewrightError: E103 for a group or channel that is not there, E212 where nothing would be left of a tensor; the
            network is unchanged then.
    """
    gone = groups.gone(removed)
    if groups.plan is None or not gone.any():
        return {}
    edit = Edit(ir_model, groups.plan, gone)
    uses = _changed(edit)
    _check(edit, uses)
    lift_constants(ir_model)
    share_constants(ir_model)
    _answer_shapes(ir_model)
    computed = _computed(ir_model, uses)
    # What Shape gives is looked up by its name when others are rewritten, so that it comes last.
    nodes = sorted(ir_model.graph, key=lambda node: is_standard(node, "Shape"))
    regrid(edit)
    for node in (node for node in nodes if node.graph is not None):
        rewrite = OPERANDS.get(node.op_type) if is_standard(node, node.op_type) else None
        if rewrite is not None and edit.touches(node):
            rewrite(node, edit)
    _slice_constants(edit, uses, computed)
    _drop_dead(ir_model)
    for value in ir_model.graph.outputs:
        assert not edit.kept(value)
    infer(ir_model)
    walk = groups.plan.walk
    kept = {name: edit.kept_by_name(name) for name in (*walk.ties.labels, *walk.grids) if name not in edit.ragged}
    return {
        name: {axis: tuple(np.flatnonzero(mask).tolist()) for axis, mask in axes.items()}
        for name, axes in kept.items()
        if axes
    }


def _changed(edit: Edit) -> dict[tuple[str, int], tuple[Use, Kept]]:
    """By node and input, the constants that shrink."""
    found: dict[tuple[str, int], tuple[Use, Kept]] = {}
    for use in edit.plan.walk.ties.uses.values():
        mask = edit.mask(use.ids)
        if not mask.all():
            found.setdefault((use.node, use.index), (use, {}))[1][use.axis] = mask
    return found


def _check(edit: Edit, uses: Mapping[tuple[str, int], tuple[Use, Kept]]) -> None:
    tensors = [(name, edit.kept_by_name(name)) for name in edit.plan.walk.ties.labels]
    for name, axes in [*tensors, *((use.tensor, kept) for use, kept in uses.values())]:
        for axis, mask in axes.items():
            if not mask.any():
                raise EdgewrightError(
                    "E212",
                    f"all {len(mask)} channels of `{name}` (axis {axis}) would be removed, but one must be left",
                    hint="edgewright inspect MODEL --groups",
                )


def _answer_shapes(ir_model: ir.Model) -> None:
    """Replace the Shape of a constant, which would go on reading it in full, by what it says."""
    names = Names(ir_model)
    for node in tuple(ir_model.graph):
        array = constant_array(node.inputs[0]) if is_standard(node, "Shape") else None
        if array is None or node.outputs[0].is_graph_output():
            continue
        part = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", array.ndim))
        sizes = np.array(array.shape, np.int64)[part]
        answer = add_initializer(ir_model.graph, names.fresh(f"{node.outputs[0].name}:sizes"), sizes)
        node.outputs[0].replace_all_uses_with(answer)
        ir_model.graph.remove(node, safe=True)


def _computed(ir_model: ir.Model, uses: Mapping[tuple[str, int], tuple[Use, Kept]]) -> dict[str, np.ndarray]:
    """Constants that nodes of the graph compute, as far as they are wanted and can be folded."""
    made = {value.name: node for node in ir_model.graph for value in node.outputs}
    waiting = [use.tensor for use, _ in uses.values() if use.tensor in made]
    wanted = set(waiting)
    if not wanted:
        return {}
    nodes: set[str] = set()
    while waiting:
        node = made.get(waiting.pop())
        if node is not None and key(node) not in nodes:
            nodes.add(key(node))
            waiting += [value.name for value in node.inputs if value is not None and value.name]
    folded = ir_model.clone()
    fold(folded, lambda node: key(node) in nodes)
    arrays = {name: constant_array(folded.graph.initializers.get(name)) for name in wanted}
    return {name: array for name, array in arrays.items() if array is not None}


def _slice_constants(
    edit: Edit, uses: Mapping[tuple[str, int], tuple[Use, Kept]], computed: Mapping[str, np.ndarray]
) -> None:
    """Slice constants; what other nodes read in another way is copied first."""
    nodes = {key(node): node for node in edit.ir_model.graph}
    for use, kept in uses.values():
        node = nodes[use.node]
        value = node.inputs[use.index]
        assert value is not None
        array = computed.get(use.tensor)
        array = constant_array(value) if array is None else array
        if array is None:
            for axis, mask in kept.items():
                edit.gather(node, use.index, axis, np.flatnonzero(mask))
            continue
        for axis, mask in kept.items():
            array = np.compress(mask, array, axis)
        edit.replace(node, use.index, array, ("sliced", *(mask.tobytes() for mask in kept.values()), *kept))
    edit.settle()


def _drop_dead(ir_model: ir.Model) -> None:
    """Remove nodes that no longer have readers: what computed constants and target sizes before."""
    graph = ir_model.graph
    for node in reversed(tuple(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            inputs = _distinct(node.inputs)
            graph.remove(node, safe=True)
            for value in inputs:
                drop_unused(value)


def _distinct(values: Iterable[ir.Value | None]) -> list[ir.Value | None]:
    return list(dict.fromkeys(values))
