"""Reductions along axes, positions of extremes, running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgewright.learn.operators.table import axes_of, axis_of, operator, scalar


def _product(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x


_REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "ReduceL1": lambda x, axes: x.abs().sum(axes, keepdim=True),
    "ReduceL2": lambda x, axes: torch.linalg.vector_norm(x, 2, axes, keepdim=True),  # its gradient at 0 is 0
    "ReduceLogSum": lambda x, axes: x.sum(axes, keepdim=True).log(),
    "ReduceLogSumExp": lambda x, axes: torch.logsumexp(x, axes, keepdim=True),
    "ReduceMax": lambda x, axes: torch.amax(x, axes, keepdim=True),
    "ReduceMean": lambda x, axes: x.mean(axes, keepdim=True),
    "ReduceMin": lambda x, axes: torch.amin(x, axes, keepdim=True),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes: x.sum(axes, keepdim=True, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes: x.square().sum(axes, keepdim=True),
}


def _reduction(function: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Callable[..., Tensor]:
    def evaluate(
        x: Tensor, axes_input: list[int] | None = None, *, axes: Sequence[int] | None = None, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:  # fmt: skip
        given = axes if axes_input is None else axes_input
        if not given:
            if noop_with_empty_axes or not x.ndim:
                return x
            given = range(x.ndim)
        over = axes_of(given, x.ndim)
        value = function(x, over)
        return value if keepdims else value.reshape([n for i, n in enumerate(x.shape) if i not in over])

    return evaluate


for _name, _function in _REDUCTIONS.items():
    operator(_name, host=(1,))(_reduction(_function))


@operator("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) largest value along `axis`, int64: no gradient."""
    return _position(x, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) smallest value along `axis`, int64: no gradient."""
    return _position(-x, axis, keepdims, select_last_index)


def _position(x: Tensor, axis: int, keepdims: int, last: int) -> Tensor:
    if not last:
        return x.argmax(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))


@operator("CumSum", host=(1,))
def cum_sum(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running sums along `axis`, from the end with `reverse`, without the element itself with `exclusive`."""
    over = axis_of(scalar(axis), x.ndim)
    value = x.flip(over) if reverse else x
    total = value.cumsum(over, dtype=x.dtype)
    total = total - value if exclusive else total
    return total.flip(over) if reverse else total


@operator("TopK", host=(1,))
def top_k(x: Tensor, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) values along `axis`, best first, and their positions; equal ones in their order."""
    values, order = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = scalar(k)
    return values.narrow(axis, 0, count), order.narrow(axis, 0, count)
