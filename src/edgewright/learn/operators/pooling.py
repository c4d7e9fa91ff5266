"""Pooling. Shapes: x f32[N, C, *spatial] -> f32[N, C, *outputs].

torch's own kernels where they mean the same, else windows unfolded: padding that differs between the sides, dilated
means, windows that `ceil_mode` lets hang over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.convolution import padding, unfolded
from edgewright.learn.operators.table import operator

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True)
class _Place:
    """Where windows look, for each spatial axis; `beyond`: what the last window sees behind the padding."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    beyond: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """True where torch's kernels place windows the same way: equal padding, at most half of the kernel."""
        fits = all(0 <= b <= k // 2 for b, k in zip(self.begin, self.kernel, strict=True))
        return self.begin == self.end and not any(self.beyond) and fits

    def windows(self, x: Tensor, value: float, beyond: float) -> Tensor:
        """What each window sees: f32[N, C, *outputs, elements of the kernel]."""
        around = [size for pair in zip(reversed(self.begin), reversed(self.end), strict=True) for size in pair]
        x = functional.pad(x, around, value=value) if any(around) else x
        if any(self.beyond):
            x = functional.pad(x, [size for n in reversed(self.beyond) for size in (0, n)], value=beyond)
        return unfolded(x, self.kernel, self.strides, self.dilations)


def _place(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int] | None, dilations: Sequence[int] | None,
    pads: Sequence[int] | None, auto_pad: str, ceil_mode: int,
) -> _Place:  # fmt: skip
    rank = x.ndim - 2
    strides, dilations = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begin, end = padding(x.shape[2:], extents, strides, pads, auto_pad)
    beyond = []
    for n, e, s, b, a in zip(x.shape[2:], extents, strides, begin, end, strict=True):
        room = n + b + a - e
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + b:
            count -= 1  # a window that starts in the padding behind the input is left out
        beyond.append(max((count - 1) * s + e - (n + b + a), 0))
    return _Place(tuple(kernel), strides, dilations, begin, end, tuple(beyond))


@operator("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    output_count: int = 1,
) -> Tensor:
    """The largest value of each window; positions are not given."""
    if output_count > 1:
        raise ValueError("positions of the largest values cannot be trained through")
    place = _place(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if place.plain:
        return _MAX[x.ndim - 2](x, place.kernel, place.strides, place.begin, place.dilations)
    return place.windows(x, -math.inf, -math.inf).amax(-1)


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The mean of each window; padding counts only with `count_include_pad`, what lies beyond it never."""
    place = _place(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if place.plain and max(place.dilations) == 1:
        return _MEAN[x.ndim - 2](x, place.kernel, place.strides, place.begin, False, bool(count_include_pad))
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    counted = place.windows(ones, 1 if count_include_pad else 0, 0).sum(-1)
    return place.windows(x, 0, 0).sum(-1) / counted.clamp(min=1)


@operator("LpPool")
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The p-norm of each window."""
    place = _place(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return torch.linalg.vector_norm(place.windows(x, 0, 0), p, -1)


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """The mean over all spatial axes: f32[N, C, 1, ...]."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """The largest value over all spatial axes: f32[N, C, 1, ...]."""
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """The p-norm over all spatial axes: f32[N, C, 1, ...]."""
    return torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)
