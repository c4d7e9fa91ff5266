"""Shapes: what moves, repeats, joins or cuts tensors without computing on their values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgewright.runtimes.reference.operators import Array, axes_of, axis_of, operator, scalar


@operator("Shape")
def shape_of(x: Array, *, start: int = 0, end: int | None = None) -> Array:
    """Sizes of the axes `start` up to `end` (negative: from the back; clamped), int64."""
    return np.array(x.shape[start:end], dtype=np.int64)


@operator("Size")
def size_of(x: Array) -> Array:
    """The number of elements, int64[]."""
    return np.array(x.size, dtype=np.int64)


@operator("Reshape")
def reshape(x: Array, shape: Array, *, allowzero: int = 0) -> Array:
    """x in another shape; -1 is what is left, 0 the size of the same axis of x (with `allowzero`: really 0)."""
    sizes = [int(size) for size in shape]
    if not allowzero:
        for axis, size in enumerate(sizes):
            if size == 0:
                sizes[axis] = x.shape[axis_of(axis, x.ndim)]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(x: Array, *, axis: int = 1) -> Array:
    """A matrix: axes before `axis` by the others."""
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def squeeze(x: Array, axes: Array | None = None) -> Array:
    """x without the named axes of size 1; without `axes`, without all of them."""
    return x.squeeze() if axes is None else x.squeeze(axes_of(axes, x.ndim))


@operator("Unsqueeze")
def unsqueeze(x: Array, axes: Array) -> Array:
    """x with new axes of size 1 at the places `axes` of the result."""
    return np.expand_dims(x, axes_of(axes, x.ndim + np.asarray(axes).size))


@operator("Transpose")
def transpose(x: Array, *, perm: Sequence[int] | None = None) -> Array:
    """x with its axes in the order `perm`, reversed by default."""
    return x.transpose(perm)


@operator("Concat")
def concat(*tensors: Array, axis: int) -> Array:
    """The inputs behind each other along `axis`."""
    return np.concatenate(tensors, axis=axis_of(axis, tensors[0].ndim))


@operator("Split")
def split(
    x: Array, sizes: Array | None = None, *, axis: int = 0, num_outputs: int | None = None, output_count: int
) -> tuple[Array, ...]:
    """x cut along `axis` into `sizes`, or into `num_outputs` parts of which the last may be smaller."""
    axis = axis_of(axis, x.ndim)
    if sizes is None:
        count = num_outputs or output_count
        part = -(-x.shape[axis] // count)
        sizes = np.array([max(min(part, x.shape[axis] - i * part), 0) for i in range(count)])
    if int(sizes.sum()) != x.shape[axis] or (sizes < 0).any():
        raise ValueError(f"parts {sizes.tolist()} do not sum up to the axis size {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


@operator("Slice")
def slice_(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    """x from `starts` up to `ends` by `steps`; negative positions count from the back, all are clamped to the axis."""
    over = axes_of(range(len(starts)) if axes is None else axes, x.ndim)
    strides = np.ones(len(starts), np.int64) if steps is None else steps
    cuts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(over, starts, ends, strides, strict=True):
        cuts[axis] = _cut(int(start), int(end), int(step), x.shape[axis])
    return x[tuple(cuts)]


def _cut(start: int, end: int, step: int, size: int) -> slice:
    if step == 0:
        raise ValueError("a step is 0")
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, -1), size - 1), min(max(end, -1), size - 1)
    if start < 0:
        return slice(0, 0)
    return slice(start, None if end < 0 else end, step)


@operator("Expand")
def expand(x: Array, shape: Array) -> Array:
    """x repeated to the common shape of itself and `shape`."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(size) for size in shape)))


@operator("Tile")
def tile(x: Array, repeats: Array) -> Array:
    """x put side by side `repeats` times along each axis."""
    if len(repeats) != x.ndim:
        raise ValueError(f"`repeats` has {len(repeats)} values, but x has rank {x.ndim}")
    return np.tile(x, tuple(int(count) for count in repeats))


@operator("Pad")
def pad(
    x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, *, mode: str = "constant"
) -> Array:
    """x with `pads` (all in front, then all behind) around `axes`; negative ones crop, before anything is added."""
    over = axes_of(range(x.ndim) if axes is None else axes, x.ndim)
    if len(pads) != 2 * len(over):
        raise ValueError(f"`pads` has {len(pads)} values, but {len(over)} axes need {2 * len(over)}")
    around = [(0, 0)] * x.ndim
    for index, axis in enumerate(over):
        around[axis] = (int(pads[index]), int(pads[index + len(over)]))
    crop = tuple(slice(max(-b, 0), max(n - max(-e, 0), 0)) for (b, e), n in zip(around, x.shape, strict=True))
    x, grow = x[crop], [(max(b, 0), max(e, 0)) for b, e in around]
    if mode == "constant":
        filled = np.full(
            [n + b + e for n, (b, e) in zip(x.shape, grow, strict=True)],
            0 if value is None else value.reshape(()),
            x.dtype,
        )
        filled[tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, grow, strict=True))] = x
        return filled
    modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in modes:
        raise ValueError(f"`mode` is `{mode}`, but must be constant, reflect, edge or wrap")
    return np.pad(x, grow, mode=modes[mode])  # type: ignore[call-overload, no-any-return]


@operator("DepthToSpace")
def depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """f32[N, C, H, W] -> f32[N, C / b^2, H b, W b]; the block is the slow ("DCR") or the fast part ("CRD") of C."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: Array, *, blocksize: int) -> Array:
    """f32[N, C, H, W] -> f32[N, b^2 C, H / b, W / b]; the block becomes the slow part of C."""
    n, c, h, w = x.shape
    b = blocksize
    parts = x.reshape(n, c, h // b, b, w // b, b)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@operator("ReverseSequence")
def reverse_sequence(x: Array, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """x with the first `lengths[i]` steps of sample i in reverse order."""
    batch_axis, time_axis = axis_of(batch_axis, x.ndim), axis_of(time_axis, x.ndim)
    moved = np.moveaxis(x, (batch_axis, time_axis), (0, 1))
    steps = np.arange(moved.shape[1])
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    reversed_ = moved[np.arange(len(moved))[:, None], order]
    return np.moveaxis(reversed_, (0, 1), (batch_axis, time_axis))


@operator("CenterCropPad")
def center_crop_pad(x: Array, shape: Array, *, axes: Sequence[int] | None = None) -> Array:
    """x cropped or padded with zeros around its centre to `shape` along `axes`."""
    over = axes_of(range(x.ndim) if axes is None else axes, x.ndim)
    for axis, size in zip(over, (int(size) for size in shape), strict=True):
        have = x.shape[axis]
        if have >= size:
            first = (have - size) // 2
            x = np.take(x, range(first, first + size), axis=axis)
        else:
            before = (size - have) // 2
            around = [(before, size - have - before) if i == axis else (0, 0) for i in range(x.ndim)]
            x = np.pad(x, around)
    return x


@operator("Trilu")
def trilu(x: Array, k: Array | None = None, *, upper: int = 1) -> Array:
    """The upper or lower triangle of each matrix f32[..., N, M], from the k-th diagonal on; 0 elsewhere."""
    diagonal = 0 if k is None else int(scalar(k))
    keep = np.triu(np.ones(x.shape[-2:], bool), diagonal) if upper else np.tril(np.ones(x.shape[-2:], bool), diagonal)
    return np.where(keep, x, np.zeros((), x.dtype))
