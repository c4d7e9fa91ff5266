"""Resampling: Resize, every mode, as products with sparse matrices written as taps; GridSample.

Coordinates are computed in float32, as in the reference: a position just beside the middle between two pixels would else
pick another neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import axes_of, operator

_F = np.float32


@operator("Resize", host=(1, 2, 3))
def resize(
    x: Tensor,
    roi: Any = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """x resampled along `axes` to `sizes`, or to floor(size times scale); one axis after the other.

    Source: ONNX operator specification, Resize; Keys 1981 for the cubic kernel.
    """
    over = axes_of(range(x.ndim) if axes is None else axes, x.ndim)
    factors, outputs = _targets([x.shape[axis] for axis in over], scales, sizes, keep_aspect_ratio_policy)
    for axis, factor, size in zip(over, factors, outputs, strict=True):
        length = x.shape[axis]
        if (size == length and factor == 1) or (axis == 0 and size == 1):
            continue  # `sizes` say the graph's batch of 1, and a batch may be larger than the graph says
        points = _coordinates(size, length, factor, coordinate_transformation_mode)
        if mode == "nearest":
            x = x.index_select(axis, _at(_nearest(points, nearest_mode, length), x.device))
        else:
            places, weights = _taps(points, length, factor, mode, cubic_coeff_a, bool(exclude_outside), bool(antialias))
            x = _mixed(x, axis, places, weights)
    return x


def _targets(
    have: list[int], scales: list[float] | None, sizes: list[int] | None, policy: str
) -> tuple[list[np.float32], list[int]]:
    """(scale, output size) of each axis."""
    if sizes:
        factors = [_F(w) / _F(h) for w, h in zip(sizes, have, strict=True)]
        if policy == "stretch":
            return factors, list(sizes)
        factor = min(factors) if policy == "not_larger" else max(factors)
        return [factor] * len(have), [int(np.floor(factor * _F(h) + _F(0.5))) for h in have]
    if not scales or len(scales) != len(have):
        raise ValueError(f"{len(have)} axes need as many `scales` or `sizes`")
    return [_F(s) for s in scales], [int(np.floor(_F(s) * _F(h))) for s, h in zip(scales, have, strict=True)]


def _coordinates(size: int, length: int, scale: np.float32, mode: str) -> np.ndarray:
    """Where each of `size` outputs lies on an input axis of `length`, f32[size]."""
    at = np.arange(size, dtype=_F)
    half = (at + _F(0.5)) / scale - _F(0.5)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and size > 1):
        points = half
    elif mode == "pytorch_half_pixel":
        points = np.zeros(size, _F)
    elif mode == "half_pixel_symmetric":
        points = _F(length) / _F(2) * (1 - _F(size) / (scale * _F(length))) + half
    elif mode == "asymmetric":
        points = at / scale
    elif mode == "align_corners":
        points = at * _F(length - 1) / _F(max(size - 1, 1))
    else:
        raise ValueError(f"`coordinate_transformation_mode` `{mode}` cannot be trained through")
    return np.asarray(points, _F)


def _nearest(points: np.ndarray, mode: str, length: int) -> np.ndarray:
    rounded = {
        "ceil": np.ceil(points),
        "floor": np.floor(points),
        "round_prefer_ceil": np.floor(points + _F(0.5)),
        "round_prefer_floor": np.ceil(points - _F(0.5)),
    }
    found: np.ndarray = np.clip(rounded[mode], 0, length - 1)
    return found


def _taps(
    points: np.ndarray, length: int, scale: np.float32, mode: str, cubic_a: float, exclude: bool, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which inputs each output mixes, [size, taps], and with which weights, f32[size, taps]."""
    # Antialiasing stretches the kernel over all inputs that one output covers.
    stretch = min(scale, _F(1)) if antialias else _F(1)
    reach = int(np.ceil((1 if mode == "linear" else 2) / stretch))
    places = (np.floor(points) - (reach - 1))[:, None] + np.arange(2 * reach, dtype=_F)
    distance = np.abs(points[:, None] - places) * stretch
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, cubic_a)
    if exclude:
        weights = np.where((places >= 0) & (places < length), weights, 0)
    if exclude or antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, length - 1), weights


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel at the distance d, 0 from 2 on. Source: Keys 1981, equation 15 with a free."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)), d.dtype)


def _mixed(x: Tensor, axis: int, places: np.ndarray, weights: np.ndarray) -> Tensor:
    total: Tensor | None = None
    for tap in range(places.shape[1]):
        weight = torch.from_numpy(np.ascontiguousarray(weights[:, tap])).to(device=x.device, dtype=x.dtype)
        part = x.index_select(axis, _at(places[:, tap], x.device))
        part = part * weight.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        total = part if total is None else total + part
    assert total is not None
    return total


def _at(places: np.ndarray, device: Any) -> Tensor:
    return torch.from_numpy(places.astype(np.int64)).to(device)


@operator("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """x f32[N, C, *spatial] at the places grid f32[N, *outputs, rank], whose last axis runs x, y, z in -1..1."""
    kind = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return functional.grid_sample(x, grid, mode=kind, padding_mode=padding_mode, align_corners=bool(align_corners))
