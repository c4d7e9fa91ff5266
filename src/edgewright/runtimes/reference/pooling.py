"""Pooling. Shapes: x f32[N, C, *spatial] -> f32[N, C, *outputs]; RoiAlign and MaxRoiPool take boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.runtimes.reference.operators import Array, is_float, operator, widen
from edgewright.runtimes.reference.windows import Windows, windows


@operator("MaxPool")
def max_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """The largest value of each window, and where it lies in the flat input (storage_order 1: columns first).

    A window that sees only padding has the lowest value there is: minus infinity for floats.
    """
    place = windows(
        x.shape[2:], kernel_shape,
        strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=bool(ceil_mode),
    )  # fmt: skip
    value = widen(x)
    lowest = -np.inf if is_float(x) else np.iinfo(value.dtype).min
    padded = place.pad(value, lowest)
    if output_count == 1:
        best = np.full((*x.shape[:2], *place.outputs), lowest, value.dtype)
        for _, seen in place.visit(padded):
            np.maximum(best, seen, out=best)
        return (best.astype(x.dtype),)
    first = place.pad(_flat_positions(x.shape, storage_order), -1)
    best = np.full((*x.shape[:2], *place.outputs), lowest, value.dtype)
    where = np.full(best.shape, -1, np.int64)
    for (_, seen), (_, position) in zip(place.visit(padded), place.visit(first), strict=True):
        better = (position >= 0) & ((where < 0) | (seen > best))
        best, where = np.where(better, seen, best), np.where(better, position, where)
    return best.astype(x.dtype), where


def _flat_positions(shape: tuple[int, ...], storage_order: int) -> Array:
    """The position of every element in the flat tensor, int64 of `shape`; spatial axes in column order on request."""
    if not storage_order:
        return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    spatial = int(np.prod(shape[2:]))
    inner = np.arange(spatial, dtype=np.int64).reshape(shape[:1:-1]).T
    outer = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return outer * spatial + inner


@operator("AveragePool")
def average_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The mean of each window; padding counts only with `count_include_pad`, what lies beyond it never.

    A window in which nothing counts has the mean 0.
    """
    place = windows(
        x.shape[2:], kernel_shape,
        strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=bool(ceil_mode),
    )  # fmt: skip
    value = widen(x)
    counted = place.pad(np.ones((1, 1, *x.shape[2:]), value.dtype), 1 if count_include_pad else 0, overhang=0)
    return np.asarray(_total(value, place, 0) / np.maximum(_visit_sum(counted, place), 1)).astype(x.dtype)


@operator("LpPool")
def lp_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The p-norm of each window."""
    place = windows(
        x.shape[2:], kernel_shape,
        strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=bool(ceil_mode),
    )  # fmt: skip
    return np.asarray(_total(np.abs(widen(x)) ** p, place, 0) ** (1 / p)).astype(x.dtype)


def _total(x: Array, place: Windows, padding: float) -> Array:
    return _visit_sum(place.pad(x, padding), place)


def _visit_sum(padded: Array, place: Windows) -> Array:
    total = np.zeros((*padded.shape[:2], *place.outputs), padded.dtype)
    for _, seen in place.visit(padded):
        total += seen
    return total


def _spatial(x: Array) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"x {list(x.shape)} has no spatial axes")
    return tuple(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(x: Array) -> Array:
    """The mean over all spatial axes: f32[N, C, 1, ...]."""
    axes = _spatial(x)
    count = int(np.prod(x.shape[2:]))
    return np.asarray(widen(x).sum(axis=axes, keepdims=True) / count).astype(x.dtype)


@operator("GlobalMaxPool")
def global_max_pool(x: Array) -> Array:
    """The largest value over all spatial axes: f32[N, C, 1, ...]."""
    return np.asarray(widen(x).max(axis=_spatial(x), keepdims=True)).astype(x.dtype)


@operator("GlobalLpPool")
def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    """The p-norm over all spatial axes: f32[N, C, 1, ...]."""
    total = (np.abs(widen(x)) ** p).sum(axis=_spatial(x), keepdims=True)
    return np.asarray(total ** (1 / p)).astype(x.dtype)


@operator("MaxUnpool")
def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Zeros with each value of x where MaxPool found it; `output_shape` only adds zeros at the end of the axes."""
    rank = x.ndim - 2
    strides, pads = tuple(strides or (1,) * rank), tuple(pads or (0,) * 2 * rank)
    axes = zip(x.shape[2:], strides, kernel_shape, pads[:rank], pads[rank:], strict=True)
    natural = (*x.shape[:2], *((n - 1) * s - b - e + k for n, s, k, b, e in axes))
    flat = np.zeros(int(np.prod(natural)), x.dtype)
    if output_shape is None or tuple(output_shape) == natural:
        flat[indices.ravel()] = x.ravel()
        return flat.reshape(natural)
    wanted = tuple(int(size) for size in output_shape)
    if any(w < n for w, n in zip(wanted, natural, strict=True)):
        raise ValueError(f"`output_shape` {list(wanted)} is smaller than {list(natural)}")
    full = np.zeros(int(np.prod(wanted)), x.dtype)
    full[indices.ravel()] = x.ravel()
    return full.reshape(wanted)


