"""Binary convolution and linear layers on packed signs: what they mean, in numpy.

The dot product of two vectors of signs is n - 2 * (bits that differ). Whatever follows a layer is one of three things:
the dot products themselves, floats, or signs again, by an integer threshold for each filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.ops.packing import check_packed, pack_bits, unpack_signs


@dataclass(frozen=True)
class Window:
    """How a convolution goes over its input.

    Attributes:
        strides: Down and across.
        dilations: The same.
        pads: Top, left, bottom, right, as ONNX has them.
        pad_value: The sign that stands in the padding: +1 or -1, never 0, which is no sign.
        group: Groups of channels.
    """

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: int = 1
    group: int = 1


def check_conv(input_shape: tuple[int, ...], weights: np.ndarray, channels: int, window: Window) -> tuple[int, int]:
    """The output's height and width.

    Args:
        input_shape: [N, H, W, bytes_for(C)].
        weights: u8[M, kh, kw, bytes_for(C / group)].
        channels: C.
        window: How the layer goes over its input.

    Raises:
        EdgewrightError: E202 where sizes do not fit one another, E103 for a window that cannot be.
    """
    positive = (*window.strides, *window.dilations, window.group, channels)
    if min(positive) < 1 or min(window.pads) < 0 or window.pad_value not in (1, -1):
        raise EdgewrightError("E103", f"{window} cannot be: sizes are positive, and padding is a sign, +1 or -1")
    if len(input_shape) != 4 or weights.ndim != 4 or 0 in (*input_shape, *weights.shape):
        raise EdgewrightError(
            "E202", f"a convolution of {list(input_shape)} with {list(weights.shape)}: both have 4 axes, none empty"
        )
    if channels % window.group or len(weights) % window.group:
        raise EdgewrightError(
            "E202", f"{channels} channels and {len(weights)} filters do not make {window.group} groups"
        )
    check_packed(weights, channels // window.group, name="weights")
    sizes = []
    for axis in range(2):
        reach = window.dilations[axis] * (weights.shape[1 + axis] - 1) + 1
        room = input_shape[1 + axis] + window.pads[axis] + window.pads[2 + axis]
        if reach > room:
            raise EdgewrightError("E202", f"a window of {reach} is larger than the padded input, {room}")
        sizes.append((room - reach) // window.strides[axis] + 1)
    return sizes[0], sizes[1]


def conv_dots(packed: np.ndarray, weights: np.ndarray, channels: int, window: Window | None = None) -> np.ndarray:
    """The dot products i32[N, OH, OW, M] of a binary convolution.

    Args:
        packed: u8[N, H, W, bytes_for(C)], signs.
        weights: u8[M, kh, kw, bytes_for(C / group)], signs.
        channels: C.
        window: How the layer goes over its input.

    Raises:
        EdgewrightError: as `check_conv`; E202 where these are no packed signs.
    """
    window = window or Window()
    height, width = check_conv(packed.shape, weights, channels, window)
    top, left, bottom, right = window.pads
    signs = np.pad(
        unpack_signs(packed, channels), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=window.pad_value
    )
    filters, kernel_h, kernel_w, _ = weights.shape
    each, of_each = channels // window.group, filters // window.group
    kernels = unpack_signs(weights, each)
    (down, across), (apart_h, apart_w) = window.strides, window.dilations
    dots = np.zeros((len(packed), height, width, filters), np.float32)
    for y in range(kernel_h):
        for x in range(kernel_w):
            seen = signs[:, y * apart_h :, x * apart_w :][:, ::down, ::across][:, :height, :width]
            for group in range(window.group):
                of = slice(group * of_each, (group + 1) * of_each)
                # Whole numbers far below 2^24, where float32 is exact.
                dots[..., of] += seen[..., group * each : (group + 1) * each] @ kernels[of, y, x].T
    return dots.astype(np.int32)


def linear_dots(packed: np.ndarray, weights: np.ndarray, channels: int) -> np.ndarray:
    """The dot products i32[N, M] of signs u8[N, bytes_for(C)] with weights u8[M, bytes_for(C)].

    Raises:
        EdgewrightError: E202 where sizes do not fit one another, or these are no packed signs.
    """
    if packed.ndim != 2 or weights.ndim != 2:
        raise EdgewrightError(
            "E202", f"a linear layer of {list(packed.shape)} with {list(weights.shape)}: both have 2 axes"
        )
    dots: np.ndarray = unpack_signs(packed, channels) @ unpack_signs(weights, channels).T
    return dots.astype(np.int32)


@dataclass(frozen=True)
class Affine:
    """Floats from dot products: limited to low..high, slope * y where y < 0, y = dot * scale + shift + residual.

    Attributes:
        scale: f32[M].
        shift: f32[M].
        slope: f32[M], or None where negative results stay (a PReLU; zeros make a ReLU).
        low: The least result; a Hardtanh has -1.
        high: The largest.
    """

    scale: np.ndarray
    shift: np.ndarray
    slope: np.ndarray | None = None
    low: float = -math.inf
    high: float = math.inf


def affine(dots: np.ndarray, how: Affine, residual: np.ndarray | None = None) -> np.ndarray:
    """Floats f32[..., M] from dot products i32[..., M] and an optional residual f32[..., M], each step rounded to float32."""
    made: np.ndarray = dots.astype(np.float32) * how.scale + how.shift
    if residual is not None:
        made = made + residual
    if how.slope is not None:
        made = np.where(made < 0, made * how.slope, made)
    limited: np.ndarray = np.clip(made, np.float32(how.low), np.float32(how.high))
    return limited


def below(dots: np.ndarray, threshold: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Signs u8[..., bytes_for(M)] from dot products i32[..., M].

    Args:
        dots: Dot products.
        threshold: i32[M]. A sign is -1 where the dot product is below the threshold.
        flip: bool[M]: where true, it is -1 where the dot product is *not* below. A batch-norm with a negative factor before
            the sign is such a comparison.
    """
    return pack_bits((dots < threshold) ^ flip)
