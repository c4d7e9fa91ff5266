"""Layers that change the size of maps: Interp, PixelShuffle, Reorg, ShuffleChannel.

Source: Tencent/ncnn, src/layer/interp.cpp, pixelshuffle.cpp, reorg.cpp and shufflechannel.cpp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.importers.ncnn._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_MODES = {1: "nearest", 2: "linear", 3: "cubic"}
_LARGEST_SCALE = 2**16


def interp(layer: Layer) -> ir.Value:
    """Interp: to a size, by a factor, or to the size of a second blob; a blob of one size is spread out.

    Raises:
        EdgewrightError: E204 for a mode that is not known, E215 for sizes that cannot be.
    """
    mode, factors = layer.integer(0, 0), [layer.number(1, 1.0), layer.number(2, 1.0)]
    target = [layer.integer(3, 0, low=0), layer.integer(4, 0, low=0)]
    follows, aligned = layer.flag(5), layer.flag(6)
    if follows:
        if len(layer.inputs) != 2:
            raise layer.refuse("it takes its size from a second blob, which it does not read")
        target = list(layer.sizes_of(layer.inputs[1])[-2:])
    if len(layer.sizes) not in (1, 2, 3) or len(target) != 2:
        raise layer.unsupported(f"a blob of {len(layer.sizes)} sizes")
    if not all(0 < factor < _LARGEST_SCALE for factor in factors):
        raise layer.refuse(f"its factors are {factors[0]} and {factors[1]}")
    sides = [1, 1] if len(layer.sizes) == 1 else [1, *layer.sizes][-2:]
    fixed = all(target)
    if not fixed:
        target = [int(np.float32(side) * np.float32(factor)) for side, factor in zip(sides, factors, strict=True)]
    if len(layer.sizes) == 1:
        return _spread(layer, target)
    if len(layer.sizes) == 2:
        target[0] = sides[0]  # rows are kept
    if target == sides:
        return layer.x
    if mode not in _MODES:
        raise layer.unsupported(f"mode {mode}")
    return _resized(layer, _MODES[mode], target, None if fixed else factors, aligned)


def _spread(layer: Layer, target: list[int]) -> ir.Value:
    """Every channel's one value at all places."""
    shape = layer.shaped(layer.sizes[0], *target)
    x = layer.reshape(layer.x, layer.sizes[0], 1, 1)
    return layer.graph.node("Tile", x, layer.graph.ints(1, 1, *target), shape=shape)


def _resized(layer: Layer, mode: str, target: list[int], factors: list[float] | None, aligned: bool) -> ir.Value:
    """`target` rows and columns, by the layer's own factors where it has some, which need not be the ratio of the sizes."""
    graph, sizes = layer.graph, layer.sizes
    sides = [1, *sizes][-2:]
    if factors is None:
        factors = [new / old for new, old in zip(target, sides, strict=True)]
    factors = [_reaching(*numbers) for numbers in zip(factors, sides, target, strict=True)]
    x, shape = layer.x, layer.shaped(sizes[0], *target)
    if len(sizes) == 2:  # rows as channels of one line each
        x, factors, shape = (
            layer.reshape(x, sizes[0], 1, sizes[1]),
            [1.0, factors[1]],
            layer.shaped(sizes[0], 1, target[1]),
        )
    scales = np.array([1.0, 1.0, *factors], np.float32)
    where: dict[str, Any] = {"coordinate_transformation_mode": "align_corners" if aligned else "half_pixel"}
    if mode == "nearest":
        where = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif mode == "cubic":
        where["cubic_coeff_a"] = -0.75
    y = graph.node("Resize", x, None, graph.weight("scales", scales), shape=shape, mode=mode, **where)
    return layer.reshape(y, sizes[0], target[1]) if len(sizes) == 2 else y


def _reaching(factor: float, side: int, target: int) -> float:
    """`factor` in single precision, so that `side` times it, rounded down, is `target` however the product is computed."""
    number = np.float32(factor)
    while math.floor(side * float(number)) < target:
        number = np.nextafter(number, np.float32(np.inf))
    return float(number)


def pixel_shuffle(layer: Layer) -> ir.Value:
    """PixelShuffle: channels to places."""
    factor, mode = layer.integer(0, 1, low=1, high=_LARGEST_SCALE), layer.integer(1, 0, low=0, high=1)
    channels, height, width = _three(layer)
    if channels % factor**2:
        raise layer.refuse(f"factor {factor} squared does not divide its {channels} channels")
    shape = layer.shaped(channels // factor**2, height * factor, width * factor)
    return layer.graph.node("DepthToSpace", layer.x, shape=shape, blocksize=factor, mode="DCR" if mode else "CRD")


def reorg(layer: Layer) -> ir.Value:
    """Reorg: places to channels."""
    stride, mode = layer.integer(0, 1, low=1, high=_LARGEST_SCALE), layer.integer(1, 0, low=0, high=1)
    channels, height, width = _three(layer)
    rows, columns = height // stride, width // stride
    sizes = layer.shaped(channels * stride**2, rows, columns)[1:]
    if height % stride or width % stride:
        raise layer.refuse(f"stride {stride} does not divide its map of {height} x {width}")
    if mode:
        shape = layer.shaped(*map(int, sizes))
        return layer.graph.node("SpaceToDepth", layer.x, shape=shape, blocksize=stride)
    apart = layer.reshape(layer.x, channels, rows, stride, columns, stride)
    shape = layer.shaped(channels, stride, stride, rows, columns)
    moved = layer.graph.node("Transpose", apart, shape=shape, perm=[0, 1, 3, 5, 2, 4])
    return layer.reshape(moved, *map(int, sizes))


def shuffle_channel(layer: Layer) -> ir.Value:
    """ShuffleChannel: channel j of group i becomes channel i of group j."""
    groups, back = layer.integer(0, 1, low=1), layer.flag(1)
    channels, height, width = _three(layer)
    if channels % groups:
        raise layer.refuse(f"{groups} groups do not divide its {channels} channels")
    if back:
        groups = channels // groups
    apart = layer.reshape(layer.x, groups, channels // groups, height, width)
    shape = layer.shaped(channels // groups, groups, height, width)
    y = layer.reshape(layer.graph.node("Transpose", apart, shape=shape, perm=[0, 2, 1, 3, 4]), channels, height, width)
    if layer.x in layer.network.positive:
        layer.network.positive.add(y)
    return y


def _three(layer: Layer) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        EdgewrightError: E215 for a blob of other sizes.
    """
    if len(layer.sizes) != 3:
        raise layer.refuse(f"its input has {len(layer.sizes)} sizes, but needs channels, height and width")
    channels, height, width = layer.sizes
    return channels, height, width
