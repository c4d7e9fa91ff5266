"""Rounding of weights whose errors compensate each other on the inputs that the layer really sees.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
algorithm 1 (columns ordered by their input's power, as in its reference implementation).
"""

from __future__ import annotations

import numpy as np

from edgewright.graph.int8 import LARGEST_SAFE_PAIR, Room

#: Columns that are rounded before the rest is updated: keeps the work in matrix products.
_BLOCK = 64
#: Part of the mean diagonal added to the second moments, so that few samples do not overfit.
_DAMPING = 0.01
#: Of weights that are all 0.
_LEAST_STEP = float(np.finfo(np.float32).tiny)
#: A layer with longer rows is rounded to nearest: the second moments alone would take a gigabyte.
LONGEST_ROW = 8192
_SHRINKS = np.linspace(1.0, 0.7, 13)


def weight_scales(rows: np.ndarray, power: np.ndarray, room: Room, floor: np.ndarray) -> np.ndarray:
    """Step of each output channel, f32[G, O]: least squared error of what the layer makes, inputs taken as independent.

    Args:
        rows: Weights, f32[G, O, K].
        power: Mean square of each input, f64[G, K].
        room: The integers that there are.
        floor: Least step, f64[G, O]: below it the bias would leave int32.
    """
    widest = room.least_step(rows)
    most = power.max(axis=1, keepdims=True)
    weights = np.divide(power, most, out=np.ones_like(power), where=most > 0).astype(np.float32)[:, None, :]
    best = np.maximum(widest, floor)
    least = np.full(best.shape, np.inf)
    for shrink in _SHRINKS:
        step = np.maximum(widest * shrink, np.maximum(floor, _LEAST_STEP)).astype(np.float32)
        exact = rows / step[..., None]
        error = (np.square(room.held(np.rint(exact)) - exact) * weights).sum(axis=2) * np.square(step, dtype=np.float64)
        better = error < least
        best, least = np.where(better, step, best), np.where(better, error, least)
    result: np.ndarray = best.astype(np.float32)
    return result


def nearest(rows: np.ndarray, scales: np.ndarray, room: Room) -> np.ndarray:
    """Weights rounded to nearest, int8[G, O, K]."""
    levels: np.ndarray = room.held(np.rint(rows / scales[..., None])).astype(np.int8)
    return levels


def compensated(rows: np.ndarray, scales: np.ndarray, moments: np.ndarray, room: Room) -> np.ndarray:
    """Weights rounded one input after another, each error passed on to the inputs that are left, int8[G, O, K].

    Args:
        rows: Weights, f32[G, O, K].
        scales: Step of each output channel, f32[G, O].
        moments: Second moments of the inputs, f32[G, K, K].
        room: The integers that there are.
    """
    groups, _, length = rows.shape
    diagonal = np.einsum("gkk->gk", moments)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    group = np.arange(groups)[:, None]
    factor = _inverse_factor(moments[group[:, :, None], order[:, :, None], order[:, None, :]])
    if factor is None:
        return nearest(rows, scales, room)
    taken = _Taken(room, order, rows.shape)
    left = np.take_along_axis(rows, order[:, None, :], axis=2)
    step = scales
    levels = np.empty(left.shape, np.int8)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        errors = np.empty((*left.shape[:2], stop - start), np.float32)
        for column in range(start, stop):
            exact = left[:, :, column]
            level = taken.held(np.rint(exact / step), column)
            levels[:, :, column] = level
            error = (exact - level * step) / factor[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : stop] -= error[..., None] * factor[:, None, column, column + 1 : stop]
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(levels, back[:, None, :], axis=2)


class _Taken:
    """What pairs have left, while their weights are rounded one after another."""

    def __init__(self, room: Room, order: np.ndarray, shape: tuple[int, ...]) -> None:
        self._largest = room.largest
        self._numbers = None if room.numbers is None else room.numbers[order]  # [G, K], in the order of rounding
        self._most = np.zeros((*shape[:2], 0 if room.numbers is None else int(room.numbers.max()) + 1))
        self._group = np.arange(shape[0])

    def held(self, levels: np.ndarray, column: int) -> np.ndarray:
        """The integers of one column, f64[G, O], cut off where there is no room for them."""
        if self._numbers is None:
            result: np.ndarray = np.clip(levels, -self._largest, self._largest)
            return result
        number = self._numbers[:, column]
        most = self._most[self._group, :, number]
        limit = np.minimum(self._largest, LARGEST_SAFE_PAIR - most)
        cut: np.ndarray = np.clip(levels, -limit, limit)
        self._most[self._group, :, number] = np.maximum(most, np.abs(cut))
        return cut


def output_power(rows: np.ndarray, moments: np.ndarray) -> float:
    """Mean square of W x, summed over output channels, from the second moments of x."""
    peak = float(np.abs(rows).max(initial=0)) or 1.0  # squares of float32 may overflow
    even = (rows / peak).astype(np.float32)
    return float(np.sum((even @ moments) * even, dtype=np.float64)) * peak**2


def _inverse_factor(moments: np.ndarray) -> np.ndarray | None:
    """Upper factor U of the inverse of the damped moments, inverse = U^T U, [G, K, K]; None where there is none.

    With rows and columns in reverse order the Cholesky factor of the moments themselves is upper, and U is its inverse.
    """
    length = moments.shape[1]
    mean = np.maximum(np.einsum("gkk->g", moments) / length, 1e-12)
    for damping in (_DAMPING, 10 * _DAMPING, 1.0):
        damped = moments[:, ::-1, ::-1].copy()
        np.einsum("gkk->gk", damped)[...] += damping * mean[:, None]
        try:
            factor = np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            continue
        del damped
        return _upper_inverse(np.ascontiguousarray(factor[:, ::-1, ::-1]))
    return None


def _upper_inverse(upper: np.ndarray) -> np.ndarray:
    """Inverse of upper triangular matrices [G, K, K], by halves: nearly all of it is matrix products."""
    length = upper.shape[1]
    if length <= _BLOCK:
        small: np.ndarray = np.linalg.inv(upper)
        return small
    half = length // 2
    result = np.zeros_like(upper)
    first = result[:, :half, :half] = _upper_inverse(upper[:, :half, :half])
    last = result[:, half:, half:] = _upper_inverse(upper[:, half:, half:])
    result[:, :half, half:] = -(first @ upper[:, :half, half:]) @ last
    return result
