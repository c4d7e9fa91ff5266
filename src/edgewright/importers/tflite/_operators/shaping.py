"""Operators that move values about without computing: shapes, orders, joining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.tflite._graph import Size
from edgewright.importers.tflite._network import TO_FILE, TO_NCHW, Layout, Shuffle, moved
from edgewright.importers.tflite._site import Site

if TYPE_CHECKING:
    import onnx_ir as ir


def reshape(site: Site) -> None:
    """RESHAPE: the target is an input or, in old files, an option."""
    target = site.network.array(site.index(1)) if site.has(1) else np.array(site.option("new_shape", ()), np.int64)
    if target is not None:
        _reshape(site, [int(size) for size in target.reshape(-1)])
        return
    # Computed at run time: what the file knows of the result says all but one size.
    known = site.network.file.tensors[site.operator.outputs[0]].signature if site.operator.outputs else ()
    if known and sum(size < 0 for size in known) == 1:
        _reshape(site, list(known))
        return
    site.done(site.graph.node("Reshape", site.real(0), site.indices(1)))


def squeeze(site: Site) -> None:
    """SQUEEZE: the axes of an option, or all of size 1."""
    sizes = site.shape(0)
    axes = [site.axis(axis, len(sizes)) for axis in site.option("squeeze_dims", ())]
    axes = axes or [axis for axis, size in enumerate(sizes) if size == 1]
    if any(isinstance(sizes[axis], int) and sizes[axis] != 1 for axis in axes):
        raise site.refuse(f"axes {axes} of {list(sizes)} are not all 1")
    if not _taken_back(site, [size for axis, size in enumerate(sizes) if axis not in axes]):
        site.done(site.graph.node("Squeeze", site.real(0), site.graph.numbers(axes)))


def expand_dims(site: Site) -> None:
    """EXPAND_DIMS: a new axis of size 1."""
    sizes = list(site.shape(0))
    axis = site.axis(site.integer(1), len(sizes) + 1)
    sizes.insert(axis, 1)
    if not _taken_back(site, sizes):
        site.done(site.graph.node("Unsqueeze", site.real(0), site.graph.numbers([axis])))


def transpose(site: Site) -> None:
    """TRANSPOSE; between the layouts of images nothing is moved."""
    perm = site.integers(1)
    if sorted(perm) != list(range(site.rank())):
        raise site.refuse(f"{perm} is no order of {site.rank()} axes")
    if tuple(perm) == TO_FILE:
        site.done(site.real(0), "nchw")
    elif tuple(perm) == TO_NCHW and site.network.prefers_nchw(site.index(0)):
        site.done(site.real(0, "nchw"))
    else:
        shuffle = site.network.shuffles.get(site.index(0))
        if perm == [0, 1, 2, 4, 3] and shuffle and not shuffle.swapped:
            site.network.shuffles[site.operator.outputs[0]] = replace(shuffle, swapped=True)
        site.done(moved(site.graph, site.real(0), perm))


def concatenation(site: Site) -> None:
    """CONCATENATION."""
    numbers = [number for number in range(site.count) if site.has(number)]
    if not numbers:
        raise site.refuse("it has no input")
    layout = site.layout(*numbers)
    axis = site.axis(int(site.option("axis")), site.rank(numbers[0]))
    values = [site.real(number, layout) for number in numbers]
    site.done(site.graph.node("Concat", *values, axis=site.place(axis, layout)), layout)


def pack(site: Site) -> None:
    """PACK: side by side along a new axis."""
    if not site.count:
        raise site.refuse("it has no input")
    axis = site.axis(int(site.option("axis")), site.rank() + 1)
    where = site.graph.numbers([axis])
    wide = [site.graph.node("Unsqueeze", site.real(number), where) for number in range(site.count)]
    site.done(site.graph.node("Concat", *wide, axis=axis))


def unpack(site: Site) -> None:
    """UNPACK: every slice of an axis for itself."""
    axis = site.axis(int(site.option("axis")), site.rank())
    count = len(site.operator.outputs)
    if site.shape()[axis] != count:
        raise site.refuse(f"axis {axis} has size {site.shape()[axis]}, but there are {count} outputs")
    parts = _split(site, site.real(0), [1] * count, axis)
    for number, part in enumerate(parts):
        site.done(site.graph.node("Squeeze", part, site.graph.numbers([axis])), output=number)


def split(site: Site) -> None:
    """SPLIT into equal parts; the axis is the first input."""
    axis, count = site.axis(site.integer(0), site.rank(1)), len(site.operator.outputs)
    size = site.shape(1)[axis]
    if not isinstance(size, int) or count < 1 or size % count:
        raise site.refuse(f"axis {axis} of size {size} has no {count} equal parts")
    _part(site, 1, [size // count] * count, axis)


def split_v(site: Site) -> None:
    """SPLIT_V into parts of given sizes, of which one may be -1: the rest."""
    axis, sizes = site.axis(site.integer(2), site.rank(0)), site.integers(1)
    whole = site.shape(0)[axis]
    if sizes.count(-1) == 1 and isinstance(whole, int):
        sizes[sizes.index(-1)] = whole - sum(sizes) - 1
    if len(sizes) != len(site.operator.outputs) or any(size < 0 for size in sizes) or sum(sizes) != whole:
        raise site.refuse(f"parts of {sizes} do not make up axis {axis} of size {whole}")
    _part(site, 0, sizes, axis)


def tile(site: Site) -> None:
    """TILE."""
    site.done(site.graph.node("Tile", site.real(0), site.indices(1)))


def broadcast_to(site: Site) -> None:
    """BROADCAST_TO."""
    site.done(site.graph.node("Expand", site.real(0), site.indices(1)))


def fill(site: Site) -> None:
    """FILL: one value everywhere; the shape is the first input."""
    site.done(site.graph.node("Expand", site.real(1), site.indices(0)))


def arrange(site: Site) -> None:
    """RANGE: from start to limit by delta."""
    start, limit, delta = (site.real(number) for number in range(3))
    step = site.graph.array(delta)
    if step is not None and not np.all(step):
        raise site.refuse("its step is 0")
    if any(value.shape is None or len(value.shape) for value in (start, limit, delta)):
        start, limit, delta = (site.graph.node("Squeeze", value) for value in (start, limit, delta))
    site.done(site.graph.node("Range", start, limit, delta))


def shape(site: Site) -> None:
    """SHAPE, as a constant where every size is known."""
    sizes, kind = site.shape(0), site.dtype("out_type") if site.option("out_type", 2) else 6
    if all(isinstance(size, int) for size in sizes):
        made = site.graph.numbers([int(size or 0) for size in sizes])
    else:
        made = site.graph.node("Shape", site.real(0))
    site.done(site.graph.node("Cast", made, to=kind))


def rank(site: Site) -> None:
    """RANK: the number of axes."""
    site.done(site.graph.numbers(site.rank(), np.int32))


def pad(site: Site) -> None:
    """PAD and PADV2: a border of zeros, or of one value."""
    value = None
    if site.has(2):
        array = site.network.real_array(site.index(2))
        if array is None or array.size != 1:
            raise site.refuse(f"{site.describe(2)} must be one constant value", "E209")
        value = site.graph.numbers(array.reshape(()), array.dtype)
    _pad(site, value, "constant")


def mirror_pad(site: Site) -> None:
    """MIRROR_PAD; SYMMETRIC repeats the edge, which ONNX has for a border of one value only."""
    mode = site.option("mode")
    if mode not in (0, 1):
        raise site.refuse(f"option `mode` is {mode}")
    if mode == 1 and max(site.integers(1), default=0) > 1:
        raise site.refuse("a border that repeats the edge, wider than 1, has no form in ONNX", "E204")
    _pad(site, None, "edge" if mode else "reflect")


def _pad(site: Site, value: ir.Value | None, mode: str) -> None:
    widths = site.array(1)
    if widths.shape != (site.rank(), 2) or widths.dtype.kind != "i" or (widths < 0).any() or (widths > 2**20).any():
        raise site.refuse(f"{site.describe(1)} is no pair of widths for each of {site.rank()} axes")
    layout = site.layout(0)
    order = TO_NCHW if layout == "nchw" else range(site.rank())
    pads = np.array([widths[axis] for axis in order], np.int64).reshape(-1, 2).T.reshape(-1)
    given = () if value is None else (value,)
    site.done(site.graph.node("Pad", site.real(0, layout), site.graph.numbers(pads), *given, mode=mode), layout)


def _part(site: Site, number: int, sizes: Sequence[int], axis: int) -> None:
    layout = site.layout(number)
    for output, part in enumerate(_split(site, site.real(number, layout), sizes, site.place(axis, layout))):
        site.done(part, layout, output=output)


def _split(site: Site, value: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
    if len(sizes) == 1:
        return [value]
    return site.graph.nodes("Split", value, site.graph.numbers(sizes), outputs=len(sizes), axis=axis)


def _reshape(site: Site, target: list[int]) -> None:
    """Reshape to constant sizes, of which one may be -1: the rest."""
    sizes = site.shape(0)
    if any(size < -1 or size == 0 for size in target) or target.count(-1) > 1 or len(target) > 16:
        raise site.refuse(f"the new shape {target} is none")
    whole = _product(sizes)
    if whole is not None:
        rest = abs(math.prod(target))
        if whole % rest or (whole != rest and -1 not in target):
            raise site.refuse(f"{list(sizes)} cannot take the shape {target}")
        target = [whole // rest if size == -1 else size for size in target]
    if _taken_back(site, target) or _shuffled(site, target):
        return
    if sizes and target and target[0] == -1 and _product(sizes[1:]) == _product(target[1:]):
        target[0] = 0  # the batch, whatever its size
    site.done(site.graph.node("Reshape", site.real(0), site.graph.numbers(target)))


def _shuffled(site: Site, target: list[int]) -> bool:
    """True where the result is an image whose channels were put in groups and shuffled: done with channels first.

    The operators before, which do it with channels last, then lead to no output and are left out.
    """
    index, network, sizes = site.index(0), site.network, site.shape(0)
    if len(sizes) == 4 and len(target) == 5 and network.prefers_nchw(index) and tuple(target[1:3]) == sizes[1:3]:
        if site.operator.outputs and target[3] * target[4] == sizes[3]:
            network.shuffles[site.operator.outputs[0]] = Shuffle(index, target[3])
        return False
    shuffle = network.shuffles.get(index)
    image = network.shape(shuffle.index) if shuffle else None
    if shuffle is None or image is None or not shuffle.swapped or tuple(target[1:]) != image[1:]:
        return False
    height, width, channels = target[1:]
    wide = [0, shuffle.groups, channels // shuffle.groups, height, width]
    value = site.graph.node("Reshape", network.real(shuffle.index, "nchw"), site.graph.numbers(wide))
    value = site.graph.node("Transpose", value, perm=[0, 2, 1, 3, 4])
    site.done(site.graph.node("Reshape", value, site.graph.numbers([0, channels, height, width])), "nchw")
    return True


def _taken_back(site: Site, sizes: Sequence[Size]) -> bool:
    """True where the result has the shape of a tensor that the input was made of by reshaping alone: it is that one, an
    image then stays an image. Converters wrap each layer over a sequence in such a pair."""
    index = site.index(0)
    network = site.network
    if site.operator.outputs:
        network.reshaped[site.operator.outputs[0]] = index
    while index in network.reshaped:
        index = network.reshaped[index]
        known = network.shape(index)
        if known is not None and None not in known and tuple(known) == tuple(sizes):
            layout: Layout = "nchw" if network.prefers_nchw(index) else "file"
            site.done(network.real(index, layout), layout)
            return True
    return False


def _product(sizes: Sequence[Size]) -> int | None:
    """How many values; None where a size is not known."""
    known = [size for size in sizes if isinstance(size, int) and size >= 0]
    return math.prod(known) if len(known) == len(sizes) else None
