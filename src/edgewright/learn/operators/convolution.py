"""Convolutions and the places of their windows. Shapes: x f32[N, C, *spatial], weights f32[M, C / group, *kernel]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import along, operator

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


@operator("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Sum over channels and kernel of x at the window times w, plus bias: f32[N, M, *outputs]."""
    rank = x.ndim - 2
    if rank not in _CONV:
        raise ValueError(f"a convolution over {rank} spatial axes cannot be trained")
    strides, dilations = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extents = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    begin, end = padding(x.shape[2:], extents, strides, pads, auto_pad)
    if begin != end:  # torch pads both sides alike
        least = [min(pair) for pair in zip(begin, end, strict=True)]
        least = [max(n, 0) for n in least]
        around = [(b - n, e - n) for b, e, n in zip(begin, end, least, strict=True)]
        x, begin = functional.pad(x, [size for pair in reversed(around) for size in pair]), tuple(least)
    return _CONV[rank](x, w, bias, strides, begin, dilations, group)


def padding(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], pads: Sequence[int] | None, auto_pad: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding in front and behind of each axis. Source: ONNX operator specification, Conv, "auto_pad"."""
    rank = len(sizes)
    if auto_pad == "NOTSET":
        given = tuple(pads or (0,) * 2 * rank)
        return given[:rank], given[rank:]
    if auto_pad == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(sizes, extents, strides, strict=True)]
    small, large = tuple(n // 2 for n in totals), tuple(n - n // 2 for n in totals)
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """A convolution backwards: each input times w f32[C, M / group, *kernel] is added to its window of the output."""
    rank = x.ndim - 2
    strides, dilations = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    begin, outputs = _transposed(
        x.shape[2:], w.shape[2:], strides, dilations, extra, pads=pads, wanted=output_shape, auto_pad=auto_pad
    )
    full = _TRANSPOSED[rank](x, w, None, strides, 0, 0, group, dilations)
    # What lies beyond the last window is 0: `output_padding` and a larger `output_shape` ask for it.
    missing = [max(b + o - n, 0) for n, b, o in zip(full.shape[2:], begin, outputs, strict=True)]
    if any(missing):
        full = functional.pad(full, [size for n in reversed(missing) for size in (0, n)])
    y = full[(slice(None), slice(None), *(slice(b, b + o) for b, o in zip(begin, outputs, strict=True)))]
    return y if bias is None else y + along(bias, 1, x.ndim)


def _transposed(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
    *,
    pads: Sequence[int] | None,
    wanted: Sequence[int] | None,
    auto_pad: str,
) -> tuple[list[int], list[int]]:
    """(what is cut off in front, output size) for each axis. Source: ONNX operator specification, ConvTranspose."""
    rank = len(sizes)
    given = tuple(pads or (0,) * 2 * rank) if auto_pad == "NOTSET" else (0,) * 2 * rank
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(sizes, strides, strict=True))
    begin, outputs = [], []
    for axis in range(rank):
        natural = strides[axis] * (sizes[axis] - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        if wanted is None:
            begin.append(given[axis])
            outputs.append(natural - given[axis] - given[rank + axis])
        else:
            size = tuple(wanted)[-rank:][axis]
            total = max(natural - size, 0)
            begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
            outputs.append(size)
    return begin, outputs


def unfolded(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """What each window of an already padded x sees: f32[N, C, *outputs, elements of the kernel], a copy."""
    rank = len(kernel)
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(2 + axis, (k - 1) * d + 1, s)
        x = x[(..., slice(None, None, d))]
    return x.reshape(*x.shape[: 2 + rank], -1) if rank else torch.atleast_1d(x)
