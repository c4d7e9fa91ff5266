"""Operands: how each operator's numbers are rewritten when channels go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.channels._groups import Plan
from edgewright.graph.channels._moves import pad_sizes, slice_bounds
from edgewright.graph.channels._plain import picks, reduced_axes
from edgewright.graph.channels._ties import Ids
from edgewright.graph.dataflow import Names, add_initializer, drop_unused

if TYPE_CHECKING:
    import onnx_ir as ir


class Edit:
    """One removal under way.

    Attributes:
        ir_model: The network, changed in place.
        plan: Sizes and labels of the network as it was.
        gone: bool[channels of all groups].
        ragged: Names of values laid out as grids that what is left does not fill.
        retaken: Names that such values' own results had before they came from elsewhere.
    """

    def __init__(self, ir_model: ir.Model, plan: Plan, gone: np.ndarray) -> None:
        self.ir_model = ir_model
        self.plan = plan
        self.gone = gone
        self._names = Names(ir_model)
        self._copies: dict[Any, ir.Value] = {}
        self.ragged = {name for name in plan.walk.grids if not self._is_grid(name)}
        self.retaken: set[str] = set()
        self.values = {value.name: value for node in ir_model.graph for value in node.outputs}

    # --- what is kept -------------------------------------------------------------------------------------------------

    def mask(self, ids: Ids) -> np.ndarray:
        """bool of `ids`' shape, True for what stays."""
        channels = self.plan.channels[ids]
        stays: np.ndarray = (channels < 0) | ~self.gone[np.maximum(channels, 0)]
        return stays

    def kept_by_name(self, name: str) -> dict[int, np.ndarray]:
        """By axis of an activation that shrinks, bool[size], False where gone."""
        walk = self.plan.walk
        if name in walk.grids and name not in walk.ties.labels:
            grid = walk.grids[name]
            masks = dict(zip(grid.laid, _margins(self.mask(walk.positions(grid))), strict=True))
        else:
            masks = {axis: self.mask(ids) for axis, ids in walk.ties.labels.get(name, {}).items()}
        return {axis: mask for axis, mask in masks.items() if not mask.all()}

    def _is_grid(self, name: str) -> bool:
        """True where what is left of a value's positions are some of each of its axes, in all combinations."""
        walk = self.plan.walk
        if name in walk.ties.labels:
            return True
        mask = self.mask(walk.positions(walk.grids[name]))
        filled = np.ones((), bool)
        for margin in _margins(mask):
            filled = np.logical_and.outer(filled, margin)
        return bool((filled == mask).all())

    def kept(self, value: ir.Value | None) -> dict[int, np.ndarray]:
        """The same of a value."""
        return {} if value is None else self.kept_by_name(value.name or "")

    def touches(self, node: ir.Node) -> bool:
        """True where something that a node reads or makes shrinks."""
        return any(self.kept(value) for value in (*node.inputs, *node.outputs))

    def size(self, value: ir.Value) -> tuple[int, ...]:
        """Sizes as they were."""
        return self.plan.walk.view.sizes[value.name or ""]

    def lost(self, value: ir.Value, rank: int) -> np.ndarray:
        """i64[rank]: how many positions each axis loses."""
        counts = np.zeros(rank, np.int64)
        for axis, mask in self.kept(value).items():
            counts[axis] = (~mask).sum()
        return counts

    # --- changing -----------------------------------------------------------------------------------------------------

    def replace(self, node: ir.Node, index: int, array: np.ndarray, kind: Any = None) -> None:
        """Input `index` of a node is a new constant; nodes that read the same one in the same way share it."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        name = (old.name if old is not None else None) or f"{node.outputs[0].name}:{index}"
        label = (name, array.tobytes() if kind is None else kind)
        if label not in self._copies:
            graph = self.ir_model.graph
            self._copies[label] = add_initializer(graph, self._names.fresh(f"{name}:kept"), array)
        node.replace_input_with(index, self._copies[label])
        drop_unused(old)

    def settle(self) -> None:
        """Give new constants the names of those that are gone."""
        initializers = self.ir_model.graph.initializers
        made = {value.name for node in self.ir_model.graph for value in node.outputs}
        for (name, _), value in self._copies.items():
            taken = name in initializers or name in made
            if not taken and value.name in initializers and value.name != name:
                initializers.pop(value.name)
                value.name = name
                initializers[name] = value

    def less(self, node: ir.Node, index: int, lost: np.ndarray, *, but: tuple[int, ...]) -> None:
        """Target sizes in input `index` become smaller by `lost`; entries that are one of `but` say something else."""
        value = node.inputs[index]
        assert value is not None
        was = self.plan.walk.view.numbers[value.name or ""].reshape(-1)
        lost = np.where(np.isin(was, but), 0, lost)
        if not lost.any():
            return
        if self.plan.walk.numbers(value) is not None:
            self.replace(node, index, (was - lost).astype(np.int64))
        else:
            self._insert(node, index, "Sub", [value, self._constant(value, lost)])

    def gather(self, node: ir.Node, index: int, axis: int, places: np.ndarray) -> None:
        """Input `index` of a node is only these places of what it was."""
        value = node.inputs[index]
        assert value is not None
        self._insert(node, index, "Gather", [value, self._constant(value, places)], axis=axis)

    def taken(self, node: ir.Node, source: ir.Value, axis: int, places: np.ndarray) -> ir.Value:
        """These places of a value, made before a node."""
        return self._before(node, "Gather", [source, self._constant(source, places)], {"axis": axis})

    def moved(
        self, node: ir.Node, value: ir.Value, *, target: list[int] | None = None, order: list[int] | None = None
    ) -> ir.Value:
        """A value with other sizes, or with its axes in another order, made before a node."""
        if target is not None:
            sizes = self._constant(value, np.array(target))
            return self._before(node, "Reshape", [value, sizes], {})
        return self._before(node, "Transpose", [value], {"perm": order})

    def rename(self, old: ir.Value, new: ir.Value) -> None:
        """Let a new value have the name of an old one that nothing reads any more."""
        name = old.name or ""
        old.name = self._names.fresh(f"{name}:before")
        self.retaken.add(old.name)
        new.name = name
        self.values[name] = new

    def scale(self, node: ir.Node, factor: float) -> None:
        """What a node makes is multiplied by a number before anyone reads it."""
        import onnx_ir as ir

        old = node.outputs[0]
        if factor == 1:
            return
        readers = list(old.uses())
        dtype = np.dtype(np.float32) if old.dtype is None else old.dtype.numpy()
        number = add_initializer(self.ir_model.graph, self._names.fresh(f"{old.name}:factor"), np.array(factor, dtype))
        made = ir.node("Mul", [old, number])
        made.outputs[0].type, made.outputs[0].shape = old.type, old.shape
        self.ir_model.graph.insert_after(node, made)
        for place, value in enumerate(self.ir_model.graph.outputs):
            if value is old:
                self.ir_model.graph.outputs[place] = made.outputs[0]
        for reader, index in readers:
            reader.replace_input_with(index, made.outputs[0])
        self.rename(old, made.outputs[0])

    def restore_shape(self, node: ir.Node) -> None:
        """Let a Shape go on saying what the original's sizes were: whoever reshapes by it is given new ones."""
        import onnx_ir as ir

        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        lost = self.lost(source, len(self.size(source)))
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(lost))
        constant = self._constant(result, lost[slice(start, end)])
        readers = list(result.uses())
        add = ir.node("Add", [result, constant])
        add.outputs[0].name = self._names.fresh(f"{result.name}:original")
        self.ir_model.graph.insert_after(node, add)
        for reader, index in readers:
            reader.replace_input_with(index, add.outputs[0])

    def _constant(self, like: ir.Value, array: np.ndarray) -> ir.Value:
        name = self._names.fresh(f"{like.name}:places")
        return add_initializer(self.ir_model.graph, name, array.astype(np.int64))

    def _insert(self, node: ir.Node, index: int, op_type: str, inputs: list[ir.Value], **attributes: int) -> None:
        node.replace_input_with(index, self._before(node, op_type, inputs, attributes))

    def _before(self, node: ir.Node, op_type: str, inputs: list[ir.Value], attributes: Mapping[str, Any]) -> ir.Value:
        import onnx_ir as ir

        new = ir.node(op_type, inputs, attributes or None)
        new.outputs[0].name = self._names.fresh(f"{inputs[0].name}:kept")
        new.outputs[0].type = None if op_type == "Sub" else inputs[0].type
        self.ir_model.graph.insert_before(node, new)
        made: ir.Value = new.outputs[0]
        return made


