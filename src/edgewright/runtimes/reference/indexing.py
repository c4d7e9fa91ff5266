"""Reading and writing by index: gather, scatter, selection, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, axis_of, operator, scalar, widen


def _wrapped(indices: Array, size: int) -> Array:
    """Indices counted from the front.

    Raises:
        ValueError: One is outside -size..size-1.
    """
    found = np.asarray(indices, dtype=np.int64)
    if found.size and not (-size <= int(found.min()) and int(found.max()) < size):
        raise ValueError(f"an index in {int(found.min())}..{int(found.max())} is outside an axis of size {size}")
    return np.where(found < 0, found + size, found)


@operator("Gather")
def gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """Slices of x along `axis`: the axis is replaced by the shape of `indices`."""
    axis = axis_of(axis, x.ndim)
    return np.take(x, _wrapped(indices, x.shape[axis]), axis=axis)


def _along(x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """Index arrays that reach x at `indices` along `axis` and at the same place on all others."""
    if indices.ndim != x.ndim:
        raise ValueError(f"indices {list(indices.shape)} and data {list(x.shape)} must have one rank")
    places: list[Array] = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    places[axis] = _wrapped(indices, x.shape[axis])
    return tuple(places)


@operator("GatherElements")
def gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """x at `indices` along `axis`, elsewhere at the same place; the shape of `indices`."""
    return np.asarray(x[_along(x, indices, axis_of(axis, x.ndim))])


@operator("GatherND")
def gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Slices of x at the index tuples in the last axis of `indices`, behind `batch_dims` shared axes."""
    batch, depth = x.shape[:batch_dims], indices.shape[-1]
    data = x.reshape(-1, *x.shape[batch_dims:])
    tuples = indices.reshape(len(data), *indices.shape[batch_dims:])
    sizes = x.shape[batch_dims : batch_dims + depth]
    if len(sizes) < depth:
        raise ValueError(f"indices {list(indices.shape)} reach deeper than data {list(x.shape)}")
    places = [_wrapped(tuples[..., i], size) for i, size in enumerate(sizes)]
    samples = np.arange(len(data)).reshape(-1, *[1] * (tuples.ndim - 2))
    found = np.asarray(data[(samples, *places)])
    return found.reshape(*batch, *indices.shape[batch_dims:-1], *x.shape[batch_dims + depth :])


_REDUCE_AT: dict[str, Callable[..., Any]] = {
    "add": np.add.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
    "mul": np.multiply.at,
}


def _write(target: Array, places: tuple[Array, ...], updates: Array, reduction: str) -> None:
    if reduction == "none":
        target[places] = updates
    elif reduction in _REDUCE_AT:
        _REDUCE_AT[reduction](target, places, updates)
    else:
        raise ValueError(f"`reduction` is `{reduction}`, but must be none, {', '.join(_REDUCE_AT)}")


@operator("ScatterElements")
def scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    """A copy of x with `updates` written (or reduced in) at `indices` along `axis`."""
    result = widen(x).copy()
    _write(result, _along(x, indices, axis_of(axis, x.ndim)), widen(updates), reduction)
    return result.astype(x.dtype)


@operator("ScatterND")
def scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """A copy of x with the slices `updates` written (or reduced in) at the index tuples `indices`."""
    depth = indices.shape[-1]
    if depth > x.ndim or updates.shape != (*indices.shape[:-1], *x.shape[depth:]):
        raise ValueError(
            f"updates {list(updates.shape)} do not fit indices {list(indices.shape)}, data {list(x.shape)}"
        )
    result = widen(x).copy()
    _write(result, tuple(_wrapped(indices[..., i], x.shape[i]) for i in range(depth)), widen(updates), reduction)
    return result.astype(x.dtype)


@operator("Compress")
def compress(x: Array, condition: Array, *, axis: int | None = None) -> Array:
    """Slices of x (of flat x without `axis`) where the condition holds."""
    return np.compress(condition, x, axis=axis)


@operator("NonZero")
def non_zero(x: Array) -> Array:
    """Positions of all values but 0, int64[rank, count], in order."""
    return np.array(np.nonzero(widen(np.atleast_1d(x))), dtype=np.int64)


@operator("OneHot")
def one_hot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """values[1] at each index on a new axis of size `depth`, values[0] elsewhere; indices outside set nothing."""
    size = int(scalar(depth))
    axis = axis_of(axis, indices.ndim + 1)
    wanted = np.expand_dims(np.asarray(indices).astype(np.int64), axis)
    wanted = np.where(wanted < 0, wanted + size, wanted)
    positions = np.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    return np.asarray(np.where(positions == wanted, values[1], values[0])).astype(values.dtype)


@operator("Unique")
def unique(x: Array, *, axis: int | None = None, sorted: int = 1) -> tuple[Array, Array, Array, Array]:
    """Different values (slices along `axis`), where each comes first, which one every value is, and their counts."""
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.ravel()
    if not sorted:
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        values, first, counts = np.take(values, order, axis=axis or 0), first[order], counts[order]
        inverse = rank[inverse]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@operator("NonMaxSuppression")
def non_max_suppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """int64[selected, 3] of (batch, class, box): the best boxes f32[B, N, 4] that do not overlap a better one.

    Source: ONNX operator specification, NonMaxSuppression.
    """
    limit = 0 if max_output_boxes_per_class is None else int(scalar(max_output_boxes_per_class))
    overlap = 0.0 if iou_threshold is None else float(scalar(iou_threshold))
    corners = _corners(widen(boxes), bool(center_point_box))
    selected = []
    for batch, kind in np.ndindex(*scores.shape[:2]):
        score = scores[batch, kind]
        order = np.argsort(-score, kind="stable")
        if score_threshold is not None:
            order = order[score[order] > scalar(score_threshold)]
        selected += [(batch, kind, box) for box in _best(corners[batch], order, limit, overlap)]
    return np.array(selected, dtype=np.int64).reshape(-1, 3)


def _corners(boxes: Array, centred: bool) -> Array:
    """(low, low, high, high) of boxes that are two opposite corners or (centre x, centre y, width, height)."""
    if centred:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([centre - half, centre + half], axis=-1)
    one, other = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=-1)


def _best(boxes: Array, order: Array, limit: int, overlap: float) -> list[int]:
    chosen: list[int] = []
    while len(order) and len(chosen) < limit:
        best, order = int(order[0]), order[1:]
        chosen.append(best)
        order = order[_iou(boxes[best], boxes[order]) <= overlap]
    return chosen


def _iou(box: Array, others: Array) -> Array:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + areas - shared
    return np.where((shared > 0) & (union > 0), shared / np.where(union > 0, union, 1), 0)
