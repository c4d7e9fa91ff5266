"""Operators that move values: shapes, orders of axes, joining, cutting, repeating."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from edgewright.formats.ncnn.writing import Param
from edgewright.runtimes.ncnn.layers.picking import around, place_of
from edgewright.runtimes.ncnn.network import (
    Blob,
    Lowering,
    Network,
    UnsupportedError,
    axis_of,
    constant,
    dims_of,
    given,
    ints,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: ncnn's orders of axes by number: which axis of the input each axis of the result is, innermost first.
#: Source: Tencent/ncnn, docs/developer-guide/operators.md, Permute.
_ORDERS = {
    2: ("wh", "hw"),
    3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: (
        *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
        *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
    ),
}
_LETTERS = {2: "hw", 3: "chw", 4: "cdhw"}
_CONSTANT_PAD, _EDGE_PAD, _REFLECT_PAD = 0, 1, 2


def _lower_reinterpret(network: Network, node: ir.Node) -> None:
    """What changes the shape alone: a blob holds values in order, so nothing needs to be done."""
    data = node.inputs[0]
    assert data is not None
    shape_of(node.outputs[0])
    network.alias(node.outputs[0], network.blob(data))


def _lower_transpose(network: Network, node: ir.Node) -> None:
    """Permute over as few axes as there are: those that stay together are one, those of size 1 are none."""
    data = node.inputs[0]
    assert data is not None
    shape = shape_of(data)
    order = list(node.attributes.get_ints("perm", list(range(len(shape)))[::-1]))
    sizes, order = _merged(shape, order)
    if order == sorted(order):
        network.alias(node.outputs[0], network.blob(data))
        return
    if len(sizes) not in _ORDERS:
        _one_by_one(network, data, node.outputs[0], sizes, order)
        return
    made = tuple(sizes[axis] for axis in order)
    network.add("Permute", (network.read(data, sizes),), node.outputs[0], {0: _order(order)}, dims=made)


def _order(order: list[int]) -> int:
    letters = "".join(_LETTERS[len(order)][axis] for axis in order)[::-1]
    return _ORDERS[len(order)].index(letters)


def _one_by_one(network: Network, data: ir.Value, made: ir.Value, sizes: tuple[int, ...], order: list[int]) -> None:
    """Bring one axis after the other to its place; those before it, those it passes and those after it are one each."""
    blob, now = network.blob(data), list(range(len(sizes)))
    for place, axis in enumerate(order):
        at = now.index(axis)
        if at == place:
            continue
        parts = (now[:place], now[place:at], [axis], now[at + 1 :])
        dims = tuple(math.prod(sizes[item] for item in part) for part in parts)
        now = [*now[:place], axis, *now[place:at], *now[at + 1 :]]
        name = network.add_inner("Permute", (network.reshaped(blob, dims).name,), made, {0: _order([0, 2, 1, 3])})
        blob = Blob(name, (dims[0], dims[2], dims[1], dims[3]))
    network.name_last(made, blob)


def _merged(shape: tuple[int, ...], order: list[int]) -> tuple[tuple[int, ...], list[int]]:
    """Sizes and order of axes, without axes of size 1 and with neighbours that stay neighbours as one axis."""
    order = [axis for axis in order if shape[axis] != 1]
    groups: list[list[int]] = []
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    after = dict(itertools.pairwise(kept))
    for axis in order:
        if groups and after.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    places = sorted(range(len(groups)), key=lambda number: groups[number][0])
    sizes = tuple(math.prod(shape[axis] for axis in groups[number]) for number in places)
    return sizes, [places.index(number) for number in range(len(groups))]


def _lower_concat(network: Network, node: ir.Node) -> None:
    made = node.outputs[0]
    shape = shape_of(made)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    values = [value for value in node.inputs if value is not None]
    dims = [around(shape_of(value), axis, shape) for value in values]
    names = [network.read(value, sizes) for value, sizes in zip(values, dims, strict=True)]
    result = around(shape, axis, shape)
    if len(names) == 1:
        network.alias(made, network.blob(values[0]))
        return
    network.add("Concat", names, made, {0: place_of(shape, axis)}, dims=result)


def _lower_pad(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    shape, mode = shape_of(data), node.attributes.get_string("mode", "constant")
    axes = ints(node.inputs[3], "axes") if given(node, 3) is not None else list(range(len(shape)))
    amounts = ints(node.inputs[1], "pads")
    pads = {
        axis % len(shape): (before, after)
        for axis, before, after in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True)
        if before or after
    }
    kinds = {"constant": _CONSTANT_PAD, "edge": _EDGE_PAD, "reflect": _REFLECT_PAD}
    filling = constant(given(node, 2))
    if mode not in kinds or (given(node, 2) is not None and filling is None):
        raise UnsupportedError(
            f"ncnn pads by a constant, the edge or a reflection, not by `{mode}` or by what is computed"
        )
    if any(min(amount) < 0 for amount in pads.values()):
        raise UnsupportedError("it cuts, ncnn only pads")
    dims = dims_of(shape)
    numbers = {1: ((2, 3),), 2: ((0, 1), (2, 3)), 3: ((7, 8), (0, 1), (2, 3))}.get(len(dims))
    if numbers is None:
        raise UnsupportedError("ncnn pads three axes at most")
    params: dict[int, Param] = {4: kinds[mode], 5: 0.0 if filling is None else float(filling.reshape(()))}
    for axis, amount in pads.items():
        place = axis_of(data, axis)
        if place == 0 and len(dims) == 3 and mode != "constant":
            raise UnsupportedError("ncnn pads channels by a constant only")
        params |= dict(zip(numbers[place], amount, strict=True))
    network.add("Padding", (network.read(data),), node.outputs[0], params)


def _lower_tile(network: Network, node: ir.Node) -> None:
    """Tile and Expand: every axis a number of times."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    result = shape_of(made)
    shape = (1,) * (len(result) - len(shape_of(data))) + shape_of(data)
    repeats = [after // before for before, after in zip(shape, result, strict=True)]
    if all(count == 1 for count in repeats):
        network.alias(made, network.blob(data))
        return
    dims = dims_of(result)
    dropped = len(result) - len(dims)
    if math.prod(shape[:dropped]) != 1 or len(shape[dropped:]) != len(dims):
        raise UnsupportedError(f"ncnn cannot repeat {list(shape)} to {list(result)}")
    network.add("Tile", (network.read(data, shape[dropped:]),), made, {2: repeats[dropped:]})


def _lower_depth_to_space(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    mode = int(node.attributes.get_string("mode", "DCR") == "DCR")
    network.add("PixelShuffle", (_planes(network, data),), node.outputs[0], {0: _block(node), 1: mode})


def _lower_space_to_depth(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    network.add("Reorg", (_planes(network, data),), node.outputs[0], {0: _block(node), 1: 1})


def _block(node: ir.Node) -> int:
    size: int = node.attributes.get_int("blocksize", 1)
    return size


def _planes(network: Network, data: ir.Value) -> str:
    if shape_of(data)[0] != 1:
        raise UnsupportedError(f"ncnn takes one sample, not {list(shape_of(data))}")
    return network.read(data)


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _lower_reinterpret),
    **dict.fromkeys(("Expand", "Tile"), _lower_tile),
    "Concat": _lower_concat,
    "DepthToSpace": _lower_depth_to_space,
    "Pad": _lower_pad,
    "SpaceToDepth": _lower_space_to_depth,
    "Transpose": _lower_transpose,
}
