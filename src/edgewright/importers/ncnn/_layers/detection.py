"""Layers of single-shot detectors: PriorBox becomes a constant; what decodes boxes is left out.

Source: Tencent/ncnn, src/layer/priorbox.cpp, detectionoutput.cpp, yolodetectionoutput.cpp and yolov3detectionoutput.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import UNSET, Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_MOST_BOXES = 2**18


def cut(layer: Layer) -> Sequence[ir.Value]:
    """DetectionOutput and the like: no standard operator does what they do, so what they would read becomes the output."""
    for key in layer.line.values:
        layer.has(key)
    network = layer.network
    network.gone |= dict.fromkeys(layer.line.tops, layer.line)
    network.cut |= dict.fromkeys(layer.line.bottoms, layer.line)
    names = ", ".join(f"`{name}`" for name in layer.line.bottoms)
    layer.warn(f"boxes are not decoded: the network ends in what this layer reads, {names}")
    return []


def prior_box(layer: Layer) -> ir.Value:
    """PriorBox: boxes around every place of the first blob, as shares of the image, and their variances.

    f32[1, 2, 4 * boxes], or in the older style of MXNet f32[1, 4 * boxes].

    Raises:
        EdgewrightError: E204 for forms that are not known, E215 for sizes that cannot be.
    """
    small, large, ratios = (np.array(layer.numbers(key), np.float32) for key in (0, 1, 2))
    variances = np.array([layer.number(key, default) for key, default in ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2))])
    flip, clip = layer.flag(7, True), layer.flag(8)
    image = [layer.integer(9, 0), layer.integer(10, 0)]
    steps, offset = [layer.number(11, UNSET), layer.number(12, UNSET)], layer.number(13, 0.0)
    if layer.flag(14) or layer.flag(15):
        raise layer.unsupported("the style of mmdetection")
    if len(layer.sizes) != 3 or not small.size or (large.size and large.size != small.size) or (ratios <= 0).any():
        raise layer.refuse("it needs a map, sizes of boxes, and as many larger ones or none")
    if not (np.concatenate([small, large]) > 0).all():
        raise layer.refuse("the sizes of its boxes must be above 0")
    older = len(layer.inputs) == 1 and image == [UNSET, UNSET] and not large.size
    height, width = layer.sizes[1:]
    if height * width * (small.size + large.size + 2 * small.size * ratios.size) > _MOST_BOXES:
        raise layer.refuse(f"it makes more than {_MOST_BOXES} boxes")
    if older:
        boxes = _older(layer, small, ratios, steps, offset)
    else:
        boxes = _boxes(layer, _shapes(small, large, ratios, flip), image, steps, offset)
    if clip:
        boxes = np.clip(boxes, 0, 1)
    rows = [boxes.reshape(-1)] if older else [boxes.reshape(-1), np.tile(variances, boxes.size // 4)]
    array = np.array(rows, np.float32)
    return layer.graph.weight("boxes", array if older else array[np.newaxis])


def _shapes(small: np.ndarray, large: np.ndarray, ratios: np.ndarray, flip: bool) -> np.ndarray:
    """Width and height of every box of one place, in pixels."""
    shapes = []
    for number, size in enumerate(small):
        shapes.append((size, size))
        if large.size:
            shapes.append((np.sqrt(size * large[number]),) * 2)
        for ratio in ratios:
            pair = (size * np.sqrt(ratio), size / np.sqrt(ratio))
            shapes += [pair, pair[::-1]] if flip else [pair]
    return np.array(shapes, np.float32)


def _boxes(layer: Layer, shapes: np.ndarray, image: list[int], steps: list[float], offset: float) -> np.ndarray:
    """f32[height, width, boxes, 4]: left, top, right, bottom."""
    height, width = layer.sizes[1:]
    if UNSET in image:
        if len(layer.inputs) != 2 or len(layer.sizes_of(layer.inputs[1])) < 2:
            raise layer.refuse("it takes the image's size from a second blob, which it does not read")
        sides = layer.sizes_of(layer.inputs[1])[:-3:-1]
        image = [side if size == UNSET else size for size, side in zip(image, sides, strict=True)]
    if min(image) < 1:
        raise layer.refuse(f"its image is {image[0]} x {image[1]}")
    x, y = (
        _centers(count, step if step != UNSET else side / count, offset)
        for count, step, side in zip((width, height), steps, image, strict=True)
    )
    return _around(x, y, shapes, image)


def _older(layer: Layer, sizes: np.ndarray, ratios: np.ndarray, steps: list[float], offset: float) -> np.ndarray:
    """The same where sizes are shares of the image: every size with the first ratio, the first size with the others."""
    height, width = layer.sizes[1:]
    x, y = (
        _centers(count, step if step != UNSET else 1 / count, offset)
        for count, step in zip((width, height), steps, strict=True)
    )
    shapes = [(size * height / width, size) for size in sizes]
    shapes += [(sizes[0] * height / width * math.sqrt(ratio), sizes[0] / math.sqrt(ratio)) for ratio in ratios[1:]]
    return _around(x, y, np.array(shapes, np.float32), [1, 1])


def _centers(count: int, step: float, offset: float) -> np.ndarray:
    return (np.float32(offset) * np.float32(step) + np.arange(count, dtype=np.float32) * np.float32(step)).astype(
        np.float32
    )


def _around(x: np.ndarray, y: np.ndarray, shapes: np.ndarray, image: list[int]) -> np.ndarray:
    centers = np.stack(np.broadcast_arrays(x[np.newaxis, :, np.newaxis], y[:, np.newaxis, np.newaxis]), axis=-1)
    half = shapes / np.float32(2)
    corners = np.concatenate([centers - half, centers + half], axis=-1)
    boxes: np.ndarray = corners / np.array([*image, *image], np.float32)
    return boxes
