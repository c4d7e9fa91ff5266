"""Coverage: does what compression learnt from cover what judges it? Seen with the original's eyes, without labels.

Each sample is a point: the original's outputs for it. Where judges lie farther from their nearest calibrate sample than
calibrate samples lie from theirs, compression was made for other data than it is judged by. That changes no verdict, since
judges decide; it says where a better bundle may come from.

Sources count, not samples, each by its first sample: crops of one photo are near to each other wherever they lie.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright import metrics, original
from edgewright.bundle import Bundle
from edgewright.contracts import Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.records import Coverage
from edgewright.verify.features import Features, distances, features

#: Sources of each kind that are compared, drawn by their hashes.
MOST_SOURCES = 256
#: Fewer of either kind say nothing: the limit is a distance that one calibrate sample of twenty exceeds.
LEAST_SOURCES = 20
#: The part of the calibrate samples whose nearest neighbours are within the limit.
_WITHIN = 0.95
#: Uncovered from here on: the chance that such a distance comes from the draw alone, and the part of the judges beyond the
#: limit (its lower bound), which is 0.05 where both were drawn alike.
_LEVEL = 0.01
_BEYOND = 0.10
_RELABELLINGS = 499
_BINS = 24


@dataclass(frozen=True)
class Point:
    """One source: what the original says of it, and the classes that it names there."""

    features: Features
    classes: frozenset[str] | None


#: Points of calibrate sources, by what answered: each candidate of a deployment learnt from the same ones.
_known: weakref.WeakKeyDictionary[original.Answers, dict[str, Point]] = weakref.WeakKeyDictionary()


class Watch:
    """Collects the points of judges while they are verified, then compares them with what `bundle` learnt from."""

    def __init__(self, bundle: Bundle, samples: SampleSource, judges: SampleSource, task: Any) -> None:
        self._learnt = {group for step in bundle.history if step.lossy for group in step.samples}
        self._task = task
        self._calibrate = samples.role("calibrate") if self._learnt else None
        self._chosen = _drawn(judges.groups if self._learnt else ())
        self._points: dict[str, Point] = {}

    def note(self, sample: Sample, outputs: Arrays, result: Any) -> None:
        """Add what the original says of a judge."""
        if sample.group in self._chosen and sample.group not in self._points:
            self._points[sample.group] = self._point(outputs, result)

    def coverage(self, answers: original.Answers, *, seed: int) -> Coverage | None:
        """The comparison; None for a bundle that learnt nothing from samples."""
        if self._calibrate is None:
            return None
        wanted = _drawn([group for group in self._calibrate.groups if group in self._learnt])
        if not wanted:
            return _unknown("the samples that it learnt from are not among those given")
        try:
            learnt = self._read(answers, self._calibrate, wanted)
        except EdgewrightError as problem:
            return _unknown(f"what it learnt from cannot be read: {problem.message}")
        return compare(learnt, list(self._points.values()), seed=seed)

    def _read(self, answers: original.Answers, calibrate: SampleSource, wanted: frozenset[str]) -> list[Point]:
        known = _known.setdefault(answers, {})
        if not wanted <= known.keys():
            with answers:
                for sample in calibrate:
                    if sample.group in wanted and sample.group not in known:
                        outputs = answers.run(sample)
                        with np.errstate(all="ignore"):
                            result = self._task.postprocess(outputs, answers.model.spec)
                        known[sample.group] = self._point(outputs, result)
        return [known[group] for group in sorted(wanted) if group in known]

    def _point(self, outputs: Arrays, result: Any) -> Point:
        named = getattr(self._task, "named_classes", None)
        return Point(features(outputs), None if named is None else named(result))


def compare(calibrate: Sequence[Point], judges: Sequence[Point], *, seed: int = 0) -> Coverage:
    """Whether `calibrate` covers `judges`.

    The p-value is that of a permutation test: how often do as many points, drawn from both kinds alike, leave the others as
    far behind. Statistic: mean distance of judges from their nearest calibrate point, less that of these from each other.

    Source: Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses", section 3.2.
    """
    kinds = [[point for point in points if point.features] for points in (calibrate, judges)]
    first, second = map(len, kinds)
    if min(first, second) < LEAST_SOURCES:
        few = f"{first} calibrate and {second} judge samples with finite answers are too few, {LEAST_SOURCES} of each needed"
        return _unknown(few, first, second)
    apart = distances([point.features for points in kinds for point in points])
    own, other = _nearest(apart, np.arange(first + second), first)
    limit = float(np.quantile(own, _WITHIN, method="higher"))
    beyond = int(np.sum(other > limit))
    low, high = metrics.clopper_pearson(beyond, second)
    p_value = _p_value(apart, first, float(other.mean() - own.mean()), seed)
    covered = p_value > _LEVEL or low < _BEYOND
    share, unseen = beyond / second, _unseen(*kinds)
    edges = np.linspace(0, max(float(own.max()), float(other.max())) or 1.0, _BINS + 1)
    shares = [tuple((np.histogram(near, edges)[0] / len(near)).tolist()) for near in (own, other)]
    message = (
        f"{_percent(share)} of {second} judges (bounds {_percent(low)} to {_percent(high)}) lie farther from all {first} "
        f"calibrate samples than {_percent(_WITHIN)} of these from each other ({_percent(1 - _WITHIN)} would be usual)"
    )
    return Coverage(
        decision="covered" if covered else "not covered", message=_told(message, unseen, covered), calibrate=first,
        judges=second, beyond=share, low=low, high=high, p_value=p_value, limit=limit, unseen_classes=unseen,
        edges=tuple(edges.tolist()), calibrate_shares=shares[0], judge_shares=shares[1],
    )  # fmt: skip


def _told(message: str, unseen: tuple[float, float] | None, covered: bool) -> str:
    if covered:
        return message
    if unseen is not None and round(unseen[0], 2) > round(unseen[1], 2):
        message += (
            f"; {_percent(unseen[0])} of the judges were given a class that no calibrate sample was given "
            f"({_percent(unseen[1])} would be usual)"
        )
    return f"what compression learnt from does not cover what it is judged by: {message}"


def _nearest(apart: np.ndarray, order: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest of the `first` points in `order`: of these from each other, and of the others."""
    near = apart[np.ix_(order, order[:first])].min(axis=1)
    return near[:first], near[first:]


