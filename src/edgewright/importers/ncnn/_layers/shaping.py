"""Layers that move, cut, join or count values without computing with them, and sums over axes.

Source: Tencent/ncnn, src/layer/reshape.cpp, permute.cpp, slice.cpp, crop.cpp, padding.cpp, reduction.cpp and others of the
layers' names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import UNSET, Layer, Sizes

if TYPE_CHECKING:
    import onnx_ir as ir

#: Permute's order: what becomes w, h, d and c, innermost first.
_ORDERS = (
    *("WHDC", "HWDC", "WDHC", "DWHC", "HDWC", "DHWC", "WHCD", "HWCD", "WCHD", "CWHD", "HCWD", "CHWD"),
    *("WDCH", "DWCH", "WCDH", "CWDH", "DCWH", "CDWH", "HDCW", "DHCW", "HCDW", "CHDW", "DCHW", "CDHW"),
)

_ORDERS_3 = ("WHC", "HWC", "WCH", "CWH", "HCW", "CHW")
_ORDERS_2 = ("WH", "HW")
_REDUCTIONS = {
    0: "ReduceSum", 1: "ReduceL1", 2: "ReduceSumSquare", 3: "ReduceMean", 4: "ReduceMax", 5: "ReduceMin",
    6: "ReduceProd", 7: "ReduceL1", 8: "ReduceL2", 9: "ReduceLogSum", 10: "ReduceLogSumExp",
}  # fmt: skip
#: Reshape's sign for an axis that is not there.
_NO_BATCH = 233
_PAD_MODES = {0: "constant", 1: "edge", 2: "reflect"}


def flatten(layer: Layer) -> ir.Value:
    """Flatten: one size."""
    return layer.reshape(layer.x, math.prod(layer.sizes))


def reshape(layer: Layer) -> ir.Value:
    """Reshape: 0 keeps a size, -1 stands for what remains.

    Raises:
        EdgewrightError: E204 for a batch among the sizes, E215 where the numbers of values differ.
    """
    w, h, d, c = (layer.integer(key, UNSET) for key in (0, 1, 11, 2))
    if any(layer.integer(key, _NO_BATCH) != _NO_BATCH for key in (12, 13)):
        raise layer.unsupported("a batch among its sizes")
    given = dict(zip("cdhw", _four(layer.sizes), strict=True))
    wanted = {"w": w, "h": h, "d": d, "c": c}
    if c == UNSET:  # as ncnn counts: the first that is not given ends it
        names = "w" if h == UNSET else "hw"
    else:
        names = "chw" if d == UNSET else "cdhw"
    sizes = [given[name] if wanted[name] == 0 else wanted[name] for name in names]
    total, rest = math.prod(layer.sizes), -math.prod(sizes)
    if sizes.count(-1) == 1 and rest > 0 and total % rest == 0:
        sizes[sizes.index(-1)] = total // rest
    if min(sizes) < 1 or math.prod(sizes) != total:
        shape, old = (" x ".join(str(size) for size in part) for part in (sizes, layer.sizes))
        raise layer.refuse(f"its input of {old} cannot become {shape}")
    return _kept(layer, layer.reshape(layer.x, *sizes))


def permute(layer: Layer) -> ir.Value:
    """Permute."""
    rank, order = len(layer.sizes), layer.integer(0, 0)
    orders = {1: ("W",), 2: _ORDERS_2, 3: _ORDERS_3}.get(rank, _ORDERS)
    if not 0 <= order < len(orders):
        raise layer.refuse(f"order {order} of a blob with {rank} sizes")
    axes = {1: "W", 2: "HW", 3: "CHW"}.get(rank, "CDHW")
    taken = [axes.index(letter) for letter in reversed(orders[order])]
    if taken == list(range(rank)):
        return layer.x
    shape = layer.shaped(*(layer.sizes[axis] for axis in taken))
    return _kept(layer, layer.graph.node("Transpose", layer.x, shape=shape, perm=[0, *(axis + 1 for axis in taken)]))


def squeeze(layer: Layer) -> ir.Value:
    """Squeeze: sizes of 1 fall away, those of `axes` or the ones that are marked."""
    rank, axes = len(layer.sizes), layer.integers(3)
    marks = [layer.flag(key) for key in (0, 1, 11, 2)]  # w, h, d, c
    if axes:
        chosen = {layer.as_axis(axis, rank) for axis in axes}
    else:
        places = {1: (0,), 2: (1, 0), 3: (2, 1, -1, 0)}.get(rank, (3, 2, 1, 0))
        chosen = {place for place, mark in zip(places, marks, strict=False) if mark and place >= 0}
    left = [size for axis, size in enumerate(layer.sizes) if axis not in chosen or size != 1]
    return layer.reshape(layer.x, *(left or [1]))


def expand_dims(layer: Layer) -> ir.Value:
    """ExpandDims: new sizes of 1 at `axes` of the result."""
    axes = layer.integers(3)
    rank = len(layer.sizes) + len(axes)
    chosen = {layer.as_axis(axis, rank) for axis in axes}
    if not axes or len(chosen) != len(axes):
        raise layer.refuse("it needs new axes in parameter 3, each once")
    old = iter(layer.sizes)
    return layer.reshape(layer.x, *(1 if axis in chosen else next(old) for axis in range(rank)))


def slices(layer: Layer) -> Sequence[ir.Value]:
    """Slice: an axis cut into as many parts as there are blobs, by sizes (-233: an equal share of the rest) or places."""
    given, axis, places = layer.integers(0), layer.axis(1, 0, len(layer.sizes)), layer.integers(2)
    size, count = layer.sizes[axis], len(layer.line.tops)
    if len(places) < count - 1 if places else len(given) < count:
        raise layer.refuse(f"it makes {count} blobs, but says where to cut for fewer")
    parts, start = [], 0
    for number in range(count):
        if places:
            end = size if number == count - 1 else places[number] + (size if places[number] < 0 else 0)
        else:
            share = (size - start) // (count - number)
            end = start + (share if given[number] == UNSET else given[number])
        if not start < end <= size:
            raise layer.refuse(f"part {number} would be {start} to {end} of an axis of {size}")
        parts.append(_part(layer, layer.x, {axis: (start, end)}))
        start = end
    return parts


def crop(layer: Layer) -> ir.Value:
    """Crop: by starts and ends of axes, by offsets and sizes, or to the size of a second blob.

    Raises:
        EdgewrightError: E215 where nothing is left or a part lies outside.
    """
    sizes, rank = layer.sizes, len(layer.sizes)
    starts, ends, axes = layer.integers(9), layer.integers(10), layer.integers(11)
    offsets = _places(layer, (0, 1, 13, 2), 0)
    after = _places(layer, (6, 7, 15, 8), 0)
    lengths = _places(layer, (3, 4, 14, 5), 0)
    ranges: dict[int, tuple[int, int]] = {}
    if starts:
        axes = axes or tuple(range(rank))
        if not len(starts) == len(ends) == len(axes):
            raise layer.refuse(f"it has {len(starts)} starts, {len(ends)} ends and {len(axes)} axes")
        for start, end, axis in zip(starts, ends, axes, strict=True):
            place = layer.as_axis(axis, rank)
            ranges[place] = _numpy_range(start, end, sizes[place])
    else:
        if len(layer.inputs) == 2:
            lengths = layer.sizes_of(layer.inputs[1])
            lengths = lengths if len(lengths) == rank else (UNSET, *lengths)[-rank:]
        for axis, (offset, behind, length) in enumerate(zip(offsets, after, lengths, strict=True)):
            left = sizes[axis] - offset - behind
            ranges[axis] = (offset, offset + (left if length == UNSET else min(length, left)))
    for axis, (start, end) in ranges.items():
        if not 0 <= start < end <= sizes[axis]:
            raise layer.refuse(f"it keeps {start} to {end} of axis {axis} with {sizes[axis]}")
    return _kept(layer, _part(layer, layer.x, ranges))


def _numpy_range(start: int, end: int, size: int) -> tuple[int, int]:
    """A range as slices of numpy count it, -233 standing for the beginning and the end."""
    first = 0 if start == UNSET else start if start >= 0 else size + start
    last = size if end == UNSET else min(size, end if end > 0 else size + end)
    return first, last


def _places(layer: Layer, keys: Sequence[int], default: int) -> Sizes:
    """Parameters of w, h, d and c, for the sizes that the input has, outermost first."""
    w, h, d, c = (layer.integer(key, default) for key in keys)
    return {1: (w,), 2: (h, w), 3: (c, h, w)}.get(len(layer.sizes), (c, d, h, w))


def _part(layer: Layer, x: ir.Value, ranges: dict[int, tuple[int, int]]) -> ir.Value:
    """Ranges of some axes; those that are whole are left out."""
    sizes = list(layer.sizes_of(x))
    cut = {axis: kept for axis, kept in ranges.items() if kept != (0, sizes[axis])}
    if not cut:
        return x
    for axis, (start, end) in cut.items():
        sizes[axis] = end - start
    graph = layer.graph
    numbers = [graph.ints(*(kept[side] for kept in cut.values())) for side in (0, 1)]
    y = graph.node("Slice", x, *numbers, graph.ints(*(axis + 1 for axis in cut)), shape=layer.shaped(*sizes))
    return _kept(layer, y)


def padding(layer: Layer) -> ir.Value:
    """Padding: with a number, the border's values, or a reflection.

    Raises:
        EdgewrightError: E204 for a number of each channel or pads that another blob says.
    """
    top, bottom, left, right, front, behind = (layer.integer(key, 0) for key in (0, 1, 2, 3, 7, 8))
    mode, value, per_channel = layer.integer(4, 0), layer.number(5, 0.0), layer.integer(6, 0)
    if (
        mode not in _PAD_MODES
        or per_channel
        or len(layer.inputs) > 1
        or min(top, bottom, left, right, front, behind) < 0
    ):
        raise layer.unsupported("padding of this kind")
    sides = {1: [(left, right)], 2: [(top, bottom), (left, right)]}.get(len(layer.sizes))
    if sides is None:
        sides = [(0, 0)] * (len(layer.sizes) - 3) + [(front, behind), (top, bottom), (left, right)]
        if len(layer.sizes) == 4:  # of volumes, depth is padded and not channels
            sides = [(0, 0), (front, behind), (top, bottom), (left, right)]
    if not any(map(any, sides)):
        return layer.x
    if mode == 2 and any(max(pair) >= size for pair, size in zip(sides, layer.sizes, strict=True)):
        raise layer.refuse("it reflects more than its input has")
    return padded(layer, layer.x, sides, value, _PAD_MODES[mode])


def padded(
    layer: Layer, x: ir.Value, sides: Sequence[tuple[int, int]], value: float, mode: str = "constant"
) -> ir.Value:
    """`x` with values before and after each axis but the batch."""
    graph = layer.graph
    shape = layer.shaped(*(size + sum(pair) for size, pair in zip(layer.sizes_of(x), sides, strict=True)))
    pads = graph.ints(0, *(pair[0] for pair in sides), 0, *(pair[1] for pair in sides))
    numbers = [pads, graph.scalar(value)] if mode == "constant" else [pads]
    y = graph.node("Pad", x, *numbers, shape=shape, mode=mode)
    if x in layer.network.positive and value >= 0:
        layer.network.positive.add(y)
    return y


def reduction(layer: Layer) -> ir.Value:
    """Reduction: over all or some axes, then times a number.

    Raises:
        EdgewrightError: E204 for an operation that is not known.
    """
    kind, whole, factor = layer.integer(0, 0), layer.flag(1, True), layer.number(2, 1.0)
    given, keep, rank, graph = layer.integers(3), layer.flag(4), len(layer.sizes), layer.graph
    if not layer.flag(5) and given and not whole:
        layer.warn(
            "its axes are of a file from before 2023, which ncnn itself refuses; they are taken as counting a batch"
        )
        given = tuple(axis - 1 if axis > 0 else axis for axis in given)
    if kind not in _REDUCTIONS:
        raise layer.unsupported(f"operation {kind}")
    axes = list(range(rank)) if whole or not given else sorted({layer.as_axis(axis, rank) for axis in given})
    kept = [1 if axis in axes else size for axis, size in enumerate(layer.sizes)]
    y = graph.node(
        _REDUCTIONS[kind], layer.x, graph.ints(*(axis + 1 for axis in axes)), shape=layer.shaped(*kept), keepdims=1
    )
    if factor != 1:
        y = graph.node("Mul", y, graph.scalar(factor))
    if keep:
        return y
    left = [size for axis, size in enumerate(layer.sizes) if axis not in axes]
    return layer.reshape(y, *(left or [1]))


def tile(layer: Layer) -> ir.Value:
    """Tile: an axis repeated, or all of them by `repeats`, which may add outer axes."""
    axis, times, repeats = layer.integer(0, 0), layer.integer(1, 1, low=1), layer.integers(2)
    sizes = layer.sizes
    if not repeats:
        repeats = tuple(times if place == layer.as_axis(axis, len(sizes)) else 1 for place in range(len(sizes)))
    repeats = (1,) * (len(sizes) - len(repeats)) + repeats
    sizes = (1,) * (len(repeats) - len(sizes)) + sizes
    if min(repeats) < 1 or len(repeats) > 4:
        raise layer.refuse(f"it repeats {repeats} times")
    shape = layer.shaped(*(size * number for size, number in zip(sizes, repeats, strict=True)))
    x = layer.reshape(layer.x, *sizes)
    return layer.graph.node("Tile", x, layer.graph.ints(1, *repeats), shape=shape)


def cumulative_sum(layer: Layer) -> ir.Value:
    """CumulativeSum."""
    axis = layer.graph.weight("axis", np.array(layer.axis(0, 0, len(layer.sizes)) + 1, np.int64))
    return layer.graph.node("CumSum", layer.x, axis)


def glu(layer: Layer) -> ir.Value:
    """GLU: the first half of an axis times the sigmoid of the second."""
    axis = layer.axis(0, 0, len(layer.sizes))
    size = layer.sizes[axis]
    if size % 2:
        raise layer.refuse(f"axis {axis} of {size} cannot be halved")
    first, second = (_part(layer, layer.x, {axis: part}) for part in ((0, size // 2), (size // 2, size)))
    return layer.graph.node("Mul", first, layer.graph.node("Sigmoid", second))


def _four(sizes: Sizes) -> Sizes:
    """c, d, h and w of a blob, 1 where it has none."""
    w = sizes[-1]
    h = sizes[-2] if len(sizes) > 1 else 1
    d = sizes[1] if len(sizes) == 4 else 1
    return (sizes[0] if len(sizes) > 2 else 1, d, h, w)


def _kept(layer: Layer, y: ir.Value) -> ir.Value:
    """`y`, never below 0 where the input is not: it holds the same values."""
    if layer.x in layer.network.positive:
        layer.network.positive.add(y)
    return y
