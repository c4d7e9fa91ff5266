"""Operators that take parts: slices, gathering, the largest values.

Source: tensorflow/lite/kernels/strided_slice.cc, slice.cc, gather.cc; for the masks, TensorFlow's documentation of
tf.strided_slice.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.importers.tflite._site import Site

_END = 2**31 - 1


@dataclass(frozen=True)
class _Range:
    """Part of one axis."""

    axis: int
    start: int
    stop: int
    step: int


def slice_(site: Site) -> None:
    """SLICE: from `begin`, `size` values, -1 for all that are left."""
    if site.network.array(site.index(1)) is None or site.network.array(site.index(2)) is None:
        starts, sizes = site.indices(1), site.indices(2)
        axes = site.graph.numbers(list(range(site.rank())))
        stops = site.graph.node("Add", starts, sizes)
        left = site.graph.node("Less", sizes, site.graph.numbers(0))
        stops = site.graph.node("Where", left, site.graph.numbers(_END), stops)
        site.done(site.graph.node("Slice", site.real(0), starts, stops, axes))
        return
    begins, sizes_, rank = site.integers(1), site.integers(2), site.rank()
    if len(begins) != rank or len(sizes_) != rank or min((*begins, 0)) < 0 or min((*sizes_, 0)) < -1:
        raise site.refuse(f"begin {begins} and size {sizes_} are no part of {rank} axes")
    whole = site.shape()
    ranges = [
        _Range(axis, begin, _END if size == -1 else begin + size, 1)
        for axis, (begin, size) in enumerate(zip(begins, sizes_, strict=True))
        if begin or size not in (-1, whole[axis])
    ]
    _slice(site, ranges, [], [])


def strided_slice(site: Site) -> None:
    """STRIDED_SLICE with all its masks."""
    begins, ends, steps = (site.integers(number) for number in (1, 2, 3))
    if not len(begins) == len(ends) == len(steps) <= 16 or 0 in steps:
        raise site.refuse(f"begin {begins}, end {ends} and strides {steps} do not fit together")
    if site.option("offset"):
        ends = [begin + end for begin, end in zip(begins, ends, strict=True)]
    masks = {name: int(site.option(f"{name}_mask")) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    sizes, axis, ranges, dropped, added, place = site.shape(), 0, [], [], [], 0
    for position, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        bit = 1 << position
        if masks["ellipsis"] & bit:
            later = [1 << number for number in range(position + 1, len(begins))]
            skipped = len(sizes) - axis - sum(not masks["new_axis"] & other for other in later)
            axis, place = axis + max(skipped, 0), place + max(skipped, 0)
        elif masks["new_axis"] & bit:
            added.append(place)
            place += 1
        elif axis >= len(sizes):
            raise site.refuse(f"it slices more than {len(sizes)} axes")
        elif masks["shrink_axis"] & bit:
            ranges.append(_Range(axis, begin, begin + 1 if begin != -1 else _END, 1))
            dropped.append(axis)
            axis += 1
        else:
            start = (0 if step > 0 else _END) if masks["begin"] & bit else begin
            stop = (_END if step > 0 else -_END) if masks["end"] & bit else end
            if (start, step) != (0, 1) or stop not in (_END, sizes[axis]):
                ranges.append(_Range(axis, start, stop, step))
            axis, place = axis + 1, place + 1
    _slice(site, ranges, dropped, added)


def reverse(site: Site) -> None:
    """REVERSE_V2: axes backwards."""
    axes = [site.axis(axis, site.rank()) for axis in site.integers(1)]
    _slice(site, [_Range(axis, _END, -_END, -1) for axis in axes], [], [])


def gather(site: Site) -> None:
    """GATHER along an axis; `batch_dims` axes of the indices go along with those of the values."""
    batch = int(site.option("batch_dims"))
    axis = site.axis(int(site.option("axis")), site.rank())
    if batch == 0:
        site.done(site.graph.node("Gather", site.real(0), site.indices(1), axis=axis))
        return
    batch = batch % max(site.rank(1), 1) if batch < 0 else batch
    if batch != axis or batch >= site.rank(1) + 1:
        raise site.refuse(f"`batch_dims` {batch} with axis {axis} has no form in ONNX", "E204")
    indices = site.graph.node("Unsqueeze", site.indices(1), site.graph.numbers([-1]))
    site.done(site.graph.node("GatherND", site.real(0), indices, batch_dims=batch))


def gather_nd(site: Site) -> None:
    """GATHER_ND: the last axis of the indices counts through the first axes of the values."""
    site.done(site.graph.node("GatherND", site.real(0), site.indices(1)))


def top_k(site: Site) -> None:
    """TOPK_V2: the largest values of the last axis, and where they are."""
    count = site.graph.node("Reshape", site.indices(1), site.graph.numbers([1]))
    values, places = site.graph.nodes("TopK", site.real(0), count, outputs=2)
    site.done(values)
    if len(site.operator.outputs) > 1:
        site.done(site.graph.node("Cast", places, to=6), output=1)


def one_hot(site: Site) -> None:
    """ONE_HOT: indices, depth, the value there and elsewhere; an index below 0 is nowhere, in ONNX it counts from the end."""
    one = site.graph.numbers([1])
    on, off = (site.graph.node("Reshape", site.real(number), one) for number in (2, 3))
    values = site.graph.node("Concat", off, on, axis=0)
    depth = site.graph.node("Reshape", site.indices(1), one)
    indices = site.indices(0)
    below = site.graph.node("Less", indices, site.graph.numbers(0))
    indices = site.graph.node("Where", below, depth, indices)
    site.done(site.graph.node("OneHot", indices, depth, values, axis=int(site.option("axis", -1))))


def where(site: Site) -> None:
    """WHERE: the places that are not zero, a row for each."""
    value = site.real(0)
    site.done(site.graph.node("Transpose", site.graph.node("NonZero", value), perm=[1, 0]))


def _slice(site: Site, ranges: list[_Range], dropped: list[int], added: list[int]) -> None:
    layout = site.layout(0) if not dropped and not added else "file"
    value = site.real(0, layout)
    if ranges:
        axes = [site.place(item.axis, layout) for item in ranges]
        rows = [[item.start for item in ranges], [item.stop for item in ranges], axes, [item.step for item in ranges]]
        value = site.graph.node("Slice", value, *(site.graph.numbers(row) for row in rows))
    if dropped:
        value = site.graph.node("Squeeze", value, site.graph.numbers(dropped))
    if added:
        value = site.graph.node("Unsqueeze", value, site.graph.numbers(added))
    site.done(value, layout)
