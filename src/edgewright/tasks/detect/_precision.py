"""Which boxes are right, and the mean average precision over any choice of samples.

Matching is done once for each sample; a mean over a choice of samples only gathers, so that bounds may ask for
hundreds of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgewright.tasks.detect._boxes import overlap

#: IoU from which a box is right. Source: Lin et al. 2014 (COCO): 0.5, 0.55, ..., 0.95.
LIMITS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
#: Column of `Match.hits` that holds VOC's matches at 0.5; those before it are COCO's at `LIMITS`.
VOC = len(LIMITS)

Rule = Literal["101 points", "area", "11 points"]


@dataclass(frozen=True)
class Match:
    """How the boxes of one sample compare with the true ones.

    Attributes:
        scores: Of the found boxes, best first, f64[n].
        classes: Their classes, i64[n].
        hits: Whether each is right, bool[n, limits]: COCO's rule at each of the IoU limits, and VOC's at 0.5.
        truth: Classes of the true boxes, i64[m].
    """

    scores: np.ndarray
    classes: np.ndarray
    hits: np.ndarray
    truth: np.ndarray


def match(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, truth: np.ndarray, truth_classes: np.ndarray
) -> Match:
    """Pair found boxes f[n, 4], best first, with true ones f[m, 4] of their class, each true one at most once.

    COCO gives a box the true one of the highest IoU among those that are left, VOC of all: where that one is taken
    already, the box is wrong. Boxes that are equal have IoU 1, even where they have no area.
    Source: Lin et al. 2014 (pycocotools, evaluateImg); Everingham et al. 2010 (VOC devkit, VOCevaldet).
    """
    hits = np.zeros((len(boxes), len(LIMITS) + 1), bool)
    if len(boxes) and len(truth):
        one, other = boxes[:, None].astype(np.float64), truth[None].astype(np.float64)
        shared = np.where((one == other).all(axis=-1), 1.0, overlap(one, other))
        shared[classes[:, None] != truth_classes[None]] = 0
        taken = np.zeros((len(LIMITS) + 1, len(truth)), bool)
        for index in np.flatnonzero(shared.max(axis=1) >= LIMITS[0]):
            hits[index] = _pair(shared[index], taken)
    return Match(scores.astype(np.float64), classes.astype(np.int64), hits, truth_classes.astype(np.int64))


def _pair(shared: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Whether a box with these IoUs is right, bool[limits + 1]; marks in `taken` the true boxes it takes."""
    hit = np.zeros(len(taken), bool)
    for column, limit in enumerate(LIMITS):
        left = np.where(taken[column], -1.0, shared)
        best = int(left.argmax())
        if left[best] >= limit:
            taken[column, best] = hit[column] = True
    best = int(shared.argmax())
    hit[VOC] = shared[best] >= LIMITS[0] and not taken[VOC, best]
    taken[VOC, best] |= hit[VOC]
    return hit


class Precision:
    """Average precision by class over several samples, for any of the columns of `Match.hits`."""

    def __init__(self, matches: Sequence[Match]) -> None:
        """Gather what `matches` hold; the same sample may come twice, as in a bootstrap."""
        scores = np.concatenate([np.zeros(0), *(item.scores for item in matches)])
        classes = np.concatenate([np.zeros(0, np.int64), *(item.classes for item in matches)])
        truth = np.concatenate([np.zeros(0, np.int64), *(item.truth for item in matches)])
        hits = np.concatenate([np.zeros((0, len(LIMITS) + 1), bool), *(item.hits for item in matches)])
        order = np.lexsort((-scores, classes))
        self._hits = hits[order]
        self.classes, place = np.unique(np.concatenate([classes[order], truth]), return_inverse=True)
        self._place, true = place[: len(order)], place[len(order) :]
        #: Number of true boxes of each class.
        self.truths = np.bincount(true, minlength=len(self.classes))
        first = np.searchsorted(self._place, np.arange(len(self.classes)))
        self._first = first
        self._rank = np.arange(len(order)) - first[self._place] + 1

    def of_classes(self, column: int, rule: Rule) -> np.ndarray:
        """Average precision of each class, f64[classes]; 0 for a class that has no true box.

        Each right box is as good as the best precision at its recall or beyond. `area` is the area below that curve,
        the others its mean at recalls 0, 0.01, ..., 1 or 0, 0.1, ..., 1.
        Source: Everingham et al. 2010 (VOC: 11 points until 2009, then the area); Lin et al. 2014 (COCO: 101 points).
        """
        right = np.flatnonzero(self._hits[:, column])
        place, count = self._place[right], len(self.classes)
        # the how many-th right box of its class each one is, from 1
        number = np.arange(len(right)) - np.searchsorted(place, np.arange(count))[place] + 1
        # from the end, class by class: an offset of 2 keeps the maximum of one class out of the next
        offset = 2.0 * (count - place)
        envelope = np.maximum.accumulate((number / self._rank[right] + offset)[::-1])[::-1] - offset
        truths = self.truths[place]
        if rule == "area":
            return np.bincount(place, envelope, minlength=count) / np.maximum(self.truths, 1)
        steps = 100 if rule == "101 points" else 10
        # recalls j / steps above (number - 1) / truths and up to number / truths; whole numbers, so exact
        points = steps * number // truths - steps * (number - 1) // truths + (number == 1)
        return np.bincount(place, envelope * points, minlength=count) / (steps + 1)

    def mean(self, column: int, rule: Rule, *, every_class: bool) -> float:
        """Mean over the classes that have a true box, or over all that were found as well (`every_class`).

        Where there is no such class: 1 if nothing was found, else 0.
        """
        counted = self.of_classes(column, rule)
        if not every_class:
            counted = counted[self.truths > 0]
        if not counted.size:
            return 0.0 if self._rank.size else 1.0
        return float(counted.mean())
