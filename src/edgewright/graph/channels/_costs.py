"""costs: what goes with one channel of a group, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph import cost
from edgewright.graph.channels._groups import Group, Groups
from edgewright.graph.channels._ties import Use
from edgewright.graph.channels._walk import key
from edgewright.graph.dataflow import is_standard
from edgewright.records import ChannelGroup

if TYPE_CHECKING:
    import onnx_ir as ir

#: Layers whose multiply-adds shrink with an axis of their weights.
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN")


def costs(ir_model: ir.Model, groups: Groups) -> tuple[ChannelGroup, ...]:
    """Every group with the layers that make and read it, and what one of its channels costs on average."""
    plan = groups.plan
    if plan is None:
        return ()
    nodes = {key(node): node for node in ir_model.graph}
    macs = {layer.name: layer.macs or 0 for layer in cost.layers(ir_model)}
    sizes = {use.tensor: plan.walk.view.sizes.get(use.tensor, ()) for use in plan.walk.ties.uses.values()}
    found = []
    for group in groups.groups:
        start = plan.starts[group.name]
        made: dict[str, None] = {}
        read: dict[str, None] = {}
        work = 0.0
        for use in plan.walk.ties.uses.values():
            channels = plan.channels[use.ids]
            share = float(np.mean((channels >= start) & (channels < start + group.width)))
            for layer in _layers(nodes, use) if share else ():
                work += macs.get(layer, 0) * share
                if use.role != "along":
                    (made if use.role == "made" else read)[layer] = None
        found.append(
            ChannelGroup(
                name=group.name,
                channels=group.width,
                made_by=tuple(made),
                read_by=tuple(read),
                parameters_per_channel=_parameters(group, sizes) / group.width,
                macs_per_channel=work / group.width,
            )
        )
    return tuple(found)


def _layers(nodes: dict[str, ir.Node], use: Use) -> Iterator[str]:
    """The layers whose weights a use shrinks; behind a DequantizeLinear, all that read what it makes."""
    node = nodes[use.node]
    if is_standard(node, "DequantizeLinear", "QuantizeLinear"):
        readers = node.outputs[0].uses() if use.index == 0 else ()
        yield from (key(reader) for reader, index in readers if is_standard(reader, *_LAYERS) and index == 1)
    elif is_standard(node, *_LAYERS, "Gather") and (use.role != "along" or _is_depthwise(node, use)):
        yield use.node


def _is_depthwise(node: ir.Node, use: Use) -> bool:
    return is_standard(node, "Conv", "ConvTranspose") and use.index == 1


def _parameters(group: Group, sizes: dict[str, tuple[int, ...]]) -> float:
    """Elements of constants that go with a whole group, each axis counted as if it went alone."""
    total = 0.0
    for member in group.members:
        size = sizes.get(member.tensor)
        if size and member.axis < len(size):
            positions = sum(len(places) for places in member.places)
            total += math.prod(size) * positions / size[member.axis]
    return total
