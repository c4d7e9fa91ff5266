"""mask: the proof of a removal, a network whose channels are zero instead of absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._groups import Groups
from edgewright.graph.dataflow import Names, add_initializer

if TYPE_CHECKING:
    import onnx_ir as ir


def mask(ir_model: ir.Model, groups: Groups, removed: Mapping[str, Sequence[int]]) -> None:
    """Make channels zero in every tensor of numbers that they run through, in place; weights are left alone.

    What is quantized is left as it is, and masked where it is a float again.

    Args:
        ir_model: The network that `groups` were found in.
        groups: What can be removed.
        removed: Channels by group's name.

    Raises:
        EdgewrightError: E103 as `Groups.gone`.
    """
    groups.gone(removed)
    places: dict[tuple[str, int], list[int]] = {}
    for name, channels in removed.items():
        for member in groups[name].members:
            gone = [index for channel in channels for index in member.places[channel]]
            places.setdefault((member.tensor, member.axis), []).extend(gone)
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    names = Names(ir_model)
    for (tensor, axis), gone in places.items():
        value = values.get(tensor)
        if value is not None and gone and groups.plan is not None and tensor in groups.plan.walk.ties.labels:
            _zero(ir_model, value, axis, gone, groups.plan.walk.view.sizes[tensor], names)


def _zero(
    ir_model: ir.Model, value: ir.Value, axis: int, gone: list[int], shape: tuple[int, ...], names: Names
) -> None:
    import onnx_ir as ir

    if value.dtype not in (None, ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.INT64):
        return
    stays = np.ones([size if own == axis else 1 for own, size in enumerate(shape)], bool)
    np.moveaxis(stays, axis, 0)[gone] = False
    dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
    condition = add_initializer(ir_model.graph, names.fresh(f"{value.name}:stays"), stays)
    zero = add_initializer(ir_model.graph, names.fresh(f"{value.name}:zero"), np.zeros((), dtype))
    readers = list(value.uses())
    # Where, not Mul: a channel that is all zero may be infinite or no number behind a division by its own size.
    node = ir.node("Where", [condition, value, zero])
    node.outputs[0].name = names.fresh(f"{value.name}:masked")
    node.outputs[0].type = value.type
    producer = value.producer()
    assert producer is not None
    ir_model.graph.insert_after(producer, node)
    for reader, index in readers:
        reader.replace_input_with(index, node.outputs[0])
