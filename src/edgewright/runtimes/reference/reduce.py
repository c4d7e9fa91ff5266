"""Reductions along axes. Sums are numpy's (pairwise along contiguous axes); narrow floats are summed in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, axes_of, axis_of, is_float, operator, scalar, widen

Reduction = Callable[[Array, tuple[int, ...]], Any]  # keeps the reduced axes as size 1


def _lowest(x: Array) -> Any:
    return -np.inf if is_float(x) else False if x.dtype == bool else np.iinfo(x.dtype).min


def _highest(x: Array) -> Any:
    return np.inf if is_float(x) else True if x.dtype == bool else np.iinfo(x.dtype).max


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(x.sum(axis=axes, keepdims=True, dtype=x.dtype))


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    count = x.dtype.type(np.prod([x.shape[axis] for axis in axes]))
    return np.asarray(np.true_divide(_sum(x, axes), count))


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    largest = x.max(axis=axes, keepdims=True, initial=-np.inf) if x.dtype.kind == "f" else _sum(x, axes) * 0.0
    largest = np.where(np.isfinite(largest), largest, 0).astype(x.dtype if x.dtype.kind == "f" else np.float64)
    return np.asarray(np.log(np.exp(x - largest).sum(axis=axes, keepdims=True)) + largest)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes: _sum(np.abs(x), axes),
    "ReduceL2": lambda x, axes: np.sqrt(_sum(np.square(x), axes)),
    "ReduceLogSum": lambda x, axes: np.log(_sum(x, axes)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda x, axes: x.max(axis=axes, keepdims=True, initial=_lowest(x)),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes: x.min(axis=axes, keepdims=True, initial=_highest(x)),
    "ReduceProd": lambda x, axes: x.prod(axis=axes, keepdims=True, dtype=x.dtype),
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes: _sum(np.square(x), axes),
}


def _reduction(function: Reduction) -> Callable[..., Array]:
    def evaluate(
        x: Array, axes_input: Array | None = None, *, axes: Sequence[int] | None = None, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Array:  # fmt: skip
        given = axes if axes_input is None else axes_input
        if given is None or len(given) == 0:
            if noop_with_empty_axes:
                return np.asarray(function(widen(x), ())).astype(x.dtype)
            given = range(x.ndim)
        over = axes_of(given, x.ndim)
        value = np.asarray(function(widen(x), over)).astype(x.dtype)
        return value if keepdims else value.squeeze(over)

    return evaluate


for _name, _function in _REDUCTIONS.items():
    operator(_name)(_reduction(_function))


@operator("ArgMax")
def arg_max(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Position of the first (or last) largest value along `axis`, int64."""
    return _position(np.argmax, x, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Position of the first (or last) smallest value along `axis`, int64."""
    return _position(np.argmin, x, axis, keepdims, select_last_index)


def _position(function: Callable[..., Any], x: Array, axis: int, keepdims: int, last: int) -> Array:
    axis = axis_of(axis, x.ndim)
    value = widen(x)
    if last:
        found = x.shape[axis] - 1 - function(np.flip(value, axis), axis=axis)
    else:
        found = function(value, axis=axis)
    return np.asarray(np.expand_dims(found, axis) if keepdims else found).astype(np.int64)


@operator("CumSum")
def cum_sum(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running sums along `axis`, from the end with `reverse`, without the element itself with `exclusive`."""
    along = axis_of(int(scalar(axis)), x.ndim)
    value = np.flip(widen(x), along) if reverse else widen(x)
    total = np.cumsum(value, axis=along, dtype=value.dtype)
    if exclusive:
        total = np.roll(total, 1, axis=along)
        total[tuple(slice(0, 1) if i == along else slice(None) for i in range(x.ndim))] = 0
    return (np.flip(total, along) if reverse else total).astype(x.dtype)


@operator("TopK")
def top_k(x: Array, k: Array, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:
    """The k largest (or smallest) values along `axis`, best first, and their positions; equal ones in their order."""
    axis, count = axis_of(axis, x.ndim), int(scalar(k))
    size = x.shape[axis]
    if not 0 <= count <= size:
        raise ValueError(f"k is {count}, but the axis has {size} values")
    value = widen(x)
    if largest:  # sort backwards twice: a stable descending order without negating, which unsigned types cannot
        order = np.flip(size - 1 - np.argsort(np.flip(value, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(value, axis=axis, kind="stable")
    order = np.take(order, range(count), axis=axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)
