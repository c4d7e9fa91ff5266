"""Normalization. Narrow floats are computed in float32 and rounded once to the type of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, axes_of, axis_of, operator, scalar, widen


def _per_channel(x: Array, rank: int) -> Array:
    """f32[C] shaped to broadcast over f32[N, C, *spatial]."""
    return widen(x).reshape(-1, *[1] * (rank - 2))


def _standardize(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """((x - mean) / sqrt(variance + epsilon), mean, 1 / sqrt(variance + epsilon)), variance over the whole count."""
    count = int(np.prod([x.shape[axis] for axis in axes]))
    mean = x.sum(axis=axes, keepdims=True) / x.dtype.type(count)
    centred = x - mean
    variance = np.square(centred).sum(axis=axes, keepdims=True) / x.dtype.type(count)
    inverse = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    return centred * inverse, mean, inverse


@operator("BatchNormalization")
def batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> tuple[Array, ...]:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, per channel.

    In training mode, of the batch's own statistics; further outputs: running mean and variance after this batch.
    """
    value, rank = widen(x), x.ndim
    if rank < 2 or any(p.shape != (x.shape[1],) for p in (scale, bias, mean, variance)):
        shapes = [list(p.shape) for p in (scale, bias, mean, variance)]
        raise ValueError(f"parameters {shapes} do not fit x {list(x.shape)}")
    used_mean, used_variance = widen(mean), widen(variance)
    if training_mode:
        axes = (0, *range(2, rank))
        used_mean, used_variance = value.mean(axis=axes), value.var(axis=axes)
    factor = widen(scale) / np.sqrt(used_variance + used_variance.dtype.type(epsilon))
    y = (value - _per_channel(used_mean, rank)) * _per_channel(factor, rank) + _per_channel(bias, rank)
    if not training_mode:
        return (y.astype(x.dtype),)
    running = [
        (widen(old) * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, used_mean), (variance, used_variance))
    ]
    return (y.astype(x.dtype), *running)


@operator("InstanceNormalization")
def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    """Each channel of each sample standardized over its spatial axes, times scale, plus bias."""
    if x.ndim < 3 or scale.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(f"scale {list(scale.shape)} and bias {list(bias.shape)} do not fit x {list(x.shape)}")
    y, _, _ = _standardize(widen(x), tuple(range(2, x.ndim)), epsilon)
    return np.asarray(y * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)).astype(x.dtype)


@operator("GroupNormalization")
def group_normalization(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """Each group of channels of each sample standardized, then scale and bias f32[C].

    Scale and bias f32[num_groups], as opset 18 had them, are read too.
    """
    channels = x.shape[1]
    if channels % num_groups:
        raise ValueError(f"{channels} channels do not split into {num_groups} groups")
    grouped = widen(x).reshape(x.shape[0], num_groups, -1)
    y = _standardize(grouped, (2,), epsilon)[0].reshape(x.shape)
    factors = [p if p.size == channels else np.repeat(p, channels // num_groups) for p in (scale, bias)]
    return np.asarray(y * _per_channel(factors[0], x.ndim) + _per_channel(factors[1], x.ndim)).astype(x.dtype)


@operator("LayerNormalization")
def layer_normalization(
    x: Array, scale: Array, bias: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array, Array]:
    """Each sample standardized over `axis` and all behind it, times scale, plus bias; also mean and 1 / deviation."""
    axes = tuple(range(axis_of(axis, x.ndim), x.ndim))
    y, mean, inverse = _standardize(widen(x), axes, epsilon)
    y = y * widen(scale)
    if bias is not None:
        y = y + widen(bias)
    if y.shape != x.shape:
        raise ValueError(f"scale {list(scale.shape)} does not broadcast to x {list(x.shape)}")
    return y.astype(x.dtype), mean, inverse


@operator("LRN")
def local_response_normalization(
    x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """x / (bias + alpha / size times the sum of squares of `size` neighbouring channels) ** beta.

    Source: Krizhevsky et al. 2012, section 3.3; ONNX operator specification, LRN.
    """
    value = widen(x)
    before = (size - 1) // 2
    squares = np.pad(np.square(value), [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
    total = sum((squares[:, i : i + x.shape[1]] for i in range(size)), np.zeros_like(value))
    return np.asarray(value / (bias + alpha / size * total) ** beta).astype(x.dtype)


@operator("LpNormalization")
def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """x over its p-norm along `axis`; 0 where the norm is 0."""
    value = widen(x)
    norm = np.linalg.norm(value, ord=p, axis=axis, keepdims=True)
    return np.where(norm == 0, 0, value / norm).astype(x.dtype)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """(x - mean) / (deviation + 1e-9) over `axes`."""
    value, over = widen(x), axes_of(axes, x.ndim)
    deviation = value.std(axis=over, keepdims=True)
    return np.asarray((value - value.mean(axis=over, keepdims=True)) / (deviation + 1e-9)).astype(x.dtype)


@operator("Dropout")
def dropout(
    x: Array, ratio: Array | None = None, training_mode: Array | None = None, *, seed: Any = None
) -> tuple[Array, Array]:
    """x, and a mask that keeps all: deployed networks drop nothing.

    Raises:
        ValueError: It is asked to drop at random, which has no reference value.
    """
    if training_mode is not None and scalar(training_mode) and (0.5 if ratio is None else scalar(ratio)) > 0:
        raise ValueError("dropout in training mode is random, it has no reference value")
    return x, np.ones(x.shape, bool)
