"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from edgewright.learn.operators.table import operator


@operator("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """f32[..., N, K] x f32[..., K, M] -> f32[..., N, M], with numpy's rules for vectors and broadcasting."""
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the attribute's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """alpha a b + beta c, either matrix transposed on request; c broadcasts to f32[N, M]."""
    left, right = a.t() if transA else a, b.t() if transB else b
    if c is None:
        product = torch.mm(left, right)
        return product if alpha == 1 else product * alpha
    return torch.addmm(c, left, right, alpha=alpha, beta=beta)


@operator("Einsum")
def einsum(*tensors: Tensor, equation: str) -> Tensor:
    """The sum that `equation` writes in Einstein's notation; spaces mean nothing."""
    return torch.einsum(equation.replace(" ", ""), *tensors)
