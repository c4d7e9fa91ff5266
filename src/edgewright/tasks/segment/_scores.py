"""Counts of pixels: results against results, and against labels. Each pair is counted once as long as the result lives,
since bounds ask for sums over the same pairs five hundred times."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgewright.tasks.segment._maps import LabelMap, Segmentation, read_label
from edgewright.tasks.segment._options import NONE, Options

_INDICES = NONE + 1

#: By result: what it was compared with, by which rule, and the counts.
_Memory = weakref.WeakKeyDictionary[Segmentation, tuple[weakref.ref[Any], Any, np.ndarray]]
_agreements: _Memory = weakref.WeakKeyDictionary()
_confusions: _Memory = weakref.WeakKeyDictionary()
_bands: _Memory = weakref.WeakKeyDictionary()


def agreeing(one: Segmentation, other: Segmentation, background: int | None) -> tuple[int, int]:
    """Pixels of the same class, and pixels counted: all but those that both give as `background`."""
    same, counted = _remembered(_agreements, one, other, background, _same_pixels)
    return int(same), int(counted)


def confusion(results: Sequence[Segmentation], labels: Sequence[LabelMap], options: Options) -> np.ndarray:
    """Pixels by (label, result), i64[256, 256], over all samples together, the labelled pixels only."""
    counts = np.zeros(_INDICES**2, np.int64)
    for result, label in zip(results, labels, strict=True):
        pairs, found = _remembered(_confusions, result, label, options.ignore, _confusion)
        counts[pairs] += found
    return counts.reshape(_INDICES, _INDICES)


def boundary(results: Sequence[Segmentation], labels: Sequence[LabelMap], options: Options) -> np.ndarray:
    """Pixels of the bands along outlines by class, in both maps and in either, i64[2, 255], over all samples together."""
    counts = np.zeros((2, _INDICES), np.int64)
    rule = (options.ignore, options.boundary)
    for result, label in zip(results, labels, strict=True):
        found = _remembered(_bands, result, label, rule, _boundary)
        counts[:, found[0]] += found[1:]
    return counts[:, :NONE]


def _same_pixels(one: Segmentation, other: Segmentation, background: int | None) -> np.ndarray:
    """(pixels of the same class, pixels counted), i64[2]."""
    a, b = one.map, other.map
    if a.shape != b.shape:
        return np.array([0, max(a.size, b.size)])
    counts = np.ones(a.shape, bool) if background is None else (a != background) | (b != background)
    return np.array([np.sum(counts & (a == b) & (a != NONE)), np.sum(counts)])


def _confusion(result: Segmentation, label: LabelMap, ignore: int) -> np.ndarray:
    """(256 * label + result, number of such pixels), i64[2, n]."""
    truth, found, kept = _paired(result, label, ignore)
    return np.stack(np.unique(truth[kept].astype(np.int64) * _INDICES + found[kept], return_counts=True))


def _boundary(result: Segmentation, label: LabelMap, rule: tuple[int, float]) -> np.ndarray:
    """(class, pixels in both bands, pixels in either), i64[3, n], of the classes in label or result.

    What is not labelled has no class in the result either: its rim is then an outline in both, and says nothing.
    """
    ignore, share = rule
    truth, found, kept = _paired(result, label, ignore)
    width = max(1, round(share * float(np.hypot(*truth.shape))))
    truth, found = np.where(kept, truth, NONE), np.where(kept, found, NONE)
    rows = []
    for index in np.union1d(np.unique(truth), np.unique(found)).tolist():
        if index != NONE:
            one, other = _band(truth == index, width), _band(found == index, width)
            rows.append((index, np.sum(one & other), np.sum(one | other)))
    return np.array(rows, np.int64).reshape(-1, 3).T


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask within `width` of its outline, bool[H, W]; beyond the photo's edge there is nothing.

    Left out is what survives `width` erosions by 3 x 3: pixels whose whole window of 2 * width + 1 is marked.
    """
    window = 2 * width + 1
    sums = np.zeros((mask.shape[0] + window, mask.shape[1] + window), np.int32)
    sums[width + 1 : width + 1 + mask.shape[0], width + 1 : width + 1 + mask.shape[1]] = mask
    np.cumsum(np.cumsum(sums, axis=0, out=sums), axis=1, out=sums)
    inside = sums[window:, window:] - sums[:-window, window:] - sums[window:, :-window] + sums[:-window, :-window]
    return np.asarray(mask & (inside < window**2))


def _paired(result: Segmentation, label: LabelMap, ignore: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label and result u8[H, W] at the label's size, and where something is labelled, bool[H, W]."""
    truth = read_label(label.path)
    found = result.map
    rows = np.arange(truth.shape[0]) * found.shape[0] // truth.shape[0]
    columns = np.arange(truth.shape[1]) * found.shape[1] // truth.shape[1]
    return truth, found[rows][:, columns], (truth != ignore) & (truth != NONE)


def _remembered(
    memory: _Memory, result: Segmentation, other: Any, rule: Any, count: Callable[[Any, Any, Any], np.ndarray]
) -> np.ndarray:
    """`count(result, other, rule)`, computed once as long as the result lives and meets the same other."""
    known = memory.get(result)
    if known is None or known[0]() is not other or known[1] != rule:
        known = memory[result] = (weakref.ref(other), rule, count(result, other, rule))
    return known[2]
