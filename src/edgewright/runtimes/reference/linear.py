"""Matrix products. Narrow floats are multiplied and summed in float32, then rounded once; sums are in BLAS order."""

from __future__ import annotations

import numpy as np

from edgewright.runtimes.reference.operators import Array, operator, widen


@operator("MatMul")
def matmul(a: Array, b: Array) -> Array:
    """f32[..., N, K] x f32[..., K, M] -> f32[..., N, M], with numpy's rules for vectors and broadcasting."""
    return np.asarray(np.matmul(widen(a), widen(b))).astype(a.dtype)


@operator("Gemm")
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the attribute's name
    transB: int = 0,  # noqa: N803
) -> Array:
    """alpha a b + beta c, either matrix transposed on request; c broadcasts to f32[N, M]."""
    left, right = widen(a), widen(b)
    product = np.matmul(left.T if transA else left, right.T if transB else right)
    if alpha != 1:
        product = product * product.dtype.type(alpha)
    if c is not None:
        product = product + (widen(c) if beta == 1 else widen(c) * product.dtype.type(beta))
    return np.asarray(product).astype(a.dtype)


@operator("Einsum")
def einsum(*tensors: Array, equation: str) -> Array:
    """The sum that `equation` writes in Einstein's notation; spaces mean nothing."""
    result = np.einsum(equation.replace(" ", ""), *map(widen, tensors), optimize=True)
    return np.asarray(result).astype(tensors[0].dtype)


@operator("Det")
def determinant(x: Array) -> Array:
    """f32[..., N, N] -> f32[...]."""
    return np.asarray(np.linalg.det(widen(x))).astype(x.dtype)


def exact_matmul(a: Array, b: Array) -> Array:
    """Integer matrices multiplied without rounding, int64; through float64, which holds integers up to 2^53.

    Products of two bytes stay below 2^17, so 2^36 of them may be summed.
    """
    return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64))).astype(np.int64)
