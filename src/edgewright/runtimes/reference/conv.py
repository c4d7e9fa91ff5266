"""Convolutions. Shapes: x f32[N, C, *spatial], weights f32[M, C / group, *kernel].

The sum runs over the kernel's positions (outer) and the channels of a group (inner, one matrix product each).
Narrow floats are multiplied and summed in float32, then rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, operator, widen
from edgewright.runtimes.reference.windows import Windows, windows

_LAST: tuple[Any, ...] = (...,)  # before an offset: the last axes at that offset


@operator("Conv")
def conv(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Sum over channels and kernel of x at the window times w, plus bias: f32[N, M, *outputs]."""
    _check(x, w, group, kernel_shape)
    place = windows(
        x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )  # fmt: skip
    y = correlate(widen(x), widen(w), place, group)
    if bias is not None:
        y += widen(bias).reshape(-1, *[1] * (x.ndim - 2))
    return y.astype(x.dtype, copy=False)


def correlate(x: Array, w: Array, place: Windows, group: int) -> Array:
    """The sums of a convolution without bias, in the type of `x`: f[N, M, *outputs]."""
    batch, channels, filters, inner = x.shape[0], x.shape[1], w.shape[0], w.shape[1]
    points = int(np.prod(place.outputs, dtype=np.int64))
    total = np.zeros((batch, group, filters // group, points), x.dtype)
    weights = w.reshape(group, filters // group, inner, *w.shape[2:])
    for offset, seen in place.visit(place.pad(x, 0)):
        part = seen.reshape(batch, group, channels // group, points)
        # One channel in: an outer product, which broadcasting does faster than many tiny matrix products.
        weight = weights[_LAST + offset]
        total += weight * part if inner == 1 else np.matmul(weight, part)
    return total.reshape(batch, filters, *place.outputs)


def _check(x: Array, w: Array, group: int, kernel_shape: Sequence[int] | None) -> None:
    if x.ndim < 3 or w.ndim != x.ndim:
        raise ValueError(f"x {list(x.shape)} and weights {list(w.shape)} must have one rank, 3 or more")
    if group < 1 or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ValueError(f"x {list(x.shape)} and weights {list(w.shape)} do not fit in {group} groups")
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ValueError(f"`kernel_shape` is {list(kernel_shape)}, but the weights have {list(w.shape[2:])}")


@operator("ConvTranspose")
def conv_transpose(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution backwards: each input times w f32[C, M / group, *kernel] is added to its window of the output."""
    rank = x.ndim - 2
    if rank < 1 or w.ndim != x.ndim or x.shape[1] != w.shape[0] or w.shape[0] % group:
        raise ValueError(f"x {list(x.shape)} and weights {list(w.shape)} do not fit in {group} groups")
    kernel = w.shape[2:]
    strides, dilations = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    begin, outputs = _transposed_sizes(
        x.shape[2:], kernel, strides=strides, dilations=dilations, extra=extra, pads=pads, output_shape=output_shape,
        auto_pad=auto_pad,
    )  # fmt: skip
    natural = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    room = [max(n, b + o, 0) for n, b, o in zip(natural, begin, outputs, strict=True)]
    place = Windows(kernel, strides, dilations, (0,) * rank, (0,) * rank, tuple(room), x.shape[2:])
    full = _scatter(widen(x), widen(w), place, group)
    inner = tuple(slice(b, b + o) for b, o in zip(begin, outputs, strict=True))
    y = full[(slice(None), slice(None), *inner)]
    if bias is not None:
        y = y + widen(bias).reshape(-1, *[1] * rank)
    return np.asarray(y).astype(x.dtype)


def _scatter(x: Array, w: Array, place: Windows, group: int) -> Array:
    batch, channels, filters = x.shape[0], x.shape[1], w.shape[1] * group
    full = np.zeros((batch, filters, *place.sizes), x.dtype)
    if not x.size:
        return full
    rows = x.reshape(batch, group, channels // group, -1)
    weights = w.reshape(group, channels // group, w.shape[1], *place.kernel)
    for offset in np.ndindex(*place.kernel):
        part = np.matmul(weights[_LAST + offset].swapaxes(-1, -2), rows)
        full[(slice(None), slice(None), *place.seen(offset))] += part.reshape(batch, filters, *x.shape[2:])
    return full


def _transposed_sizes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
    pads: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    auto_pad: str,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(what is cut off in front, output size) for each axis. Source: ONNX operator specification, ConvTranspose."""
    rank = len(sizes)
    pads = tuple(pads or (0,) * 2 * rank)
    wanted = None if output_shape is None else tuple(output_shape)[-rank:]
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(sizes, strides, strict=True))
    begin, outputs = [], []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        natural = strides[axis] * (sizes[axis] - 1) + extra[axis] + extent
        if wanted is None:
            begin.append(pads[axis] if auto_pad == "NOTSET" else 0)
            outputs.append(natural - (pads[axis] + pads[rank + axis] if auto_pad == "NOTSET" else 0))
        else:
            total = max(natural - wanted[axis], 0)
            begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
            outputs.append(wanted[axis])
    if min(outputs) < 1:
        raise ValueError(f"the output would have the size {outputs}")
    return tuple(begin), tuple(outputs)


@operator("Col2Im")
def col2im(
    x: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Columns f32[N, C x block, L] added back to the windows they were taken from: f32[N, C, *image]."""
    image, block = tuple(map(int, image_shape)), tuple(map(int, block_shape))
    place = windows(image, block, strides=strides, dilations=dilations, pads=pads)
    padded = tuple(n + b + e for n, b, e in zip(image, place.begin, place.end, strict=True))
    channels = x.shape[1] // int(np.prod(block))
    columns = widen(x).reshape(x.shape[0], channels, *block, *place.outputs)
    full = np.zeros((x.shape[0], channels, *padded), columns.dtype)
    for offset in np.ndindex(*block):
        full[(slice(None), slice(None), *place.seen(offset))] += columns[(slice(None), slice(None), *offset)]
    inner = tuple(slice(b, b + n) for b, n in zip(place.begin, image, strict=True))
    return full[(slice(None), slice(None), *inner)].astype(x.dtype)


@operator("DeformConv")
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A 2-D convolution whose windows look `offset` f32[N, groups x kernel x 2, OH, OW] beside their places (bilinear).

    Source: Dai et al. 2017, Deformable Convolutional Networks; Zhu et al. 2019 for `mask`.
    """
    _check(x, w, group, kernel_shape)
    if x.ndim != 4:
        raise ValueError(f"x has shape {list(x.shape)}, but only two spatial axes are defined")
    place = windows(x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads)
    batch, (high, wide) = x.shape[0], place.outputs
    shifts = widen(offset).reshape(batch, offset_group, *place.kernel, 2, high, wide)
    masks = None if mask is None else widen(mask).reshape(batch, offset_group, *place.kernel, high, wide)
    groups = widen(x).reshape(batch, offset_group, -1, *x.shape[2:])
    weights = widen(w).reshape(group, w.shape[0] // group, w.shape[1], *place.kernel)
    total = np.zeros((batch, group, w.shape[0] // group, high * wide), groups.dtype)
    for i, j in np.ndindex(*place.kernel):
        rows = np.arange(high)[:, None] * place.strides[0] - place.begin[0] + i * place.dilations[0]
        columns = np.arange(wide)[None, :] * place.strides[1] - place.begin[1] + j * place.dilations[1]
        seen = _bilinear(groups, rows + shifts[:, :, i, j, 0], columns + shifts[:, :, i, j, 1])
        seen = seen if masks is None else seen * masks[:, :, None, i, j]
        total += np.matmul(weights[..., i, j], seen.reshape(batch, group, w.shape[1], -1))
    y = total.reshape(batch, w.shape[0], high, wide)
    return np.asarray(y if bias is None else y + widen(bias).reshape(-1, 1, 1)).astype(x.dtype)


def _bilinear(x: Array, rows: Array, columns: Array) -> Array:
    """x f[N, G, C, H, W] at rows and columns f[N, G, OH, OW], zero outside: f[N, G, C, OH, OW]."""
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    n, g = np.ogrid[: x.shape[0], : x.shape[1]]
    total = np.zeros((*x.shape[:3], *rows.shape[2:]), x.dtype)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column))
        inside = (row >= 0) & (row < x.shape[3]) & (column >= 0) & (column < x.shape[4])
        r, c = np.clip(row, 0, x.shape[3] - 1), np.clip(column, 0, x.shape[4] - 1)
        value = x[n[..., None, None], g[..., None, None], :, r, c]  # f[N, G, OH, OW, C]
        total += np.moveaxis(value * np.where(inside, weight, 0)[..., None], -1, 2).astype(x.dtype)
    return total
