"""Statistics of run times: medians with intervals that know that neighbouring runs resemble each other.

Runs come in rounds, and disturbances last longer than one run. So whole rounds are drawn again, never single runs: an
interval from single runs would be too narrow.

    >>> summarize([[1.0, 1.1], [1.0, 1.2], [0.9, 1.0], [1.0, 1.0], [1.1, 1.0]]).median_ms
    1.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgewright.metrics import CONFIDENCE, bootstrap
from edgewright.records import Timing

#: Below this many rounds nothing can be drawn again that would tell more than the smallest and the largest value.
ROUNDS_MIN = 5
#: The 99th percentile of fewer runs is their maximum or close to it: it is printed, and marked.
P99_RUNS_MIN = 100
#: Consistency of the interquartile range with the standard deviation of a normal distribution, 1 / (2 * 0.6745).
_IQR_TO_SIGMA = 0.7413
#: A second mode counts from this part of the runs on; rarer ones are outliers, which the percentiles show.
_MODE_SHARE_MIN = 0.1
_RESAMPLES = 1000
#: Numbers drawn at a time, which bounds the memory of a bootstrap to some 32 MB.
_DRAW_AT_ONCE = 4_000_000

Rounds = Sequence[Sequence[float]]


def summarize(rounds: Rounds, *, seed: int = 0) -> Timing:
    """Median, 95 % interval of the median, mean and percentiles of the milliseconds in `rounds`.

    The interval is a percentile bootstrap over rounds; with fewer than ROUNDS_MIN rounds it is the whole range.
    Source: Davison and Hinkley 1997, section 3.8 (resampling of clusters).
    """
    values = np.concatenate([np.asarray(item, np.float64) for item in rounds])
    low, high = _median_interval(rounds, values, seed)
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
    return Timing(
        median_ms=float(p50),
        low_ms=low,
        high_ms=high,
        p90_ms=float(p90),
        p99_ms=float(p99),
        mean_ms=float(values.mean()),
        runs=values.size,
    )


def summarize_runs(values: Sequence[float], *, seed: int = 0) -> Timing:
    """The same for runs that were not made in rounds: single runs are drawn again."""
    timing = summarize([values], seed=seed)
    if len(values) < ROUNDS_MIN:
        return timing
    low, high = bootstrap(values, np.median, seed=seed)
    return Timing(**{**vars(timing), "low_ms": low, "high_ms": high})


def half_width(timing: Timing) -> float:
    """Half the width of the interval as a part of the median; inf where the median is 0."""
    return (timing.high_ms - timing.low_ms) / 2 / timing.median_ms if timing.median_ms else math.inf


def paired_ratio(rounds: Rounds, base: Rounds, *, seed: int = 0) -> tuple[float, float, float]:
    """Median of `rounds` over the median of `base` with its 95 % interval, from the rounds that both took part in.

    Both are drawn by the same rounds, so that what slowed a whole round slows both and cancels. (ratio, low, high)
    """
    common = min(len(rounds), len(base))
    assert common, "no common rounds"
    ours, theirs = rounds[:common], base[:common]
    ratio = _median(ours) / max(_median(theirs), math.ulp(0.0))
    if common < ROUNDS_MIN:
        each = [_median([a]) / max(_median([b]), math.ulp(0.0)) for a, b in zip(ours, theirs, strict=True)]
        return ratio, min(ratio, *each), max(ratio, *each)
    draws = _draws(common, seed)
    ratios = _drawn_medians(ours, draws) / np.maximum(_drawn_medians(theirs, draws), math.ulp(0.0))
    low, high = _percentiles(ratios)
    return ratio, min(low, ratio), max(high, ratio)


def fastest(measured: Sequence[Rounds]) -> int:
    """Index of the fastest, the first of those that are equal; each pair is compared by the rounds that both took part in."""
    best = 0
    for index in range(1, len(measured)):
        common = min(len(measured[index]), len(measured[best]))
        if _median(measured[index][:common]) < _median(measured[best][:common]):
            best = index
    return best


def robust_cv(values: np.ndarray) -> float:
    """Spread of the bulk: 0.7413 times the interquartile range over the median; one stray run does not move it.

    Source: Rousseeuw and Croux 1993, normalised interquartile range.
    """
    first, median, third = np.quantile(values, [0.25, 0.5, 0.75])
    return float(_IQR_TO_SIGMA * (third - first) / median) if median else math.inf


def modes_ratio(values: np.ndarray) -> float:
    """Ratio of the slower to the faster of two groups of runs, 1 where there are no two groups of at least 10 %.

    The two groups are those with the largest variance between them, in logarithms.
    Source: Otsu 1979, as a threshold of times instead of grey levels.
    """
    logs = np.sort(np.log(np.maximum(values, math.ulp(0.0))))
    count = logs.size
    smallest = max(1, math.ceil(_MODE_SHARE_MIN * count))
    cuts = np.arange(smallest, count - smallest + 1)
    if cuts.size == 0:
        return 1.0
    sums = np.cumsum(logs)
    below, above = sums[cuts - 1] / cuts, (sums[-1] - sums[cuts - 1]) / np.maximum(count - cuts, 1)
    best = int(cuts[np.argmax(cuts * (count - cuts) * (above - below) ** 2)])
    if best == count:
        return 1.0
    return float(np.exp(np.median(logs[best:]) - np.median(logs[:best])))


def _median_interval(rounds: Rounds, values: np.ndarray, seed: int) -> tuple[float, float]:
    if len(rounds) < ROUNDS_MIN:
        return float(values.min()), float(values.max())
    return _percentiles(_drawn_medians(rounds, _draws(len(rounds), seed)))


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _median(rounds: Rounds) -> float:
    return float(np.median(np.concatenate([np.asarray(item, np.float64) for item in rounds])))


def _draws(rounds: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))


def _drawn_medians(rounds: Rounds, draws: np.ndarray) -> np.ndarray:
    """Median over all runs of the drawn rounds, f64[resamples]; rounds have one length (the shortest one's)."""
    length = min(len(item) for item in rounds)
    matrix = np.array([np.asarray(item, np.float64)[:length] for item in rounds])
    step = max(1, _DRAW_AT_ONCE // matrix.size)
    parts = [draws[start : start + step] for start in range(0, len(draws), step)]
    return np.concatenate([np.median(matrix[part].reshape(len(part), -1), axis=1) for part in parts])
