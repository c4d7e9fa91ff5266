"""Normalization. Batch norm uses the statistics that the graph holds, unless the network is told to learn new ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import along, axes_of, axis_of, operator


@operator("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, per channel.

    In training mode, of the batch's own statistics, and `mean` and `variance` move towards these, in place.
    """
    return functional.batch_norm(
        x, mean, variance, scale, bias, training=bool(training_mode), momentum=1 - momentum, eps=epsilon
    )


@operator("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Each channel of each sample standardized over its spatial axes, times scale, plus bias."""
    y = _standardized(x, tuple(range(2, x.ndim)), epsilon)
    return y * along(scale, 1, x.ndim) + along(bias, 1, x.ndim)


@operator("GroupNormalization")
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Each group of channels of each sample standardized, then scale and bias f32[C] (or f32[num_groups], opset 18)."""
    channels = x.shape[1]
    weight, shift = (p if len(p) == channels else p.repeat_interleave(channels // num_groups) for p in (scale, bias))
    return torch.group_norm(x, num_groups, weight, shift, epsilon)  # functional's refuses groups of one value


@operator("LayerNormalization")
def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Each sample standardized over `axis` and all behind it, times scale, plus bias."""
    axis = axis_of(axis, x.ndim)
    sizes = x.shape[axis:]
    if scale.shape == sizes and (bias is None or bias.shape == sizes):
        return functional.layer_norm(x, sizes, scale, bias, epsilon)
    y = _standardized(x, tuple(range(axis, x.ndim)), epsilon) * scale
    return y if bias is None else y + bias


@operator("LRN")
def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """x / (bias + alpha / size times the sum of squares of `size` neighbouring channels) ** beta."""
    before = (size - 1) // 2
    around = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    squares = functional.pad(x.square(), around).unfold(1, size, 1).sum(-1)
    return x / (bias + alpha / size * squares) ** beta


@operator("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x over its p-norm along `axis`; 0 where the norm is 0."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over `axes`."""
    over = axes_of(axes, x.ndim)
    centred = x - x.mean(over, keepdim=True)
    return centred / (centred.square().mean(over, keepdim=True).sqrt() + 1e-9)


def _standardized(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
