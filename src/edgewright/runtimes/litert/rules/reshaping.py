"""Operators that move or rename axes: nothing is written where the file's order can stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import NHWC, arranged, identity, regroup
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.patterns import written_as_groups

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of TensorFlow Lite's RESHAPE.
_MOST_AXES = 8


@rule("Identity", "Dropout")
def identical(lowering: Lowering, node: ir.Node) -> None:
    """Nothing: the value is held as its source is."""
    data = node.inputs[0]
    assert data is not None
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refused("its mask is read")
    held = lowering.raw(data)
    lowering.hold(node.outputs[0], held.tensor, held.order)


@rule("Transpose")
def transpose(lowering: Lowering, node: ir.Node) -> None:
    """Nothing: the axes have other numbers now."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.raw(data)
    rank = len(held.order)
    permutation = node.attributes.get_ints("perm", list(range(rank))[::-1])
    lowering.hold(node.outputs[0], held.tensor, tuple(list(permutation).index(axis) for axis in held.order))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(lowering: Lowering, node: ir.Node) -> None:
    """RESHAPE, in the order that the file has where the axes that are merged lie side by side there."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    if written_as_groups(lowering, node):
        return
    held = lowering.raw(data)
    sizes = lowering.sizes(made)
    if len(sizes) > _MOST_AXES:
        raise Refused(f"LiteRT takes {_MOST_AXES} axes at most, and this would make {len(sizes)}")
    found = regroup(held.sizes, held.order, sizes)
    tensor = lowering.ordered(held, found.before)
    wanted = arranged(sizes, found.after)
    if wanted != sizes_of(tensor) or made.is_graph_output():
        tensor = lowering.reshaped(tensor, wanted)
    lowering.hold(made, tensor, found.after)


@rule("Expand")
def expand(lowering: Lowering, node: ir.Node) -> None:
    """BROADCAST_TO."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    sizes = lowering.sizes(made)
    held = lowering.get(data)
    order = held.order if len(held.order) == len(sizes) else identity(len(sizes))
    tensor = lowering.fit(data, order)
    wanted = arranged(sizes, order)
    if sizes_of(tensor) != wanted:
        tensor = lowering.op("BROADCAST_TO", [tensor, lowering.size_vector(wanted)], wanted, version=2)
    lowering.hold(made, tensor, order)


@rule("Tile")
def tile(lowering: Lowering, node: ir.Node) -> None:
    """TILE."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    repeats = lowering.required(node.inputs[1], "repeats").reshape(-1)
    held = lowering.get(data)
    counts = lowering.array(repeats[list(held.order)].astype(np.int32), "repeats")
    lowering.hold(
        made, lowering.op("TILE", [held.tensor, counts], arranged(lowering.sizes(made), held.order)), held.order
    )


@rule("DepthToSpace")
def depth_to_space(lowering: Lowering, node: ir.Node) -> None:
    """DEPTH_TO_SPACE; its columns come last in a channel, so those of mode CRD are put into that order first."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    block = node.attributes.get_int("blocksize", 1)
    tensor = lowering.ordered(lowering.get(data), NHWC)
    channels = sizes_of(tensor)[3]
    if node.attributes.get_string("mode", "DCR") == "CRD":
        order = np.arange(channels).reshape(-1, block * block).T.reshape(-1)
        tensor = lowering.op("GATHER", [tensor, lowering.array(order.astype(np.int32))], sizes_of(tensor), axis=3)
    sizes = arranged(lowering.sizes(made), NHWC)
    lowering.hold(made, lowering.op("DEPTH_TO_SPACE", [tensor], sizes, blockSize=block), NHWC)


@rule("SpaceToDepth")
def space_to_depth(lowering: Lowering, node: ir.Node) -> None:
    """SPACE_TO_DEPTH."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    tensor = lowering.ordered(lowering.get(data), NHWC)
    sizes = arranged(lowering.sizes(made), NHWC)
    block = node.attributes.get_int("blocksize", 1)
    lowering.hold(made, lowering.op("SPACE_TO_DEPTH", [tensor], sizes, blockSize=block), NHWC)
