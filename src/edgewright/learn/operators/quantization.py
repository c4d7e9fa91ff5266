"""Fake quantization: the same numbers as the integers give, as floats, with a gradient that passes through rounding.

Integers stay floats between QuantizeLinear and DequantizeLinear, so that what moves them (Reshape, MaxPool) passes
gradients on. The gradient is 1 where a value lies in the range of the integers, and 0 where it is cut off.
Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", section 3 (straight-through);
Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgewright.learn.operators.table import along, axis_of, operator

#: Integers up to here are exact in float32.
_EXACT = 2**24


class _Round(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed for us
    """Rounding to nearest, halves to even; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The nearest whole numbers."""
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override, unused-ignore]
        """The gradient as it came."""
        return gradient


@operator("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
    limits: tuple[int, int] = (0, 255),
) -> Tensor:
    """round(x / scale) + zero_point held in `limits`, as floats; float64 where float32 does not hold such integers."""
    dtype = torch.float64 if limits[1] > _EXACT else x.dtype
    steps = _Round.apply(x.to(dtype) / _spread(scale, x, axis, block_size).to(dtype))
    if zero_point is not None:
        steps = steps + _spread(zero_point, x, axis, block_size).to(dtype)
    return torch.clamp(steps, *limits)


@operator("DequantizeLinear")
def dequantize_linear(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1, block_size: int = 0
) -> Tensor:
    """(x - zero_point) scale, of the scale's type."""
    value, factor = x, _spread(scale, x, axis, block_size)
    if zero_point is not None:
        offset = _spread(zero_point, x, axis, block_size)
        wide = value.dtype if value.is_floating_point() else torch.int64
        value = value.to(wide) - offset.to(wide)
    return value.to(factor.dtype) * factor


def _spread(parameter: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A scale or zero point shaped to broadcast over x: one value, one per slice of `axis`, or one per block of it."""
    parameter = parameter.to(x.device)
    if parameter.numel() == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis = axis_of(axis, x.ndim)
    if parameter.ndim == 1 and not block_size:
        return along(parameter, axis, x.ndim)
    size = block_size or -(-x.shape[axis] // parameter.shape[axis])
    return parameter.repeat_interleave(size, dim=axis).narrow(axis, 0, x.shape[axis])
