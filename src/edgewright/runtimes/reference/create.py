"""Tensors out of nothing: constants, ranges, windows, tables. Random operators have no reference value: absent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, numpy_dtype, operator, scalar


@operator("Constant")
def constant(
    *,
    value: Array | None = None,
    value_float: float | None = None,
    value_floats: Any = None,
    value_int: int | None = None,
    value_ints: Any = None,
) -> Array:
    """The tensor that the one attribute present holds; Python floats are float32, integers int64."""
    if value is not None:
        return value
    for number, dtype in (
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
    ):
        if number is not None:
            return np.array(number, dtype=dtype)
    raise ValueError("none of the attributes holds a tensor of numbers")


@operator("ConstantOfShape")
def constant_of_shape(shape: Array, *, value: Array | None = None) -> Array:
    """A tensor of `shape` filled with the one element of `value`, f32 0 by default."""
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(tuple(int(size) for size in shape), fill.reshape(()), fill.dtype)


@operator("Range")
def range_(start: Array, limit: Array, delta: Array) -> Array:
    """start, start + delta, ... as long as it is before `limit`."""
    first, step = scalar(start), scalar(delta)
    count = max(math.ceil((scalar(limit) - first) / step), 0)
    return np.asarray(np.arange(count) * step + first).astype(start.dtype)


@operator("EyeLike")
def eye_like(x: Array, *, dtype: int | None = None, k: int = 0) -> Array:
    """1 on the k-th diagonal of a matrix as large as x, else 0; of the type of x, or `dtype`."""
    if x.ndim != 2:
        raise ValueError(f"x has shape {list(x.shape)}, but must be a matrix")
    return np.eye(x.shape[0], x.shape[1], k=k).astype(x.dtype if dtype is None else numpy_dtype(dtype))


def _cosines(size: Array, periodic: int, output_datatype: int, weights: tuple[float, ...]) -> Array:
    """Sum of weights[i] cos(2 pi i n / N) for n = 0 .. size - 1; N is size, or size - 1 for a symmetric window."""
    count = int(scalar(size))
    angle = 2 * math.pi * np.arange(count) / (count if periodic else count - 1)
    values = sum((weight * np.cos(index * angle) for index, weight in enumerate(weights)), np.zeros(count))
    return np.asarray(values).astype(numpy_dtype(output_datatype))


@operator("HannWindow")
def hann_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Array:
    """1/2 - 1/2 cos(2 pi n / N). Source: Harris 1978, On the use of windows."""
    return _cosines(size, periodic, output_datatype, (0.5, -0.5))


@operator("HammingWindow")
def hamming_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Array:
    """25/46 - 21/46 cos(2 pi n / N). Source: ONNX operator specification, HammingWindow."""
    return _cosines(size, periodic, output_datatype, (25 / 46, -21 / 46))


@operator("BlackmanWindow")
def blackman_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Array:
    """0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N). Source: Harris 1978, On the use of windows."""
    return _cosines(size, periodic, output_datatype, (0.42, -0.5, 0.08))


@operator("MelWeightMatrix")
def mel_weight_matrix(
    num_mel_bins: Array,
    dft_length: Array,
    sample_rate: Array,
    lower_edge_hertz: Array,
    upper_edge_hertz: Array,
    *,
    output_datatype: int = 1,
) -> Array:
    """f32[dft_length / 2 + 1, num_mel_bins]: triangles, equally wide on the mel scale, over spectrum bins.

    Source: ONNX operator specification, MelWeightMatrix; mel = 2595 log10(1 + f / 700).
    """
    bins, length, rate = int(scalar(num_mel_bins)), int(scalar(dft_length)), scalar(sample_rate)
    low, high = (2595 * np.log10(1 + scalar(edge) / 700) for edge in (lower_edge_hertz, upper_edge_hertz))
    # The standard steps by (high - low) / (bins + 2), so the last triangle ends below the upper edge.
    mels = np.arange(bins + 2) * ((high - low) / (bins + 2)) + low
    edges = np.floor((length + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate).astype(int)
    matrix = np.zeros((length // 2 + 1, bins))
    for index, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        if centre == left:
            matrix[centre, index] = 1
        else:
            matrix[left : centre + 1, index] = (np.arange(left, centre + 1) - left) / (centre - left)
        if right > centre:
            matrix[centre:right, index] = (right - np.arange(centre, right)) / (right - centre)
    return matrix.astype(numpy_dtype(output_datatype))
