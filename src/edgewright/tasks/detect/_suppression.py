"""Non-maximum suppression: of boxes of one class that mean the same thing, the one with the highest score stays."""

from __future__ import annotations

import numpy as np

from edgewright.tasks.detect._boxes import distance_penalty, overlap
from edgewright.tasks.detect._options import Options

#: Exponent of `greedy`. Source: box_diou in box.c of AlexeyAB/darknet, which greedynms calls.
_GREEDY_BETA = 0.6
#: Boxes compared with all that wait at once: many small comparisons cost more than a few that turn out to be needless.
_BLOCK = 64


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, options: Options) -> np.ndarray:
    """Indices of the boxes that stay, best first, at most `options.most`.

    Every class for itself: a box that goes under one class may stay under another.
    Source: do_nms_sort and diounms_sort in box.c of AlexeyAB/darknet.

    Args:
        boxes: Corners f64[n, 4].
        scores: f64[n].
        classes: i64[n].
        options: Kind, limit and number.
    """
    order = np.argsort(-scores, kind="stable")
    if options.nms == "none":
        return order[: options.most]
    kept = [_stay(boxes, order[classes[order] == index], options) for index in np.unique(classes)]
    found = np.concatenate([*kept, np.zeros(0, np.int64)])
    return found[np.argsort(-scores[found], kind="stable")][: options.most]


def _stay(boxes: np.ndarray, waiting: np.ndarray, options: Options) -> np.ndarray:
    """Of the indices `waiting`, best first and of one class, those that stay."""
    kept: list[int] = []
    while waiting.size and len(kept) < options.most:
        over = _same(boxes[waiting[:_BLOCK]], boxes[waiting], options)
        dropped = np.zeros(len(waiting), bool)
        for place in range(len(over)):
            if not dropped[place]:
                kept.append(int(waiting[place]))
                dropped |= over[place]
        dropped[: len(over)] = True  # decided: kept or dropped
        waiting = waiting[~dropped]
    return np.array(kept[: options.most], np.int64)


def _same(one: np.ndarray, other: np.ndarray, options: Options) -> np.ndarray:
    """Whether boxes (corners f64[n, 4] and f64[m, 4]) are taken for the same thing, bool[n, m]."""
    shared = overlap(one[:, None], other[None])
    over = shared > options.nms_threshold
    if options.nms in ("greedy", "diou"):
        beta = _GREEDY_BETA if options.nms == "greedy" else options.beta
        rows, columns = np.nonzero(over)  # the penalty can only make less of an overlap
        penalty = distance_penalty(one[rows], other[columns], beta)
        over[rows, columns] = shared[rows, columns] - penalty > options.nms_threshold
    return np.asarray(over)
