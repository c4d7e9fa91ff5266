"""ArgMax, ArgMin and Where, which ncnn has no layers for: made of sums, bounds and reductions, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param
from edgewright.graph.dataflow import is_standard
from edgewright.runtimes.ncnn.network import (
    Blob,
    Lowering,
    Network,
    UnsupportedError,
    axis_of,
    constant,
    dims_of,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Numbers of BinaryOp's operators and of Reduction's. Source: Tencent/ncnn, src/layer/binaryop.h and reduction.h.
_ADD, _SUB, _MUL, _MAX, _MIN = 0, 1, 2, 4, 5
_LARGEST, _SMALLEST = 4, 5
#: The places that floats count to.
_MOST_PLACES = 2**23
_HUGE = float(np.finfo(np.float32).max)


def _lower_arg(network: Network, node: ir.Node) -> None:
    """The place of the largest value along an axis, as a float: of the places that are no further from it than nothing.

    `behind` is 0 at the largest values and below elsewhere; times the largest number there is, cut at -1, it is 0 or -1
    (but where values differ by a subnormal number). The others' places are moved behind all places, and the first is taken.
    """
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    shape = shape_of(data)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    if network.half or shape[axis] > _MOST_PLACES:
        raise UnsupportedError("places are floats in ncnn, which half precision does not count to")
    dims, place = dims_of(shape), axis_of(data, axis)
    values, last = network.read(data, dims), bool(node.attributes.get_int("select_last_index", 0))
    top = is_standard(node, "ArgMax")
    along: dict[int, Param] = {1: 0, 3: (place,), 4: 1, 5: 1}
    best = network.add_inner("Reduction", (values,), made, {0: _LARGEST if top else _SMALLEST, **along})
    behind = network.add_inner("BinaryOp", (values, best) if top else (best, values), made, {0: _SUB})
    scaled = network.add_inner("BinaryOp", (behind,), made, {0: _MUL, 1: 1, 2: _HUGE})
    marked = network.add_inner("Clip", (scaled,), made, {0: -1.0, 1: 0.0})
    away = float(shape[axis] if last else -shape[axis])
    moved = network.add_inner("BinaryOp", (marked,), made, {0: _MUL, 1: 1, 2: away})
    sizes = tuple(size if at == place else 1 for at, size in enumerate(dims))
    places = network.memory(np.arange(shape[axis], dtype=np.float32), sizes, f"{made.name}:places").name
    counted = network.add_inner("BinaryOp", (moved, places), made, {0: _ADD})
    result = tuple(1 if at == place else size for at, size in enumerate(dims))
    network.add("Reduction", (counted,), made, {0: _LARGEST if last else _SMALLEST, **along}, dims=result)


def _lower_where(network: Network, node: ir.Node) -> None:
    """A constant choice: what is not chosen is bounded by the other side's value from below and from above."""
    chosen, made = constant(node.inputs[0]), node.outputs[0]
    if chosen is None:
        raise UnsupportedError("its condition is computed, ncnn chooses by a constant")
    shape, sides = shape_of(made), []
    for value, kept in ((node.inputs[1], chosen), (node.inputs[2], ~chosen)):
        assert value is not None
        if constant(value) is None:
            if shape_of(value) != shape:
                raise UnsupportedError(f"ncnn cannot choose from {list(shape_of(value))} for {list(shape)}")
            other = constant(node.inputs[2 if value is node.inputs[1] else 1])
            sides.append(_bounded(network, value, made, kept, np.zeros(1) if other is None else other))
    if len(sides) == 1:
        network.name_last(made, sides[0])
        return
    network.add("BinaryOp", [side.name for side in sides], made, {0: _ADD}, dims=sides[0].dims)


def _bounded(network: Network, value: ir.Value, made: ir.Value, kept: np.ndarray, other: np.ndarray) -> Blob:
    """`value` where it is `kept`, else `other`."""
    dims = dims_of(shape_of(value))
    name = network.read(value, dims)
    for operator, free in ((_MAX, -np.inf), (_MIN, np.inf)):
        limits = np.broadcast_to(np.where(kept, np.float32(free), other.astype(np.float32)), shape_of(value))
        bound = network.memory(limits.reshape(dims), dims, f"{made.name}:bound").name
        name = network.add_inner("BinaryOp", (name, bound), made, {0: operator})
    return Blob(name, dims)


LOWERINGS: dict[str, Lowering] = {**dict.fromkeys(("ArgMax", "ArgMin"), _lower_arg), "Where": _lower_where}
