"""Weights as integers: symmetric, with the scales that lose least, one for each output or block of weights.

    w ~ q s,    q = clip(round(w / s), -2^(b-1), 2^(b-1) - 1)

For a given q the best scale is closed: s = <w, q> / <q, q>, with the error |w|^2 - <w, q>^2 / <q, q>. What is searched is
the q, over scales below the one that just holds the largest weight: clipping it may pay.
Source: least squares; the search as in Banner et al. 2019, "Post training 4-bit quantization", by grid for any density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Elements of one step of the search, which holds about four arrays of this size.
_CHUNK = 1 << 20
#: Shares of the largest scale that are tried: few bits gain from clipping, many hardly do.
_SHARES = {4: np.linspace(0.5, 1.05, 23), 7: np.linspace(0.85, 1.0, 11), 8: np.linspace(0.9, 1.0, 9)}


@dataclass(frozen=True, eq=False)
class Narrowed:
    """Weights as integers.

    Attributes:
        integers: int8, in the shape of the weights; `bits` of each are used.
        scales: f32 of the weights' rank: along each axis one for all, one for each index, or one for each block.
        bits: 4, 7 or 8.
        block: (axis, size) where the weights of an axis have a scale for each block; None where they have not.
    """

    integers: np.ndarray
    scales: np.ndarray
    bits: int
    block: tuple[int, int] | None = None

    def restored(self) -> np.ndarray:
        """The weights that the integers stand for, f32."""
        scales = self.scales
        if self.block is not None:
            axis, size = self.block
            scales = np.take(np.repeat(scales, size, axis=axis), range(self.integers.shape[axis]), axis=axis)
        restored: np.ndarray = self.integers.astype(np.float32) * scales
        return restored


def by_axes(weights: np.ndarray, kept: tuple[int, ...], bits: int) -> Narrowed:
    """One scale for each index into the axes `kept`."""
    others = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    order = (*kept, *others)
    moved = weights.transpose(order)
    integers, scales = _rows(moved.reshape(math.prod(weights.shape[axis] for axis in kept), -1), bits)
    sizes = [size if axis in kept else 1 for axis, size in enumerate(weights.shape)]
    back = integers.reshape(moved.shape).transpose(np.argsort(order))
    return Narrowed(np.ascontiguousarray(back), scales.reshape(sizes), bits)


def by_blocks(weights: np.ndarray, axis: int, size: int, bits: int) -> Narrowed:
    """One scale for each `size` weights along `axis`; the last block may be shorter."""
    moved = np.moveaxis(weights, axis, -1)
    length = moved.shape[-1]
    count = -(-length // size)
    padded = np.zeros((*moved.shape[:-1], count * size), weights.dtype)
    padded[..., :length] = moved
    integers, scales = _rows(padded.reshape(-1, size), bits)
    flat = integers.reshape(padded.shape)[..., :length]
    spread = scales.reshape(*moved.shape[:-1], count)
    return Narrowed(
        np.ascontiguousarray(np.moveaxis(flat, -1, axis)),
        np.ascontiguousarray(np.moveaxis(spread, -1, axis)),
        bits,
        (axis, size),
    )


def _rows(rows: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """int8[R, K] and f32[R] for f32[R, K], each row with the scale that loses least."""
    integers, scales = np.empty(rows.shape, np.int8), np.empty(len(rows), np.float32)
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        integers[part], scales[part] = _best(np.asarray(rows[part], np.float32), bits)
    return integers, scales


def _best(rows: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(axis=1, initial=0) / np.float32(high)
    zero = largest < np.finfo(np.float32).tiny * 2**bits  # below it the scale itself would lose bits
    largest = np.where(zero, np.float32(1), largest).astype(np.float32)
    unit = rows / largest[:, None]  # |unit| <= high: squares of weights cannot overflow
    chosen, gained = np.ones(len(rows), np.float32), np.full(len(rows), -1.0, np.float32)
    for share in _SHARES[bits].astype(np.float32):
        grid = np.clip(np.rint(unit / share), low, high)
        product, square = np.einsum("rk,rk->r", unit, grid), np.einsum("rk,rk->r", grid, grid)
        square = np.maximum(square, 1)
        gain = product * product / square  # |w|^2 less the error
        better = gain > gained
        gained = np.where(better, gain, gained)
        chosen = np.where(better, np.where(product > 0, product / square, 1), chosen)
    integers = np.clip(np.rint(unit / chosen[:, None]), low, high).astype(np.int8)
    return integers, (largest * chosen).astype(np.float32)
