"""Rounding of weights whose errors compensate each other on the inputs that the layer really sees.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
algorithm 1 (columns ordered by their input's power, as in its reference implementation).
"""

from __future__ import annotations

import numpy as np

#: Columns that are rounded before the rest is updated: keeps the work in matrix products.
_BLOCK = 64
#: Part of the mean diagonal added to the second moments, so that few samples do not overfit.
_DAMPING = 0.01
#: A layer with longer rows is rounded to nearest: the second moments alone would take a gigabyte.
LONGEST_ROW = 8192
_SHRINKS = np.linspace(1.0, 0.7, 13)


def weight_scales(rows: np.ndarray, power: np.ndarray, largest: int, floor: np.ndarray) -> np.ndarray:
    """Step of each output channel, f32[G, O]: least squared error of what the layer makes, inputs taken as independent.

    Args:
        rows: Weights, f32[G, O, K].
        power: Mean square of each input, f64[G, K].
        largest: Largest integer, 63 or 127.
        floor: Least step, f64[G, O]: below it the bias would leave int32.
    """
    peak = np.abs(rows).max(axis=2).astype(np.float64)
    weights = np.where(power.sum(axis=1, keepdims=True) > 0, power, 1.0)[:, None, :]
    best = np.maximum(peak / largest, floor)
    least = np.full(best.shape, np.inf)
    for shrink in _SHRINKS:
        step = np.maximum(np.float32(peak * shrink / largest).astype(np.float64), np.maximum(floor, 1e-30))
        rounded = np.clip(np.rint(rows / step[..., None]), -largest, largest) * step[..., None]
        error = (np.square(rounded - rows) * weights).sum(axis=2)
        better = error < least
        best, least = np.where(better, step, best), np.where(better, error, least)
    result: np.ndarray = best.astype(np.float32)
    return result


def nearest(rows: np.ndarray, scales: np.ndarray, largest: int) -> np.ndarray:
    """Weights rounded to nearest, int8[G, O, K]."""
    levels: np.ndarray = np.clip(np.rint(rows / scales[..., None]), -largest, largest).astype(np.int8)
    return levels


def compensated(rows: np.ndarray, scales: np.ndarray, moments: np.ndarray, largest: int) -> np.ndarray:
    """Weights rounded one input after another, each error passed on to the inputs that are left, int8[G, O, K].

    Args:
        rows: Weights, f32[G, O, K].
        scales: Step of each output channel, f32[G, O].
        moments: Second moments of the inputs, f64[G, K, K].
        largest: Largest integer, 63 or 127.
    """
    groups, _, length = rows.shape
    diagonal = np.einsum("gkk->gk", moments)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    group = np.arange(groups)[:, None]
    factor = _inverse_factor(moments[group[:, :, None], order[:, :, None], order[:, None, :]])
    if factor is None:
        return nearest(rows, scales, largest)
    left = np.take_along_axis(rows, order[:, None, :], axis=2).astype(np.float64)
    step = scales.astype(np.float64)
    levels = np.empty(left.shape, np.int8)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        errors = np.empty((*left.shape[:2], stop - start))
        for column in range(start, stop):
            exact = left[:, :, column]
            level = np.clip(np.rint(exact / step), -largest, largest)
            levels[:, :, column] = level
            error = (exact - level * step) / factor[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : stop] -= error[..., None] * factor[:, None, column, column + 1 : stop]
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(levels, back[:, None, :], axis=2)


def output_power(rows: np.ndarray, moments: np.ndarray) -> float:
    """Mean square of W x, summed over output channels, from the second moments of x."""
    return float(np.einsum("gok,gkl,gol->", rows, moments, rows, optimize=True))


def _inverse_factor(moments: np.ndarray) -> np.ndarray | None:
    """Upper Cholesky factor of the inverse of the damped moments, f64[G, K, K]; None where there is none."""
    length = moments.shape[1]
    mean = np.maximum(np.einsum("gkk->g", moments) / length, 1e-12)
    for damping in (_DAMPING, 10 * _DAMPING, 1.0):
        damped = moments + (damping * mean)[:, None, None] * np.eye(length)
        try:
            inverse = np.linalg.inv(damped)
            factor = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2)
        except np.linalg.LinAlgError:
            continue
        return np.ascontiguousarray(factor.transpose(0, 2, 1))
    return None
