"""Resampling: Resize (every mode, antialiased too), GridSample and AffineGrid.

Coordinates are computed in float32, as the frameworks do: a position that lies exactly between two pixels in float32
and just beside it in float64 would else pick another neighbour.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.runtimes.reference.operators import Array, axes_of, is_float, operator, widen

_F = np.float32


@dataclass(frozen=True)
class Filter:
    """How one axis is resampled: the attributes of Resize that matter to it."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


@operator("Resize")
def resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
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
) -> Array:
    """x resampled along `axes` to `sizes`, or to floor(size times scale); one axis after the other.

    Source: ONNX operator specification, Resize; Keys 1981 for the cubic kernel.
    """
    over = axes_of(range(x.ndim) if axes is None else axes, x.ndim)
    factors, outputs = _targets(x, over, scales, sizes, keep_aspect_ratio_policy)
    regions = _regions(roi, over) if coordinate_transformation_mode == "tf_crop_and_resize" else {}
    kind = Filter(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias)
    )
    value, outside = widen(x), np.zeros([1] * x.ndim, bool)
    for axis, factor, size in zip(over, factors, outputs, strict=True):
        if size == x.shape[axis] and factor == 1 and axis not in regions:
            continue
        points = _coordinates(size, x.shape[axis], factor, kind.coordinates, regions.get(axis))
        if axis in regions:
            beyond = (points < 0) | (points > x.shape[axis] - 1)
            outside = outside | beyond.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        value = _resample(value, axis, points, factor, kind)
    if outside.any():
        value = np.where(outside, value.dtype.type(extrapolation_value), value)
    return _as_type(value, x)


def _as_type(value: Array, x: Array) -> Array:
    if is_float(x) or value.dtype == x.dtype:
        return np.asarray(value, x.dtype)
    limits = np.iinfo(x.dtype)
    return np.asarray(np.clip(np.trunc(value), limits.min, limits.max), x.dtype)


