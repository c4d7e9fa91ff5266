"""Resize: LiteRT's own operators where they mean the same places, else neighbours gathered and weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import Held, sizes_of
from edgewright.runtimes.litert.layouts import NHWC, Batch
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule

if TYPE_CHECKING:
    import onnx_ir as ir

_F = np.float32


@dataclass(frozen=True)
class Axis:
    """How one axis is resampled: output i is the sum over j of weights[j, i] x[places[j, i]]."""

    places: np.ndarray
    weights: np.ndarray


@rule("Resize")
def resize(lowering: Lowering, node: ir.Node) -> None:
    """One operator for an image, where places agree with those of LiteRT; else axis after axis."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    held = lowering.raw(data) if node.attributes.get_string("mode", "nearest") == "nearest" else lowering.get(data)
    sizes, wanted = held.sizes, lowering.sizes(made)
    changed = [axis for axis, (a, b) in enumerate(zip(sizes, wanted, strict=True)) if a != b]
    if node.attributes.get_int("antialias", 0):
        raise Refused("LiteRT does not antialias")
    if any(isinstance(wanted[axis], Batch) for axis in changed):
        raise Refused("it resizes the batch")
    scales = _scales(lowering, node, sizes, wanted)
    axes = {axis: _axis(node, sizes[axis], wanted[axis], scales[axis]) for axis in changed}
    operator = _own_operator(node, sizes, wanted, axes) if len(sizes) == 4 and set(changed) <= {2, 3} else None
    if operator is not None:
        kind, options = operator
        tensor = lowering.ordered(held, NHWC)
        target = lowering.array(np.array(wanted[2:], np.int32), "size")
        full = (sizes_of(tensor)[0], wanted[2], wanted[3], wanted[1])
        lowering.hold(made, lowering.op(kind, [tensor, target], full, version=3, **options), NHWC)
        return
    tensor = held.tensor
    for axis, found in axes.items():
        tensor = _resampled(lowering, Held(tensor, held.order), axis, found)
    lowering.hold(made, tensor, held.order)


def _scales(lowering: Lowering, node: ir.Node, sizes: tuple[int, ...], wanted: tuple[int, ...]) -> list[np.float32]:
    """Factor of each axis, as the operator is given it."""
    axes = node.attributes.get_ints("axes", list(range(len(sizes))))
    value = node.inputs[2] if len(node.inputs) > 2 else None
    found = [_F(b) / _F(a) for a, b in zip(sizes, wanted, strict=True)]
    given = None if value is None else lowering.required(value, "scales")
    if given is not None and given.size:
        for axis, factor in zip(axes, given, strict=True):
            found[axis % len(sizes)] = _F(factor)
    elif node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("it keeps an aspect ratio")
    return found


def _axis(node: ir.Node, length: int, size: int, scale: np.float32) -> Axis:
    """Source: ONNX operator specification, Resize; coordinates in float32, as frameworks compute them."""
    mode = node.attributes.get_string("mode", "nearest")
    points = _points(node.attributes.get_string("coordinate_transformation_mode", "half_pixel"), length, size, scale)
    if mode == "nearest":
        places = _nearest(points, node.attributes.get_string("nearest_mode", "round_prefer_floor"))
        return Axis(np.clip(places, 0, length - 1)[None], np.ones((1, size), _F))
    low = np.floor(points)
    share = points - low
    offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    weights = np.stack([1 - share, share]) if mode == "linear" else _cubic(share, node)
    places = np.stack([low.astype(np.int64) + offset for offset in offsets])
    if node.attributes.get_int("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < length), weights, 0)
        weights = weights / weights.sum(axis=0)
    return Axis(np.clip(places, 0, length - 1), weights.astype(_F))


def _points(mode: str, length: int, size: int, scale: np.float32) -> np.ndarray:
    at = np.arange(size, dtype=_F)
    half = (at + _F(0.5)) / scale - _F(0.5)
    if mode == "pytorch_half_pixel" and size == 1:
        return np.zeros(1, _F)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return half
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * _F(length - 1) / _F(size - 1) if size > 1 else np.zeros(1, _F)
    if mode == "half_pixel_symmetric":
        return _F(length) / _F(2) * (1 - _F(size) / (scale * _F(length))) + half
    raise Refused(f"coordinates by `{mode}` are not known here")


def _nearest(points: np.ndarray, mode: str) -> np.ndarray:
    raised = {"round_prefer_floor": points - _F(0.5), "round_prefer_ceil": points + _F(0.5)}.get(mode, points)
    found: np.ndarray = np.ceil(raised) if mode in ("round_prefer_floor", "ceil") else np.floor(raised)
    return found.astype(np.int64)


def _cubic(share: np.ndarray, node: ir.Node) -> np.ndarray:
    """Weights of four neighbours, f32[4, size]. Source: Keys 1981."""
    a = node.attributes.get_float("cubic_coeff_a", -0.75)
    weights = []
    for distance in (share + 1, share, 1 - share, 2 - share):
        near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights.append(np.where(distance <= 1, near, far))
    return np.stack(weights)


def _own_operator(
    node: ir.Node, sizes: tuple[int, ...], wanted: tuple[int, ...], axes: dict[int, Axis]
) -> tuple[str, dict[str, Any]] | None:
    """The operator of LiteRT, with its options, that takes the same places with the same weights.

    Source: tensorflow/lite/kernels/internal/reference/resize_bilinear.h and resize_nearest_neighbor.h.
    """
    mode = node.attributes.get_string("mode", "nearest")
    if mode not in ("nearest", "linear") or not axes:
        return None
    for corners, centres in ((False, True), (False, False), (True, False)):
        if all(_agrees(mode, sizes[axis], wanted[axis], found, corners, centres) for axis, found in axes.items()):
            kind = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
            return kind, {"alignCorners": corners, "halfPixelCenters": centres}
    return None


def _agrees(mode: str, length: int, size: int, found: Axis, corners: bool, centres: bool) -> bool:
    at = np.arange(size, dtype=_F)
    step = _F(length - 1) / _F(size - 1) if corners and size > 1 else _F(length) / _F(size)
    if mode == "nearest":
        points = (at + _F(0.5 if centres else 0)) * step
        places = np.floor(points + _F(0.5)) if corners else np.floor(points)
        return np.array_equal(np.clip(places, 0, length - 1), found.places[0])
    points = (at + _F(0.5)) * step - _F(0.5) if centres else at * step
    return bool(np.allclose(np.clip(points, 0, length - 1), _position(found, length), rtol=0, atol=1e-5 * length))


def _position(found: Axis, length: int) -> np.ndarray:
    position: np.ndarray = (found.places * found.weights).sum(axis=0)
    return position


def _resampled(lowering: Lowering, held: Held, axis: int, found: Axis) -> Tensor:
    place = held.order.index(axis)
    sizes = [*sizes_of(held.tensor)]
    sizes[place] = found.places.shape[1]
    shape = [1] * len(sizes)
    shape[place] = -1
    total: Tensor | None = None
    for places, weights in zip(found.places, found.weights, strict=True):
        part = lowering.op("GATHER", [held.tensor, lowering.array(places.astype(np.int32))], sizes, axis=place)
        if len(found.places) > 1:
            part = lowering.op("MUL", [part, lowering.array(weights.reshape(shape))], sizes)
        total = part if total is None else lowering.op("ADD", [total, part], sizes)
    assert total is not None
    return total
