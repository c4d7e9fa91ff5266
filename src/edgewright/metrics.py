"""Numbers that compare tensors and bound proportions. Each function names its formula and source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

#: Two-sided confidence of every interval that edgewright prints.
CONFIDENCE = 0.95


def rel_l2(reference: np.ndarray, other: np.ndarray) -> float:
    """||other - reference|| / ||reference|| over the whole tensor, in float64; 0 for two zero tensors, inf where only
    the reference is zero, nan where either holds a nan."""
    x, y = _flat(reference), _flat(other)
    error, scale = float(np.linalg.norm(y - x)), float(np.linalg.norm(x))
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return error / scale


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization noise, 20 log10(||reference|| / ||other - reference||) in dB; inf where equal.

    Source: the usual definition, as in Jacob et al. 2018 and torchao's tests.
    """
    ratio = rel_l2(reference, other)
    if math.isnan(ratio):
        return -math.inf
    return math.inf if ratio == 0 else -20 * math.log10(ratio) if math.isfinite(ratio) else -math.inf


def cosine(reference: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two tensors; 1 for two zero tensors. Blind to scale: never a gate of its own."""
    x, y = _flat(reference), _flat(other)
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale else float(np.array_equal(x, y))


def max_abs(reference: np.ndarray, other: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The largest absolute difference and its index; (0, ()) for empty tensors."""
    if reference.size == 0:
        return 0.0, ()
    difference = np.abs(other.astype(np.float64) - reference.astype(np.float64))
    index = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return float(difference[index]), tuple(int(i) for i in index)


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided bounds of a proportion, (0, 1) where there were no trials.

    Source: Clopper and Pearson 1934: the bounds are where a binomial tail equals (1 - confidence) / 2.
    """
    assert 0 <= successes <= trials
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else _bisect(lambda p: 1 - _binomial_cdf(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _bisect(lambda p: tail - _binomial_cdf(successes, trials, p))
    return low, high


def trials_needed(minimum: float, confidence: float = CONFIDENCE) -> int:
    """Fewest trials, all of them successes, whose lower Clopper-Pearson bound reaches `minimum`, 0 < minimum < 1."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(minimum))


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile-bootstrap interval of `statistic(array, axis=-1)` over f64[n]; (nan, nan) for no values.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    data = np.asarray(values, np.float64)
    if data.size == 0:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = data[rng.integers(0, data.size, (resamples, data.size))]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(drawn, axis=-1), [tail, 1 - tail])
    return float(low), float(high)


def _flat(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(-1)


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p), summed in log space."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return float(k >= n)
    counts = np.arange(k + 1)
    log_n = math.lgamma(n + 1)
    logs = np.array([log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in counts])
    return float(min(1.0, np.exp(logs + counts * math.log(p) + (n - counts) * math.log1p(-p)).sum()))


def _bisect(rises: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) > 0 else (middle, high)
    return (low + high) / 2