def _targets(
    x: Array, axes: tuple[int, ...], scales: Array | None, sizes: Array | None, policy: str
) -> tuple[list[np.float32], list[int]]:
    """(scale, output size) of each axis."""
    have = [x.shape[axis] for axis in axes]
    if sizes is not None and sizes.size:
        wanted = [int(size) for size in sizes]
        if len(wanted) != len(axes):
            raise ValueError(f"`sizes` has {len(wanted)} values, but {len(axes)} axes are resized")
        factors = [_F(w) / _F(h) for w, h in zip(wanted, have, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            wanted = [int(np.floor(factor * _F(h) + _F(0.5))) for h in have]
        return factors, wanted
    if scales is None or len(scales) != len(axes):
        raise ValueError(f"{len(axes)} axes need as many `scales` or `sizes`")
    if (scales <= 0).any():
        raise ValueError(f"`scales` are {scales.tolist()}, but must be above 0")
    return [_F(s) for s in scales], [int(np.floor(_F(s) * _F(h))) for s, h in zip(scales, have, strict=True)]


def _regions(roi: Array | None, axes: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    if roi is None or roi.size != 2 * len(axes):
        raise ValueError(f"`roi` must hold {2 * len(axes)} values")
    return {axis: (float(roi[i]), float(roi[i + len(axes)])) for i, axis in enumerate(axes)}


def _coordinates(size: int, length: int, scale: np.float32, mode: str, region: tuple[float, float] | None) -> Array:
    """Where each of `size` outputs lies on an input axis of `length`, f32[size]."""
    at, last = np.arange(size, dtype=_F), _F(length - 1)
    half = (at + _F(0.5)) / scale - _F(0.5)
    if mode == "half_pixel":
        points = half
    elif mode == "pytorch_half_pixel":
        points = half if size > 1 else np.zeros(size, _F)
    elif mode == "half_pixel_symmetric":
        # The output may cover a little less than scale times the input: keep its centre on the input's centre.
        points = _F(length) / _F(2) * (1 - _F(size) / (scale * _F(length))) + half
    elif mode == "asymmetric":
        points = at / scale
    elif mode == "align_corners":
        points = at * last / _F(max(size - 1, 1))
    elif mode == "tf_crop_and_resize" and region is not None:
        low, high = _F(region[0]), _F(region[1])
        middle = _F(0.5) * (low + high) * last
        points = low * last + at * (high - low) * last / _F(size - 1) if size > 1 else np.full(size, middle)
    else:
        raise ValueError(f"`coordinate_transformation_mode` is `{mode}`, which is not defined")
    return np.asarray(points, _F)


def _resample(x: Array, axis: int, points: Array, scale: np.float32, kind: Filter) -> Array:
    length = x.shape[axis]
    if kind.mode == "nearest":
        rounding = _NEAREST.get(kind.nearest)
        if rounding is None:
            raise ValueError(f"`nearest_mode` is `{kind.nearest}`, but must be {', '.join(_NEAREST)}")
        places = np.clip(rounding(points), 0, length - 1).astype(np.int64)
        return np.asarray(np.take(x, places, axis=axis))
    if kind.mode not in ("linear", "cubic"):
        raise ValueError(f"`mode` is `{kind.mode}`, but must be nearest, linear or cubic")
    indices, weights = _taps(points, length, scale, kind)
    value = x if is_float(x) else x.astype(_F)
    total = np.zeros((*x.shape[:axis], len(points), *x.shape[axis + 1 :]), value.dtype)
    along = [-1 if i == axis else 1 for i in range(x.ndim)]
    for tap in range(indices.shape[1]):
        total += np.take(value, indices[:, tap], axis=axis) * weights[:, tap].astype(value.dtype).reshape(along)
    return total


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda points: np.floor(points + _F(0.5)),
    "round_prefer_floor": lambda points: np.ceil(points - _F(0.5)),
}


def _taps(points: Array, length: int, scale: np.float32, kind: Filter) -> tuple[Array, Array]:
    """Which inputs each output mixes, int64[size, taps], and with which weights, f32[size, taps]."""
    support = 1 if kind.mode == "linear" else 2
    # Antialiasing stretches the kernel over all inputs that one output covers.
    stretch = min(scale, _F(1)) if kind.antialias else _F(1)
    reach = int(np.ceil(support / stretch))
    first = np.floor(points) - (reach - 1)
    places = first[:, None] + np.arange(2 * reach, dtype=_F)
    distance = np.abs(points[:, None] - places) * stretch
    weights = np.maximum(1 - distance, 0) if kind.mode == "linear" else cubic(distance, kind.cubic_a)
    if kind.exclude_outside:
        weights = np.where((places >= 0) & (places < length), weights, 0)
    if kind.exclude_outside or kind.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, length - 1).astype(np.int64), weights


def cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel at |distance|, 0 from 2 on. Source: Keys 1981, equation 15 with a free."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)), d.dtype)


@operator("GridSample")
def grid_sample(
    x: Array, grid: Array, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Array:
    """x f32[N, C, *spatial] at the places grid f32[N, *outputs, rank], whose last axis runs x, y, z in -1..1.

    Source: Jaderberg et al. 2015, Spatial Transformer Networks; ONNX operator specification, GridSample.
    """
    sizes, value = x.shape[2:], widen(x)
    if grid.shape[-1] != len(sizes) or grid.shape[0] != x.shape[0]:
        raise ValueError(f"grid {list(grid.shape)} does not fit x {list(x.shape)}")
    places = widen(grid)[..., ::-1]  # slowest axis first, as in x
    extents = np.array(sizes, places.dtype)
    points = (places + 1) / 2 * (extents - 1) if align_corners else ((places + 1) * extents - 1) / 2
    if mode == "nearest":
        places = np.rint(_bounded(points, sizes, align_corners, padding_mode))
        return _fetch(value, places, padding_mode, align_corners).astype(x.dtype)
    taps = 4 if mode in ("cubic", "bicubic") else 2
    if taps == 2:
        points = _bounded(points, sizes, align_corners, padding_mode)
    base = np.floor(points) - (taps // 2 - 1)
    total = np.zeros((*x.shape[:2], *grid.shape[1:-1]), value.dtype)
    for offset in itertools.product(range(taps), repeat=len(sizes)):
        place = base + np.array(offset, places.dtype)
        distance = np.abs(points - place)
        weight = (cubic(distance, -0.75) if taps == 4 else 1 - distance).prod(axis=-1)
        total += _fetch(value, place, padding_mode, align_corners) * weight[:, None]
    return total.astype(x.dtype)


def _bounded(points: Array, sizes: Sequence[int], align_corners: int, padding_mode: str) -> Array:
    """Points moved inside the image as the padding mode says; unchanged for zeros."""
    if padding_mode == "zeros":
        return points
    last = np.array(sizes, points.dtype) - 1
    if padding_mode == "border":
        return np.asarray(np.clip(points, 0, last))
    low, high = (np.zeros_like(last), last) if align_corners else (np.zeros_like(last) - 0.5, last + 0.5)
    span = np.where(high > low, high - low, 1)
    turns = np.abs(points - low)
    folded = turns % (2 * span)
    return np.asarray(np.clip(np.where(folded > span, 2 * span - folded, folded) + low, 0, last))


def _fetch(x: Array, places: Array, padding_mode: str, align_corners: int) -> Array:
    """x f[N, C, *spatial] at whole-numbered places f[N, *outputs, rank]: f[N, C, *outputs]; 0 outside."""
    sizes = x.shape[2:]
    places = _bounded(places, sizes, align_corners, padding_mode)
    inside = np.all((places >= 0) & (places < np.array(sizes)), axis=-1)
    indices = np.clip(np.nan_to_num(places), 0, np.array(sizes) - 1).astype(np.int64)
    sample = np.arange(len(x)).reshape(-1, *[1] * (places.ndim - 2))
    found = x[(sample, slice(None), *np.moveaxis(indices, -1, 0))]  # f[N, *outputs, C]
    return np.asarray(np.where(inside[:, None], np.moveaxis(found, -1, 1), 0))


@operator("AffineGrid")
def affine_grid(theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """Places for GridSample: theta f32[N, rank, rank + 1] times the homogeneous places of an image of `size`."""
    spatial = [int(length) for length in size[2:]]
    axes = []
    for length in spatial:
        at = np.arange(length, dtype=np.float64)
        axes.append(at * 2 / max(length - 1, 1) - 1 if align_corners else (2 * at + 1) / length - 1)
    places = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(spatial)], axis=-1).astype(widen(theta).dtype)
    return np.asarray(np.einsum("nij,...j->n...i", widen(theta), places)).astype(theta.dtype)
