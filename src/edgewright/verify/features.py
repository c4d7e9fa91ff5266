"""What one sample looks like to the original: its outputs, pooled to vectors that can be compared between samples.

A vector is kept as it is; of a map only means and maxima along each axis are kept, so that the same things at another
place of a photo stay near. Probabilities are compared as their logarithms: they say next to nothing about what lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgewright.model import Arrays

Features = Mapping[str, np.ndarray]

#: Numbers of one vector; longer ones are averaged in pieces.
_LONGEST = 2048
#: Points of fewer numbers than this are compared by Euclidean distance, others by their direction from the mean, which
#: tells classes apart better (EfficientNet-Lite0: 0.65 of the photos of unseen classes beyond the limit, instead of 0.3).
_DIRECTIONS_FROM = 16
#: How far probabilities may be from a sum of 1.
_SUM_TOLERANCE = 0.01
_LEAST_PROBABILITY = 1e-30


def features(outputs: Arrays) -> Features:
    """Vectors f32[n] by output and axis; none where the outputs are not finite."""
    found: dict[str, np.ndarray] = {}
    for name, value in outputs.items():
        array = np.squeeze(np.asarray(value))
        if array.dtype.kind not in "biuf" or not array.size:
            continue
        array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            return {}
        if array.ndim < 2:
            found[name] = _shortened(_logarithms(array.reshape(-1)))
            continue
        for axis in range(array.ndim):
            others = tuple(i for i in range(array.ndim) if i != axis)
            found[f"{name} {axis} mean"] = _shortened(array.mean(axis=others))
            found[f"{name} {axis} largest"] = _shortened(array.max(axis=others))
    return found


def distances(points: Sequence[Features]) -> np.ndarray:
    """Distances between all pairs of points, f64[N, N], infinite along the diagonal.

    Every vector counts alike, whatever its scale. Vectors that not all points have, or not of one length, are left out.
    """
    names = [name for name in points[0] if len({p[name].shape if name in p else None for p in points}) == 1]
    products, width = np.zeros((len(points), len(points))), 0
    for name in names:
        block = np.stack([point[name] for point in points]).astype(np.float64)
        size = float(np.abs(block).max())
        block -= block.mean(axis=0)
        power = float(np.mean(np.sum(block * block, axis=1)))
        if power > (1e-6 * size) ** 2:  # else it is rounding of what never changes
            products += block @ block.T / power
            width += block.shape[1]
    if width >= _DIRECTIONS_FROM:
        lengths = np.sqrt(np.diag(products))
        products /= np.maximum(np.outer(lengths, lengths), 1e-30)
    squares = np.diag(products)
    apart: np.ndarray = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
    np.fill_diagonal(apart, np.inf)
    return apart


def _logarithms(vector: np.ndarray) -> np.ndarray:
    """The logarithms of probabilities, less their mean: the scores that softmax was made of. Other vectors as they are."""
    if vector.size < 2 or vector.min() < 0 or abs(float(vector.sum()) - 1) > _SUM_TOLERANCE:
        return vector
    logarithms = np.log(np.maximum(vector, _LEAST_PROBABILITY))
    scores: np.ndarray = logarithms - logarithms.mean()
    return scores


def _shortened(vector: np.ndarray) -> np.ndarray:
    if vector.size <= _LONGEST:
        return vector.copy()
    starts = np.linspace(0, vector.size, _LONGEST, endpoint=False).astype(np.int64)
    means: np.ndarray = np.add.reduceat(vector, starts) / np.diff(starts, append=vector.size)
    return means