@operator("RoiAlign")
def roi_align(
    x: Array,
    boxes: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """f32[boxes, C, output_height, output_width]: the mean or largest of bilinear samples in each bin of each box.

    Source: He et al. 2017, Mask R-CNN, section 3; ONNX operator specification, RoiAlign.
    """
    value = widen(x)
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    y = np.empty((len(boxes), x.shape[1], output_height, output_width), value.dtype)
    for index, (box, image) in enumerate(zip(widen(boxes), batch_indices, strict=True)):
        left, top, right, bottom = box * np.float32(spatial_scale) - np.float32(shift)
        high, wide = bottom - top, right - left
        if not shift:  # the older definition makes every box at least one pixel
            high, wide = max(high, 1), max(wide, 1)
        rows = _sample_points(top, high, output_height, sampling_ratio)
        columns = _sample_points(left, wide, output_width, sampling_ratio)
        corners = _corners(value[int(image)], rows.ravel(), columns.ravel())
        samples = sum(corners[1:], corners[0]) if mode == "avg" else np.maximum.reduce(corners)
        bins = samples.reshape(-1, *rows.shape, *columns.shape)  # f[C, OH, n, OW, m]
        y[index] = bins.mean(axis=(2, 4)) if mode == "avg" else bins.max(axis=(2, 4))
    return y.astype(x.dtype)


def _sample_points(start: float, extent: float, bins: int, ratio: int) -> Array:
    """Coordinates of the samples of one axis: f32[bins, samples]."""
    count = ratio if ratio > 0 else max(int(np.ceil(extent / bins)), 1)
    size = np.float32(extent) / np.float32(bins)
    offsets = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * size / np.float32(count)
    return np.asarray(np.float32(start) + np.arange(bins, dtype=np.float32)[:, None] * size + offsets)


def _corners(image: Array, rows: Array, columns: Array) -> list[Array]:
    """The four weighted neighbours of every point of the grid rows x columns; 0 more than one pixel outside."""
    (top, bottom, low, high), (left, right, near, far) = _axis(rows, image.shape[1]), _axis(columns, image.shape[2])
    return [
        image[:, r[:, None], c[None, :]] * (wr[:, None] * wc[None, :])
        for r, wr in ((top, low), (bottom, high))
        for c, wc in ((left, near), (right, far))
    ]


def _axis(points: Array, size: int) -> tuple[Array, Array, Array, Array]:
    outside = (points < -1) | (points > size)
    clipped = np.clip(points, 0, size - 1)
    first = np.floor(clipped).astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    part = clipped - first
    return first, second, np.where(outside, 0, 1 - part), np.where(outside, 0, part)


@operator("MaxRoiPool")
def max_roi_pool(x: Array, rois: Array, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """f32[rois, C, *pooled_shape]: the largest value of each bin of each box (batch, x1, y1, x2, y2), whole pixels.

    Source: Girshick 2015, Fast R-CNN, section 2.1.
    """
    value = widen(x)
    y = np.zeros((len(rois), x.shape[1], *pooled_shape), value.dtype)
    for index, roi in enumerate(widen(rois)):
        left, top, right, bottom = np.floor(roi[1:] * np.float32(spatial_scale) + np.float32(0.5)).astype(int)
        rows = _bins(top, bottom, pooled_shape[0], x.shape[2])
        columns = _bins(left, right, pooled_shape[1], x.shape[3])
        for (i, (r0, r1)), (j, (c0, c1)) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
            if r1 > r0 and c1 > c0:
                y[index, :, i, j] = value[int(roi[0]), :, r0:r1, c0:c1].max(axis=(1, 2))
    return y.astype(x.dtype)


def _bins(first: int, last: int, count: int, size: int) -> list[tuple[int, int]]:
    width = max(last - first + 1, 1) / count
    edges = ((int(np.floor(i * width)) + first, int(np.ceil((i + 1) * width)) + first) for i in range(count))
    return [(min(max(a, 0), size), min(max(b, 0), size)) for a, b in edges]
