"""Reading and writing by index; constants that are made from sizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edgewright.learn.operators.table import axis_of, operator, scalar, torch_dtype


def _wrapped(indices: Tensor, x: Tensor, axis: int) -> Tensor:
    """Indices counted from the front, beside `x`."""
    found = indices.to(device=x.device, dtype=torch.int64)
    return torch.where(found < 0, found + x.shape[axis], found)


@operator("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Slices of x along `axis`: the axis is replaced by the shape of `indices`."""
    axis = axis_of(axis, x.ndim)
    places = _wrapped(indices, x, axis)
    if not places.ndim:
        return x.select(axis, int(places))
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """x at `indices` along `axis`, elsewhere at the same place; the shape of `indices`."""
    axis = axis_of(axis, x.ndim)
    return torch.gather(x, axis, _wrapped(indices, x, axis))


@operator("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Slices of x at the index tuples in the last axis of `indices`, behind `batch_dims` shared axes."""
    batch, depth = x.shape[:batch_dims], indices.shape[-1]
    data = x.reshape(-1, *x.shape[batch_dims:])
    tuples = indices.reshape(len(data), -1, depth)
    places = [_wrapped(tuples[..., i], data, i + 1) for i in range(depth)]
    samples = torch.arange(len(data), device=x.device)[:, None]
    found = data[(samples, *places)]
    return found.reshape(*batch, *indices.shape[batch_dims:-1], *x.shape[batch_dims + depth :])


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """A copy of x with `updates` written (or reduced in) at `indices` along `axis`."""
    axis = axis_of(axis, x.ndim)
    places = _wrapped(indices, x, axis)
    if reduction == "none":
        return torch.scatter(x, axis, places, updates)
    return torch.scatter_reduce(x, axis, places, updates, reduce=_REDUCE[reduction])


@operator("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """A copy of x with the slices `updates` written (or added) at the index tuples `indices`."""
    if reduction not in ("none", "add"):
        raise ValueError(f"`reduction` is `{reduction}`, but must be none or add")
    places = tuple(_wrapped(indices[..., i], x, i) for i in range(indices.shape[-1]))
    return torch.index_put(x, places, updates, accumulate=reduction == "add")


@operator("Constant")
def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: Any = None,
    value_int: int | None = None,
    value_ints: Any = None,
) -> Tensor:
    """The tensor that the one attribute present holds; Python floats are float32, integers int64."""
    if value is not None:
        return value
    floats = value_float if value_float is not None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_int if value_int is not None else value_ints, dtype=torch.int64)


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(shape: list[int], *, value: Tensor | None = None) -> Tensor:
    """A tensor of `shape` filled with the one element of `value`, f32 0 by default."""
    if value is None:
        return torch.zeros(shape)
    return torch.full(shape, value.item(), dtype=value.dtype)


@operator("Range")
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... as long as it is before `limit`."""
    first, step = start.item(), delta.item()
    count = max(math.ceil((limit.item() - first) / step), 0)
    return (torch.arange(count, dtype=torch.float64) * step + first).to(start.dtype)


@operator("OneHot", host=(1,))
def one_hot(indices: Tensor, depth: Any, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] at each index on a new axis of size `depth`, values[0] elsewhere; indices outside set nothing."""
    size = scalar(depth)
    axis = axis_of(axis, indices.ndim + 1)
    wanted = indices.to(torch.int64).unsqueeze(axis)
    wanted = torch.where(wanted < 0, wanted + size, wanted)
    places = torch.arange(size, device=indices.device).reshape([-1 if i == axis else 1 for i in range(wanted.ndim)])
    return torch.where(places == wanted, values[1], values[0])


@operator("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """1 on the k-th diagonal of a matrix as large as x, else 0."""
    kind = x.dtype if dtype is None else torch_dtype(dtype)
    places = torch.arange(x.shape[1], device=x.device) - torch.arange(x.shape[0], device=x.device)[:, None]
    return (places == k).to(kind)
