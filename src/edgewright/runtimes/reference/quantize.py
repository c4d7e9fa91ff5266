"""Integer arithmetic: quantize, dequantize, and the operators that compute on quantized tensors.

Integer sums are exact. Rounding is to nearest, halves to even; what is out of range saturates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright.runtimes.reference.conv import correlate
from edgewright.runtimes.reference.elementwise import convert_type
from edgewright.runtimes.reference.linear import exact_matmul
from edgewright.runtimes.reference.operators import Array, axis_of, numpy_dtype, operator, widen
from edgewright.runtimes.reference.windows import windows

_FOUR_BITS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer dtype, the 4-bit ones included."""
    if dtype.name in _FOUR_BITS:
        return _FOUR_BITS[dtype.name]
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def saturate(x: Array, zero_point: Array, dtype: np.dtype[Any]) -> Array:
    """round(x) + zero_point, held in the range of the integer `dtype`."""
    low, high = limits(dtype)
    # float64 holds every sum of a rounded float32 and a zero point that is in range.
    held = np.clip(np.rint(x).astype(np.float64) + zero_point, low, high)
    return np.asarray(held.astype(np.int64).astype(dtype))


def _spread(parameter: Array, x: Array, axis: int, block_size: int) -> Array:
    """A scale or zero point shaped to broadcast over x: one value, one per slice of `axis`, or one per block of it."""
    value = widen(parameter)
    if value.size == 1 and value.ndim <= 1:
        return value.reshape(())
    axis = axis_of(axis, x.ndim)
    if value.ndim == 1 and not block_size:
        if len(value) != x.shape[axis]:
            raise ValueError(f"{len(value)} scales or zero points do not fit axis {axis} of {list(x.shape)}")
        return value.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    if value.ndim != x.ndim:
        raise ValueError(f"scale or zero point {list(value.shape)} does not fit x {list(x.shape)}")
    size = block_size or -(-x.shape[axis] // value.shape[axis])
    return np.take(np.repeat(value, size, axis=axis), range(x.shape[axis]), axis=axis)


@operator("QuantizeLinear")
def quantize_linear(
    x: Array,
    scale: Array,
    zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Array:
    """round(x / scale) + zero_point, saturated: uint8 by default, else of the zero point's type or `output_dtype`."""
    dtype = zero_point.dtype if zero_point is not None else numpy_dtype(output_dtype or 2)
    ratio = widen(x) / _spread(scale, x, axis, block_size)
    if dtype.name.startswith("float"):
        return convert_type(ratio, dtype, saturate=bool(saturate))
    offset = np.zeros((), np.int8) if zero_point is None else _spread(zero_point, x, axis, block_size)
    return _saturate(ratio, offset, dtype)


_saturate = saturate  # `saturate` is also the name of an attribute


@operator("DequantizeLinear")
def dequantize_linear(
    x: Array, scale: Array, zero_point: Array | None = None, *, axis: int = 1, block_size: int = 0
) -> Array:
    """(x - zero_point) scale, of the scale's type."""
    value, factor = widen(x), _spread(scale, x, axis, block_size)
    if zero_point is not None:
        offset = _spread(zero_point, x, axis, block_size)
        wide = np.float32 if value.dtype.kind == "f" else np.int32 if value.dtype.itemsize < 4 else np.int64
        value = value.astype(wide) - offset.astype(wide)
    return np.asarray(value.astype(factor.dtype) * factor).astype(scale.dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """x as uint8 over its own range, widened to hold 0; also the scale and the zero point.

    Source: ONNX operator specification, DynamicQuantizeLinear.
    """
    low, high = min(np.float32(0), x.min(initial=0)), max(np.float32(0), x.max(initial=0))
    # Where all is 0 the formula would give the scale 0; 1 says the same and can be divided by.
    scale = np.asarray((high - low) / np.float32(255) if high > low else 1, np.float32)
    zero_point = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
    return saturate(x / scale, zero_point, np.dtype(np.uint8)), scale, np.asarray(zero_point)


def _less(x: Array, zero_point: Array | None, axis: int) -> Array:
    """x - zero_point without overflow, int64; a vector of zero points lies along `axis`."""
    value = widen(x).astype(np.int64)
    if zero_point is None:
        return value
    offset = widen(zero_point).astype(np.int64)
    if offset.ndim == 1 and offset.size > 1:
        offset = offset.reshape([-1 if i == axis_of(axis, x.ndim) else 1 for i in range(x.ndim)])
    return value - (offset.reshape(()) if offset.size == 1 else offset)


@operator("MatMulInteger")
def matmul_integer(a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None) -> Array:
    """(a - a_zero_point)(b - b_zero_point) as int32; zero points per row of a, per column of b."""
    rows = -2 if a.ndim > 1 else -1
    return exact_matmul(_less(a, a_zero_point, rows), _less(b, b_zero_point, -1)).astype(np.int32)


@operator("QLinearMatMul")
def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """The product of two quantized tensors, quantized again; scales per row of a, per column of b."""
    total = matmul_integer(a, b, a_zero_point, b_zero_point)
    rows = a_scale.reshape(-1, 1) if a_scale.size > 1 and a_scale.ndim == 1 else a_scale
    factor = widen(rows) * widen(b_scale) / widen(y_scale)
    return saturate(total * factor.astype(np.float32), widen(y_zero_point), y_zero_point.dtype)


@operator("ConvInteger")
def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution of integers as int32; padding stands for 0, that is for the zero point."""
    place = windows(x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    # float64 holds these sums exactly, see linear.exact_matmul.
    left, right = _less(x, x_zero_point, 1).astype(np.float64), _less(w, w_zero_point, 0).astype(np.float64)
    return correlate(left, right, place, group).astype(np.int64).astype(np.int32)


@operator("QLinearConv")
def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution of quantized tensors, quantized again; `bias` is int32 at the scale x_scale w_scale."""
    total = conv_integer(
        x, w, x_zero_point, w_zero_point,
        auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads, strides=strides,
    ).astype(np.int64)  # fmt: skip
    along = [-1 if i == 1 else 1 for i in range(x.ndim)]
    if bias is not None:
        total = total + bias.reshape(along)
    factor = widen(x_scale).reshape(()) * widen(w_scale) / widen(y_scale).reshape(())
    factor = factor.reshape(along) if factor.size > 1 else factor.reshape(())
    return saturate(total.astype(np.float32) * factor, widen(y_zero_point).reshape(()), y_zero_point.dtype)
