"""Reductions and running sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.formats.ncnn.writing import Param
from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.ncnn.layers.pooling import AVERAGE, pool_everything
from edgewright.runtimes.ncnn.network import (
    Lowering,
    Network,
    UnsupportedError,
    axis_of,
    dims_of,
    given,
    ints,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Source: Tencent/ncnn, src/layer/reduction.h.
_OPERATIONS = {
    **{"ReduceSum": 0, "ReduceSumSquare": 2, "ReduceMean": 3, "ReduceMax": 4, "ReduceMin": 5, "ReduceProd": 6},
    **{"ReduceL1": 7, "ReduceL2": 8, "ReduceLogSum": 9},
}
#: These leave a single value as it is; the others do something to it.
_IDENTITIES = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")


def _lower_reduce(network: Network, node: ir.Node) -> None:
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    shape = shape_of(data)
    axes = sorted(axis % len(shape) for axis in _axes(node, len(shape)))
    if node.op_type == "ReduceMean" and len(shape) == 4 and shape[0] == 1 and axes == [2, 3]:
        pool_everything(network, data, made, AVERAGE)
        return
    dims = dims_of(shape)
    kept = []
    for axis in axes:
        if shape[axis] == 1 and node.op_type in _IDENTITIES:
            continue
        kept.append(axis_of(data, axis))
    if not kept:
        network.alias(made, network.blob(data))
        return
    params: dict[int, Param] = {0: _OPERATIONS[node.op_type], 1: 0, 3: tuple(kept), 4: 1, 5: 1}
    result = tuple(1 if axis in kept else size for axis, size in enumerate(dims))
    network.add("Reduction", (network.read(data, dims),), made, params, dims=result)


def _axes(node: ir.Node, rank: int) -> list[int]:
    if given(node, 1) is not None:
        found = ints(node.inputs[1], "axes")
        if found:
            return found
    return [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))


def _lower_cumulative_sum(network: Network, node: ir.Node) -> None:
    data, axis = node.inputs[0], constant_array(given(node, 1))
    assert data is not None
    if axis is None or node.attributes.get_int("exclusive", 0) or node.attributes.get_int("reverse", 0):
        raise UnsupportedError("ncnn sums along a constant axis, forward and inclusive")
    place = axis_of(data, int(axis.reshape(())))
    if len(dims_of(shape_of(data))) > 3:
        raise UnsupportedError("ncnn sums along three axes at most")
    network.add("CumulativeSum", (network.read(data),), node.outputs[0], {0: place})


LOWERINGS: dict[str, Lowering] = {**dict.fromkeys(_OPERATIONS, _lower_reduce), "CumSum": _lower_cumulative_sum}