def _margins(mask: np.ndarray) -> list[np.ndarray]:
    """For each axis where anything is left."""
    others = [tuple(other for other in range(mask.ndim) if other != axis) for axis in range(mask.ndim)]
    return [np.asarray(mask.any(axes)) for axes in others]


def _convolution(node: ir.Node, edit: Edit) -> None:
    """Depthwise: one group for each channel that is left. Others keep their groups, which shrink."""
    import onnx_ir as ir

    groups = node.attributes.get_int("group", 1)
    source = node.inputs[0]
    assert source is not None
    mask = edit.kept(source).get(1)
    if groups > 1 and mask is not None and groups == len(mask):
        node.attributes["group"] = ir.AttrInt64("group", int(mask.sum()))
    sides = node.attributes.get_ints("kernel_shape", None)
    if sides:
        kept = edit.kept(source)
        sides = [int(kept[axis].sum()) if axis in kept else side for axis, side in enumerate(sides, 2)]
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", sides)


def _group_norm(node: ir.Node, edit: Edit) -> None:
    import onnx_ir as ir

    source = node.inputs[0]
    assert source is not None
    groups = node.attributes.get_int("num_groups", 1)
    mask = edit.kept(source)[1]
    node.attributes["num_groups"] = ir.AttrInt64("num_groups", int(mask.sum()) * groups // len(mask))


def _reshape(node: ir.Node, edit: Edit) -> None:
    """0 copies a size and -1 follows from the others."""
    result = node.outputs[0]
    copied = () if node.attributes.get_int("allowzero", 0) else (0,)
    edit.less(node, 1, edit.lost(result, len(edit.size(result))), but=(*copied, -1))


def _expand(node: ir.Node, edit: Edit) -> None:
    """1 leaves an axis as long as it is."""
    result = node.outputs[0]
    target = node.inputs[1]
    assert target is not None
    count = edit.plan.walk.view.numbers[target.name or ""].size
    rank = len(edit.size(result))
    edit.less(node, 1, edit.lost(result, rank)[rank - count :], but=(1,))


def _resize(node: ir.Node, edit: Edit) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        result = node.outputs[0]
        lost = edit.lost(result, len(edit.size(result)))
        axes = node.attributes.get_ints("axes", ())
        edit.less(node, 3, lost[list(axes)] if axes else lost, but=())


def _split(node: ir.Node, edit: Edit) -> None:
    source = node.inputs[0]
    assert source is not None
    rank = len(edit.size(source))
    axis = node.attributes.get_int("axis", 0) % rank
    if axis not in edit.kept(source):
        return
    sizes = [edit.size(value)[axis] - edit.lost(value, rank)[axis] for value in node.outputs]
    node.attributes.pop("num_outputs", None)
    edit.replace(node, 1, np.array(sizes, np.int64))


def _slice(node: ir.Node, edit: Edit) -> None:
    """Bounds of what is left; where steps are left out, Gather says which places."""
    source = node.inputs[0]
    assert source is not None
    bounds = slice_bounds(node, edit.plan.walk, len(edit.size(source))) or {}
    changed = {axis: mask for axis, mask in edit.kept(source).items() if axis in bounds}
    if not changed:
        return
    new = {}
    for axis, cut in bounds.items():
        mask = changed.get(axis)
        if mask is None:
            new[axis] = (cut.start, -(2**63) + 1 if cut.stop is None else cut.stop, cut.step)
        elif cut.step == 1:
            start = int(mask[: cut.indices(len(mask))[0]].sum())
            new[axis] = (start, start + int(mask[cut].sum()), 1)
        else:
            places = (np.cumsum(mask) - 1)[cut][mask[cut]]
            edit.gather(node, 0, axis, places)
    if not new:
        new = {0: (0, 2**31, 1)}
    for index, numbers in enumerate(zip(*new.values(), strict=True)):
        edit.replace(node, (1, 2, 4)[index], np.array(numbers, np.int64))
    edit.replace(node, 3, np.array(list(new), np.int64))


def _gather(node: ir.Node, edit: Edit) -> None:
    source, chosen = node.inputs[0], node.inputs[1]
    assert source is not None
    axis = node.attributes.get_int("axis", 0) % len(edit.size(source))
    mask = edit.kept(source).get(axis)
    places = edit.plan.walk.numbers(chosen)
    if mask is None or places is None or chosen is None:
        return
    old = np.array(places, np.int64) % len(mask)
    new = (np.cumsum(mask) - 1)[old[mask[old]]]
    edit.replace(node, 1, new.reshape(() if not edit.size(chosen) else -1))


def _pad(node: ir.Node, edit: Edit) -> None:
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    sizes = edit.size(source)
    pads = pad_sizes(node, edit.plan.walk, len(sizes)) or {}
    for axis, mask in edit.kept(result).items():
        if axis in pads:
            before, after = pads[axis]
            pads[axis] = (int(mask[:before].sum()), int(mask[before + sizes[axis] :].sum()) if after else 0)
    if not any(axis in edit.kept(result) for axis in pads):
        return
    edit.replace(node, 1, np.array([*(a for a, _ in pads.values()), *(b for _, b in pads.values())], np.int64))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        edit.replace(node, 3, np.array(list(pads), np.int64))


def _pool(node: ir.Node, edit: Edit) -> None:
    """Where a pool takes every second position or so, Gather says which of those that are left, and the pool takes all."""
    import onnx_ir as ir

    source = node.inputs[0]
    assert source is not None
    steps = list(node.attributes.get_ints("strides", None) or ())
    for axis, mask in edit.kept(source).items():
        step = 1 if axis < 2 else picks(node, axis) or 1
        if step > 1:
            places = (np.cumsum(mask) - 1)[::step][mask[::step]]
            edit.gather(node, 0, axis, places)
            steps[axis - 2] = 1
            node.attributes["strides"] = ir.AttrInt64s("strides", steps)


def _mean(node: ir.Node, edit: Edit) -> None:
    """Where a mean runs over channels, those that are gone still count, as zeros."""
    kept = edit.kept(node.inputs[0])
    axes = reduced_axes(node, edit.plan.walk) or set()
    edit.scale(node, float(np.prod([mask.mean() for axis, mask in kept.items() if axis in axes])))


def _shape(node: ir.Node, edit: Edit) -> None:
    edit.restore_shape(node)


OPERANDS: dict[str, Callable[[ir.Node, Edit], None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "GroupNormalization": _group_norm,
    "Reshape": _reshape,
    "Expand": _expand,
    "Resize": _resize,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "ReduceMean": _mean,
    "Shape": _shape,
}