def _p_value(apart: np.ndarray, first: int, gap: float, seed: int) -> float:
    rng = np.random.default_rng(seed)
    as_far = 1
    for _ in range(_RELABELLINGS):
        own, other = _nearest(apart, rng.permutation(len(apart)), first)
        as_far += bool(other.mean() - own.mean() >= gap - 1e-12)
    return as_far / (_RELABELLINGS + 1)


def _unseen(calibrate: Sequence[Point], judges: Sequence[Point]) -> tuple[float, float] | None:
    """The part of judges with a class that no calibrate point has; the same of each of these against the others."""
    known = [point.classes for point in calibrate if point.classes is not None]
    asked = [point.classes for point in judges if point.classes is not None]
    if not known or not asked:
        return None
    counts: dict[str, int] = {}
    for classes in known:
        for name in classes:
            counts[name] = counts.get(name, 0) + 1
    unseen = np.mean([any(name not in counts for name in classes) for classes in asked])
    alone = np.mean([any(counts[name] == 1 for name in classes) for classes in known])
    return float(unseen), float(alone)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _unknown(why: str, calibrate: int = 0, judges: int = 0) -> Coverage:
    return Coverage(
        decision="unknown", message=f"whether compression learnt from what it is judged by cannot be told: {why}",
        calibrate=calibrate, judges=judges,
    )  # fmt: skip


def _drawn(groups: Sequence[str]) -> frozenset[str]:
    """At most `MOST_SOURCES`, those with the lowest hashes: random, yet always the same."""
    return frozenset(sorted(groups)[:MOST_SOURCES])
