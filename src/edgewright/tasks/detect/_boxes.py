"""Boxes as corners x1, y1, x2, y2 in parts of the input's sides, and how far they overlap."""

from __future__ import annotations

import numpy as np


def from_centres(boxes: np.ndarray) -> np.ndarray:
    """Centre and size [n, 4] as corners [n, 4]."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def to_centres(boxes: np.ndarray) -> np.ndarray:
    """Corners [n, 4] as centre and size [n, 4]."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of corners f64[..., 4], which may broadcast; 0 where there is no intersection."""
    low = np.maximum(one[..., :2], other[..., :2])
    sides = np.maximum(np.minimum(one[..., 2:], other[..., 2:]) - low, 0)
    common: np.ndarray = sides[..., 0] * sides[..., 1]
    union = _area(one) + _area(other) - common
    shared: np.ndarray = np.zeros_like(common)
    np.divide(common, union, out=shared, where=(common > 0) & (union > 0))
    return shared


def distance_penalty(one: np.ndarray, other: np.ndarray, beta: float) -> np.ndarray:
    """(squared distance of the centres / squared diagonal of the box around both) ^ beta; 0 where that is a point.

    Source: Zheng et al. 2020, Distance-IoU loss; box_diounms in box.c of AlexeyAB/darknet.
    """
    around = np.maximum(one[..., 2:], other[..., 2:]) - np.minimum(one[..., :2], other[..., :2])
    apart = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    diagonal, distance = np.sum(around**2, axis=-1), np.sum(apart**2, axis=-1)
    share = np.divide(distance, diagonal, out=np.zeros_like(distance), where=diagonal > 0)
    return np.asarray(share**beta)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
