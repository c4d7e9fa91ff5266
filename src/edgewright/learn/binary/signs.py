"""The sign of a number, +1 at 0, with what stands for its gradient, which is 0 almost everywhere.

ste         1 where |u| <= 1, else 0
            Source: Courbariaux et al. 2016, "Binarized Neural Networks", section 1.3
ede         k t (1 - tanh^2(t u)): flat at first, then ever steeper (`schedule`)
            Source: Qin et al. 2020, "Forward and Backward Information Retention", section 3.3
polynomial  max(2 - 2 |u|, 0): of the piecewise square that runs beside the sign
            Source: Liu et al. 2018, "Bi-Real Net", section 3.3
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgewright.learn.binary.method import Estimator


def slope(u: Tensor, estimator: Estimator, t: Tensor | float = 1.0, k: Tensor | float = 1.0) -> Tensor:
    """What stands for the gradient of the sign at `u`, of its shape; `t` and `k` are those of EDE."""
    if estimator == "ede":
        return k * t * (1 - torch.tanh(u * t).square())
    if estimator == "polynomial":
        return (2 - 2 * u.abs()).clamp(min=0)
    return (u.abs() <= 1).to(u.dtype)


class _Sign(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed for us
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, threshold: Tensor, spread: Tensor | None, estimator: Estimator, t: Any, k: Any
    ) -> Tensor:
        ctx.save_for_backward(x, threshold, spread)
        ctx.how = (estimator, t, k)
        # By comparison: x - threshold could round, and the layer that ships compares.
        return torch.where(x < threshold, -1.0, 1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, threshold, spread = ctx.saved_tensors
        if spread is None:
            passed = gradient * slope(x - threshold, *ctx.how)
        else:
            passed = gradient * slope((x - threshold) / spread, *ctx.how) / spread
        of_threshold = -passed.sum_to_size(threshold.shape) if ctx.needs_input_grad[1] else None
        return passed, of_threshold, None, None, None, None


def sign(
    x: Tensor,
    estimator: Estimator = "ste",
    *,
    threshold: Tensor | None = None,
    spread: Tensor | None = None,
    t: Tensor | float = 1.0,
    k: Tensor | float = 1.0,
) -> Tensor:
    """-1 where x lies below the threshold (0 by default), +1 elsewhere; of the shape of x, with a gradient.

    Args:
        x: Floats.
        estimator: What stands for the gradient, by x - threshold.
        threshold: Broadcasts to x; it gets the gradient with the sign turned.
        spread: The unit in which the gradient measures x - threshold, broadcasting to x, above 0; 1 where it is None.
        t: Of EDE.
        k: Of EDE.
    """
    made: Tensor = _Sign.apply(x, x.new_zeros(()) if threshold is None else threshold, spread, estimator, t, k)
    return made
