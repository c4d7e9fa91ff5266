"""Shapes: what moves, repeats, joins or cuts tensors without computing on their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import axes_of, axis_of, operator, scalar, together


@operator("Shape")
def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Sizes of the axes `start` up to `end` (negative: from the back; clamped), int64."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@operator("Size")
def size_of(x: Tensor) -> Tensor:
    """The number of elements, int64[]."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("Reshape", host=(1,))
def reshape(x: Tensor, shape: list[int], *, allowzero: int = 0) -> Tensor:
    """x in another shape; -1 is what is left, 0 the size of the same axis of x (with `allowzero`: really 0)."""
    if not allowzero:
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix: axes before `axis` by the others."""
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", host=(1,))
def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """x without the named axes of size 1; without `axes`, without all of them."""
    return x.squeeze() if axes is None else x.squeeze(axes_of(axes, x.ndim))


@operator("Unsqueeze", host=(1,))
def unsqueeze(x: Tensor, axes: Any) -> Tensor:
    """x with new axes of size 1 at the places `axes` of the result."""
    places = axes if isinstance(axes, list) else [axes]
    for axis in sorted(axes_of(places, x.ndim + len(places))):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """x with its axes in the order `perm`, reversed by default."""
    return x.permute(*(range(x.ndim)[::-1] if perm is None else perm))


@operator("Concat")
def concat(*tensors: Tensor, axis: int) -> Tensor:
    """The inputs behind each other along `axis`."""
    return torch.cat(together(*tensors), dim=axis)


@operator("Split", host=(1,))
def split(
    x: Tensor, sizes: list[int] | None = None, *, axis: int = 0, num_outputs: int | None = None, output_count: int
) -> tuple[Tensor, ...]:
    """x cut along `axis` into `sizes`, or into `num_outputs` parts of which the last may be smaller."""
    if sizes is None:
        count, length = num_outputs or output_count, x.shape[axis]
        part = -(-length // count)
        sizes = [max(min(part, length - i * part), 0) for i in range(count)]
    return tuple(torch.split(x, sizes, dim=axis))


@operator("Slice", host=(1, 2, 3, 4))
def slice_(
    x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None = None, steps: list[int] | None = None
) -> Tensor:
    """x from `starts` up to `ends` by `steps`; negative positions count from the back, all are clamped to the axis."""
    over = axes_of(range(len(starts)) if axes is None else axes, x.ndim)
    for axis, start, end, step in zip(over, starts, ends, steps or [1] * len(starts), strict=True):
        size = x.shape[axis]
        places = range(size)[_cut(start, end, step, size)]
        if step < 0:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
        elif len(places) < size:
            cuts = [slice(None)] * x.ndim
            cuts[axis] = slice(places.start, places.stop, step)
            x = x[tuple(cuts)]
    return x


def _cut(start: int, end: int, step: int, size: int) -> slice:
    """The slice of an axis; Source: ONNX operator specification, Slice, on clamping."""
    if step == 0:
        raise ValueError("a step is 0")
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, -1), size - 1), min(max(end, -1), size - 1)
    return slice(0, 0) if start < 0 else slice(start, None if end < 0 else end, step)


@operator("Expand", host=(1,))
def expand(x: Tensor, shape: list[int]) -> Tensor:
    """x repeated to the common shape of itself and `shape`."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


@operator("Tile", host=(1,))
def tile(x: Tensor, repeats: list[int]) -> Tensor:
    """x put side by side `repeats` times along each axis."""
    return x.repeat(*repeats) if x.ndim else x


@operator("Pad", host=(1, 2, 3))
def pad(
    x: Tensor, pads: list[int], value: Any = None, axes: list[int] | None = None, *, mode: str = "constant"
) -> Tensor:
    """x with `pads` (all in front, then all behind) around `axes`; negative ones crop, before anything is added."""
    over = axes_of(range(x.ndim) if axes is None else axes, x.ndim)
    around = [(0, 0)] * x.ndim
    for index, axis in enumerate(over):
        around[axis] = (pads[index], pads[index + len(over)])
    for axis, (before, behind) in enumerate(around):
        cut = max(-before, 0), max(-behind, 0)
        x = x.narrow(axis, cut[0], x.shape[axis] - sum(cut)) if any(cut) else x
    grow = [(max(before, 0), max(behind, 0)) for before, behind in around]
    if mode == "constant":
        flat = [size for pair in reversed(grow) for size in pair]
        return functional.pad(x, flat, value=0 if value is None else scalar(value)) if any(flat) else x
    for axis, (before, behind) in enumerate(grow):
        if before or behind:
            x = x.index_select(axis, _mirrored(x.shape[axis], before, behind, mode).to(x.device))
    return x


def _mirrored(size: int, before: int, behind: int, mode: str) -> Tensor:
    """Which elements of an axis lie in it once it is padded, int64[before + size + behind]."""
    places = torch.arange(-before, size + behind)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode != "reflect":
        raise ValueError(f"`mode` is `{mode}`, but must be constant, reflect, edge or wrap")
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((places % period) - (size - 1)).abs()


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """f32[N, C, H, W] -> f32[N, C / b^2, H b, W b]; the block is the slow ("DCR") or the fast part ("CRD") of C."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """f32[N, C, H, W] -> f32[N, b^2 C, H / b, W / b]; the block becomes the slow part of C."""
    n, c, h, w = x.shape
    b = blocksize
    parts = x.reshape(n, c, h // b, b, w // b, b)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@operator("Trilu", host=(1,))
def trilu(x: Tensor, k: Any = None, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle of each matrix f32[..., N, M], from the k-th diagonal on; 0 elsewhere."""
    diagonal = 0 if k is None else scalar(k)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@operator("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """x with the first `lengths[i]` steps of sample i in reverse order."""
    batch_axis, time_axis = axis_of(batch_axis, x.ndim), axis_of(time_axis, x.ndim)
    moved = torch.movedim(x, (batch_axis, time_axis), (0, 1))
    steps, ends = torch.arange(moved.shape[1], device=x.device), lengths.to(x.device)[:, None]
    order = torch.where(steps < ends, ends - 1 - steps, steps)
    turned = moved[torch.arange(len(moved), device=x.device)[:, None], order]
    return torch.movedim(turned, (0, 1), (batch_axis, time_axis))
