"""Exchanged input channels: which pair, out of thousands, from one matrix product for each tap of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgewright.locate.alternatives import MOST_PAIRED_INPUTS
from edgewright.locate.changes import attribute, input_axis, weight_of

if TYPE_CHECKING:
    import onnx_ir as ir


def likely_input_swaps(node: ir.Node, source: np.ndarray, error: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Pairs of input channels whose exchange would make an error like `error`, the likeliest first.

    Exchanging i and j adds P = (W_j - W_i)(x_i - x_j) to the output, summed over the taps of the kernel. The product of P
    with the error comes from M = W^T E X, as M[j,i] + M[i,j] - M[i,i] - M[j,j]; its size (for one tap exactly) from the
    products of W and of X with themselves. By Cauchy and Schwarz the true pair has the largest product for its size.
    """
    weight = weight_of(node)
    if weight is None or attribute(node, "group", 1) != 1 or node.op_type == "ConvTranspose":
        return []
    if weight.shape[input_axis(node)] <= MOST_PAIRED_INPUTS:
        return []  # so few pairs are all tried
    gain: np.ndarray | float = 0.0
    size: np.ndarray | float = 0.0
    columns = np.moveaxis(error, _channel_axis(node), 0).reshape(error.shape[_channel_axis(node)], -1)
    for kernel, taken in _taps(node, weight, source, error.shape):
        gain = gain - _pairwise(kernel.T @ columns @ taken)
        size = size + _pairwise(kernel.T @ kernel) * _pairwise(taken.T @ taken)
    likeness = np.triu(np.asarray(gain) / np.sqrt(np.maximum(size, 1e-30)), 1)
    order = np.argsort(likeness, axis=None)[::-1][:most]
    return [
        (int(i), int(j)) for i, j in zip(*np.unravel_index(order, likeness.shape), strict=True) if likeness[i, j] > 0
    ]


def _pairwise(product: np.ndarray) -> np.ndarray:
    """m[i,i] + m[j,j] - m[i,j] - m[j,i]: for a Gram matrix, the squared distance of columns i and j."""
    own = np.diag(product)
    return np.asarray(own[:, None] + own[None] - product - product.T)


def _taps(
    node: ir.Node, weight: np.ndarray, source: np.ndarray, shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(f[out, in], f[positions, in]) for each tap of the kernel: the weights and the input values that they meet."""
    if node.op_type != "Conv":
        matrix = weight if input_axis(node) == 1 else weight.T
        yield np.asarray(matrix, np.float64), np.asarray(source, np.float64).reshape(-1, matrix.shape[1])
        return
    axes = weight.ndim - 2
    pads, strides = attribute(node, "pads", (0,) * 2 * axes), attribute(node, "strides", (1,) * axes)
    dilations = attribute(node, "dilations", (1,) * axes)
    widths = [(0, 0), (0, 0), *((pads[i], pads[axes + i]) for i in range(axes))]
    padded = np.pad(np.asarray(source, np.float64), widths)
    for tap in np.ndindex(*weight.shape[2:]):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        window = tuple(
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(starts, shape[2:], strides, strict=True)
        )
        taken = padded[(slice(None), slice(None), *window)]
        if taken.shape[2:] == shape[2:]:
            kernel = np.asarray(weight[(slice(None), slice(None), *tap)], np.float64)
            yield kernel, np.moveaxis(taken, 1, -1).reshape(-1, weight.shape[1])


def _channel_axis(node: ir.Node) -> int:
    """Axis of the output that runs over channels."""
    return -1 if node.op_type in ("Gemm", "MatMul") else 1
