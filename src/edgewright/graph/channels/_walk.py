"""Walk: what rules of operators share: labels of inputs and outputs, constants that go with channels, barriers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._grids import Grid
from edgewright.graph.channels._ties import Ids, Role, Ties, Use
from edgewright.graph.channels._view import View, integers
from edgewright.graph.dataflow import is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

Axes = dict[int, Ids]
#: What a rule makes of a node; it labels the node's outputs.
Rule = Callable[["ir.Node", "Walk"], None]
_PER_TENSOR = 1


def key(node: ir.Node) -> str:
    """The name that a node is known by: that of its first output that has one."""
    return next((value.name for value in node.outputs if value.name), "")


@dataclass
class Walk:
    """The state of one walk over a network.

    Attributes:
        view: Sizes and small constants.
        other: The same network with other open sizes, where it has any.
        ties: What has been found out.
        grids: By value's name, where its positions are in an earlier one.
        zeros: Names of what is zero at a channel whose layer gives zeros ([_zeros.py](_zeros.py)).
    """

    view: View
    other: View | None = None
    ties: Ties = field(default_factory=Ties)
    grids: dict[str, Grid] = field(default_factory=dict)
    zeros: set[str] = field(default_factory=set)

    # --- asking -------------------------------------------------------------------------------------------------------

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Sizes of a value that is known to have them: `known` comes first."""
        found = self.view.shape(value)
        assert found is not None
        return found

    def known(self, *values: ir.Value | None) -> bool:
        """True where the sizes of all values are known."""
        return all(value is None or self.view.shape(value) is not None for value in values)

    def labels(self, value: ir.Value | None) -> Axes:
        """Numbers by axis; empty for what has no channels that layers make, and for constants.

        Positions that lie over several axes are from now on tied so that they lie along one.
        """
        if value is None:
            return {}
        grid = self.grid(value)
        if grid is not None:
            found = self.settled(self.positions(grid), value, grid.laid)
            self.ties.labels[value.name or ""] = dict([found] if found is not None else [])
        return self.ties.labels.get(value.name or "", {})

    def grid(self, value: ir.Value | None) -> Grid | None:
        """Where positions are that lie over several axes, as long as none of them has been chosen."""
        name = "" if value is None else value.name or ""
        return None if name in self.ties.labels else self.grids.get(name)

    def positions(self, grid: Grid) -> Ids:
        """Numbers of what is laid out, in the shape of its places."""
        found: Ids = self.ties.labels[grid.source][grid.axis][grid.places]
        return found

    def is_constant(self, value: ir.Value | None) -> bool:
        """True for a value that no graph input decides."""
        return self.view.is_constant(value)

    def numbers(self, value: ir.Value | None) -> list[int] | None:
        """The integers of a small constant, where open sizes have no say in them."""
        if value is None:
            return None
        array = self.view.numbers.get(value.name or "")
        if array is None:
            return None
        if self.other is not None:
            again = self.other.numbers.get(value.name or "")
            if again is None or not np.array_equal(again, array):
                return None
        return integers(array)

    # --- telling ------------------------------------------------------------------------------------------------------

    def label(self, value: ir.Value, axes: Axes) -> None:
        """What a node makes has these numbers."""
        if axes and value.name:
            self.ties.labels[value.name] = axes

    def carry(self, value: ir.Value, grid: Grid | None) -> bool:
        """What a node makes are positions of an earlier value; False where that cannot be said of every open size."""
        if grid is None or not value.name:
            return False
        for view in (self.view, self.other):
            source, shape = (None, None) if view is None else (view.sizes.get(grid.source), view.sizes.get(value.name))
            if view is not None and (source is None or shape is None or not grid.fits(shape, source)):
                return False
        sizes, other = self.view.sizes[grid.source], None if self.other is None else self.other.sizes[grid.source]
        if (other is not None and other[grid.axis] != sizes[grid.axis]) or grid.target(sizes, other, (1,)) is None:
            return False
        self.grids[value.name] = grid
        if len(grid.long) <= 1:
            ids = self.positions(grid).reshape(-1)
            if not grid.laid:
                self.ties.freeze(ids, f"`{value.name}` picks them alone")
            axes = grid.long or grid.laid[:1]
            self.ties.labels[value.name] = dict.fromkeys(axes, ids)
        return True

    def settled(self, ids: Ids, value: ir.Value, laid: list[int] | None = None) -> tuple[int, Ids] | None:
        """Tie positions that lie over several axes so that they lie along one: that axis, and their numbers.

        Args:
            ids: Numbers, one axis for each of `laid`.
            value: What is laid out.
            laid: Its axes; those of `ids` themselves where left out.
        """
        ids = self.ties.roots(ids)
        varying = [axis for axis in range(ids.ndim) if (ids != ids.take([0], axis)).any()]
        if not varying:
            if len(np.unique(ids)) == 1:
                self.ties.freeze(ids, f"`{value.name}` spreads a single channel")
            return None
        axis = _preferred(varying, ids.shape, value)
        rows = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
        for column in np.unique(rows, axis=1).T if len(varying) > 1 else ():
            self.ties.tie(rows[:, 0], column)
        return (axis if laid is None else laid[axis]), rows[:, 0].copy()

    def freeze(self, value: ir.Value | None, reason: str, axes: tuple[int, ...] | None = None) -> None:
        """The channels of a value, along `axes` or all, must stay."""
        for axis, ids in self.labels(value).items():
            if axes is None or axis in axes:
                self.ties.freeze(ids, reason)

    def freeze_all(self, node: ir.Node, reason: str) -> None:
        """All channels that a node reads must stay."""
        for value in node.inputs:
            self.freeze(value, reason)

    def fixed(self, size: int, reason: str) -> Ids:
        """Numbers of positions that must stay."""
        ids = self.ties.fresh(size)
        self.ties.freeze(ids, reason)
        return ids

    def meet(self, node: ir.Node, index: int, axis: int, ids: Ids, role: Role = "along") -> None:
        """Input `index` of a node goes, along `axis`, with the channels `ids`."""
        value = node.inputs[index]
        assert value is not None
        if self.is_constant(value):
            self.use(node, index, axis, ids, role)
            return
        own = self.labels(value).get(axis)
        if own is None:
            self.ties.freeze(ids, f"{node.op_type} joins them with `{value.name}`, whose positions stay")
        else:
            self.ties.tie(own, ids)

    def use(self, node: ir.Node, index: int, axis: int, ids: Ids, role: Role) -> None:
        """A constant that a node reads goes along; behind a DequantizeLinear it is what that one reads."""
        value = node.inputs[index]
        assert value is not None
        producer = value.producer()
        quantized = producer is not None and is_standard(producer, "DequantizeLinear", "QuantizeLinear")
        if role != "along" or quantized:
            self.ties.whole.setdefault((value.name or "", axis), []).append(((key(node), index), ids))
        if role == "made":
            self.ties.makers.append((key(node), ids))
        if quantized and producer is not None:
            self._use_quantized(producer, axis, ids, role)
            return
        self._record(node, index, axis, ids, role)

    def _record(self, node: ir.Node, index: int, axis: int, ids: Ids, role: Role) -> None:
        value = node.inputs[index]
        assert value is not None
        use = Use(key(node), index, value.name or "", axis, ids, role)
        self.ties.tie(self.ties.uses.setdefault((use.node, index, axis), use).ids, ids)

    def _use_quantized(self, node: ir.Node, axis: int, ids: Ids, role: Role) -> None:
        if node.attributes.get_int("block_size", 0):
            self.ties.freeze(ids, f"`{key(node)}` has scales by block")
            return
        self._record(node, 0, axis, ids, role)
        self.scales(node, self.view.shape(node.inputs[0]), axis, ids)

    def scales(self, node: ir.Node, shape: tuple[int, ...] | None, axis: int, ids: Ids) -> None:
        """Scale and zero point of a quantizer, where there is one for each channel along `axis`."""
        own = node.attributes.get_int("axis", 1)
        if shape is None or own % max(len(shape), 1) != axis:
            return
        for index in (1, 2):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and self.view.shape(value) not in ((), (_PER_TENSOR,)):
                self.meet(node, index, 0, ids)


def _preferred(varying: list[int], sizes: tuple[int, ...], value: ir.Value) -> int:
    """Where one channel has to become a whole slice along one of several axes: the longest, and of equals the last.

    For InstanceNormalization, which takes statistics over all axes but two, only the axis of its channels leaves these
    as they are, so that groups of a GroupNorm written this way go as a whole.
    """
    if any(is_standard(user, "InstanceNormalization") for user in value.consumers()):
        return varying[0]
    return max(varying, key=lambda axis: (sizes[axis], axis))


def align(shape: tuple[int, ...], rank: int, axis: int) -> int | None:
    """Where an axis of a result of `rank` axes is in an operand that is broadcast; None where it is not."""
    own = axis - (rank - len(shape))
    return own if own >= 0 else None
