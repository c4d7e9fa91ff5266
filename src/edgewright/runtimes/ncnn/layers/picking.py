"""Operators that take a part of a tensor along an axis: Split, Slice and Gather of constant places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param
from edgewright.runtimes.ncnn.network import (
    Blob,
    Lowering,
    Network,
    UnsupportedError,
    constant,
    dims_of,
    given,
    ints,
    name_of,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: As many runs of neighbours are cut out and joined; more are looked up by a product with ones and zeros of at most this size.
_MOST_RUNS, _LARGEST_TABLE = 16, 2**22


def around(shape: Sequence[int], axis: int, whole: Sequence[int]) -> tuple[int, ...]:
    """Sizes of a blob that has axis `axis` of a tensor of this shape as one of its own; `whole` decides which."""
    if _direct(whole, axis):
        return tuple(shape[len(shape) - len(dims_of(whole)) :])
    return (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def place_of(whole: Sequence[int], axis: int) -> int:
    """Where that axis lies in such a blob."""
    return axis - (len(whole) - len(dims_of(whole))) if _direct(whole, axis) else 1


def _direct(whole: Sequence[int], axis: int) -> bool:
    dropped = len(whole) - len(dims_of(whole))
    return dropped in (0, 1) and math.prod(dims_of(whole)) == math.prod(whole[dropped:]) and axis >= dropped


def _lower_split(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    shape = shape_of(data)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    source, start = network.read(data, around(shape, axis, shape)), 0
    for value in node.outputs:
        if value.uses() or value.is_graph_output():
            size = shape_of(value)[axis]
            crop = _crop(start, start + size, place_of(shape, axis))
            network.add("Crop", (source,), value, crop, dims=around(shape_of(value), axis, shape))
        start += value.shape[axis] if value.shape is not None and isinstance(value.shape[axis], int) else 0


def _crop(start: int, end: int, place: int) -> dict[int, Param]:
    return {9: (start,), 10: (end,), 11: (place,)}


def _lower_slice(network: Network, node: ir.Node) -> None:
    """Axis by axis: Crop, and for steps a Crop in a shape where what is skipped is an axis of its own, and Flip."""
    data = node.inputs[0]
    assert data is not None
    shape = list(shape_of(data))
    starts, ends = ints(node.inputs[1], "starts"), ints(node.inputs[2], "ends")
    axes = ints(node.inputs[3], "axes") if given(node, 3) is not None else list(range(len(starts)))
    steps = ints(node.inputs[4], "steps") if given(node, 4) is not None else [1] * len(starts)
    blob = network.blob(data)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = axis % len(shape)
        picked = range(*slice(start, end, step).indices(shape[place]))
        if step < 0 and end < -shape[place]:  # up to the first, whatever number says so
            picked = range(min(start % shape[place] if start < 0 else start, shape[place] - 1), -1, step)
        blob = _picked(network, node.outputs[0], blob, shape, place, picked)
        shape[place] = len(picked)
    network.name_last(node.outputs[0], blob)


def _picked(network: Network, made: ir.Value, blob: Blob, shape: list[int], axis: int, picked: range) -> Blob:
    """The places `picked` of one axis of a tensor of this shape that lies in `blob`."""
    size, count, step = shape[axis], len(picked), abs(picked.step) if len(picked) > 1 else 1
    first = min(picked[0], picked[-1])
    left, skipped = first, 0
    if step > 1 and first + count * step > size:  # the last group is cut short: begin earlier
        left = first + (count - 1) * step + 1 - count * step
        skipped = step - 1
        if left < 0:
            return _looked_up(network, made, blob, shape, axis, picked)
    if count * step != size:
        dims, place = around(shape, axis, shape), place_of(shape, axis)
        crop = _crop(left, left + count * step, place)
        name = network.add_inner("Crop", (network.reshaped(blob, dims).name,), made, crop)
        blob = Blob(name, tuple(count * step if at == place else length for at, length in enumerate(dims)))
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if step > 1:
        source = network.reshaped(blob, (outer * count, step * inner)).name
        name = network.add_inner("Crop", (source,), made, _crop(skipped * inner, (skipped + 1) * inner, 1))
        blob = Blob(name, (outer * count, inner))
    if picked.step < 0 and count > 1:
        source = network.reshaped(blob, (outer, count, inner)).name
        blob = Blob(network.add_inner("Flip", (source,), made, {0: (1,)}), (outer, count, inner))
    return blob


def _lower_gather(network: Network, node: ir.Node) -> None:
    """Gather of constant places: Crop and Concat of neighbours; of many places, a product with ones and zeros."""
    data, made = node.inputs[0], node.outputs[0]
    indices = constant(given(node, 1))
    assert data is not None
    if indices is None:
        raise UnsupportedError("its indices are computed, ncnn takes constants")
    shape = shape_of(data)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    places = [int(item) % shape[axis] for item in indices.reshape(-1)]
    runs = _runs(places)
    if len(runs) > _MOST_RUNS:
        network.name_last(made, _looked_up(network, made, network.blob(data), shape, axis, places))
        return
    source, where = network.read(data, around(shape, axis, shape)), place_of(shape, axis)
    result = around((*shape[:axis], len(places), *shape[axis + 1 :]), axis, shape)
    crops = [_crop(run[0], run[-1] + 1, where) for run in runs]
    if len(crops) == 1:
        network.add("Crop", (source,), made, crops[0], dims=result)
        return
    names = [network.add_inner("Crop", (source,), made, params) for params in crops]
    network.add("Concat", names, made, {0: where}, dims=result)


def _runs(places: Sequence[int]) -> list[list[int]]:
    """The places as runs of neighbours."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] + 1 == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _looked_up(
    network: Network, made: ir.Value, blob: Blob, shape: Sequence[int], axis: int, places: Sequence[int]
) -> Blob:
    """Values times one, plus others times zero: exact, as long as nothing is infinite."""
    if len(places) * shape[axis] > _LARGEST_TABLE:
        raise UnsupportedError(f"it picks {len(places)} of {shape[axis]} places, ncnn has no look-up")
    table = np.zeros((len(places), shape[axis]), np.float32)
    table[np.arange(len(places)), places] = 1
    picks = network.memory(table, table.shape, f"{name_of(made)}:places").name
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    dims = (shape[axis], inner) if outer == 1 else (outer, shape[axis], inner)
    result = (len(places), inner) if outer == 1 else (outer, len(places), inner)
    return Blob(network.add_inner("MatMul", (picks, network.reshaped(blob, dims).name), made), result)


LOWERINGS: dict[str, Lowering] = {"Gather": _lower_gather, "Slice": _lower_slice, "Split": _lower_split}
