"""Resize: where ncnn's two ways of sampling are those that the network asks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.ncnn.network import Network, UnsupportedError, given, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

_NEAREST, _LINEAR = 1, 2


def _lower_resize(network: Network, node: ir.Node) -> None:
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    shape, result = shape_of(data), shape_of(made)
    if len(shape) != 4 or shape[:2] != result[:2] or shape[0] != 1:
        raise UnsupportedError(f"ncnn resizes two spatial axes of one sample, not {list(shape)} to {list(result)}")
    mode = node.attributes.get_string("mode", "nearest")
    place = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    params = {0: _NEAREST if mode == "nearest" else _LINEAR, 3: result[2], 4: result[3]}
    if node.attributes.get_int("antialias", 0) or node.attributes.get_int("exclude_outside", 0):
        raise UnsupportedError("ncnn resizes without anti-aliasing")
    if mode == "nearest":
        _require_same_places(node, place, shape[2:], result[2:])
    elif mode == "linear" and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if place == "pytorch_half_pixel" and 1 in result[2:]:
            raise UnsupportedError("ncnn places a single result elsewhere")
        _require_exact_scale(node, shape, result)
        params[6] = int(place == "align_corners")
    else:
        raise UnsupportedError(f"ncnn has no `{mode}` resize with coordinates `{place}`")
    network.add("Interp", (network.read(data),), made, params)


def _require_exact_scale(node: ir.Node, shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    """ncnn computes the scale from the sizes, ONNX takes that which is given."""
    for size, made, scale in zip(shape, result, _scales(node, shape, result), strict=True):
        if abs(scale * size - made) > 1e-4 * made:
            raise UnsupportedError(f"its scale {scale} is not that of the sizes, {made} / {size}")


def _require_same_places(node: ir.Node, place: str, sizes: tuple[int, ...], result: tuple[int, ...]) -> None:
    """ncnn takes the value at the rounded-down place; refuse where the network asks for another one."""
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    scales = _scales(node, (1, 1, *sizes), (1, 1, *result))[2:]
    for size, made, scale in zip(sizes, result, scales, strict=True):
        for index in range(made):
            wanted = min(max(_rounded(_source(index, size, made, scale, place), rounding), 0), size - 1)
            if wanted != min(math.floor(index * (size / made)), size - 1):
                raise UnsupportedError(
                    f"ncnn has no `nearest` resize with coordinates `{place}` and rounding `{rounding}`"
                )


def _source(index: int, size: int, made: int, scale: float, place: str) -> float:
    """Where in the input a place of the result lies. Source: the ONNX operator Resize."""
    if place == "asymmetric":
        return index / scale
    if place == "align_corners":
        return index * (size - 1) / (made - 1) if made > 1 else 0.0
    if place in ("half_pixel", "pytorch_half_pixel"):
        return (index + 0.5) / scale - 0.5 if made > 1 or place == "half_pixel" else 0.0
    raise UnsupportedError(f"ncnn has no coordinates `{place}`")


def _rounded(place: float, rounding: str) -> int:
    if rounding == "floor":
        return math.floor(place)
    if rounding == "ceil":
        return math.ceil(place)
    return math.ceil(place - 0.5) if rounding == "round_prefer_floor" else math.floor(place + 0.5)


def _scales(node: ir.Node, shape: tuple[int, ...], result: tuple[int, ...]) -> list[float]:
    array = constant_array(given(node, 2))
    if array is None or array.size != len(shape):
        return [made / size for size, made in zip(shape, result, strict=True)]
    return [float(item) for item in array]


LOWERINGS = {"Resize": _lower_resize}
