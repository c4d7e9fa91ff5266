"""Ranges of activations: streaming histograms, and the range whose quantization loses least."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgewright.contracts import QuantFormat

#: Bins of a histogram: 16 or more for each of 256 levels while half of the width is in use.
_BINS = 8192
#: Of a larger array, evenly spaced values are counted; its smallest and largest value are exact.
_COUNTED = 2**15
#: More distinct values than levels are no grid.
_LEVELS = 256
#: Shares of the seen range that are tried.
_SHARES = np.concatenate([np.linspace(1.0, 0.5, 51), np.linspace(0.48, 0.1, 20)])
_PERCENTILES = (0.9999, 0.99999, 0.999999)


@dataclass(frozen=True)
class Range:
    """How a tensor is quantized: real = (integer - zero_point) * scale.

    Attributes:
        scale: Step, a float32 value.
        zero_point: Integer that means 0.
        dtype: "uint8" or "int8".
        seen: Smallest and largest value seen.
        method: How it was chosen: "minmax", "mse", "percentile" or "exact" (the values lie on the grid).
        clipped: Share of the values beyond the range.
        sqnr_db: Signal to quantization noise over the values seen, in dB.
        mse: Mean square of the quantization noise.
    """

    scale: float
    zero_point: int
    dtype: str
    seen: tuple[float, float]
    method: str
    clipped: float
    sqnr_db: float
    mse: float

    @property
    def low(self) -> float:
        """The smallest value that it holds."""
        return (int(np.iinfo(self.dtype).min) - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest value that it holds."""
        return (int(np.iinfo(self.dtype).max) - self.zero_point) * self.scale

    def unsigned(self) -> Range:
        """The same steps as uint8."""
        if self.dtype == "uint8":
            return self
        return replace(self, dtype="uint8", zero_point=self.zero_point - int(np.iinfo(self.dtype).min))

    def to_json(self, tensor: str) -> dict[str, Any]:
        """For the statistics of the pass."""
        return {
            "tensor": tensor,
            "low": self.low,
            "high": self.high,
            "seen_low": self.seen[0],
            "seen_high": self.seen[1],
            "method": self.method,
            "clipped": self.clipped,
            "sqnr_db": self.sqnr_db if math.isfinite(self.sqnr_db) else None,
        }


@dataclass
class Histogram:
    """Counts of values on a symmetric axis that doubles when a value lies beyond it; memory stays the same.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        grid: Distinct values, as long as there are few.
    """

    low: float = math.inf
    high: float = -math.inf
    grid: np.ndarray | None = field(default_factory=lambda: np.empty(0, np.float32))
    _limit: float = 0.0
    _counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Count the values of one array; they must be finite."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        stride = flat.size // _COUNTED + 1
        if self._limit:
            self._counts += stride * self._binned(flat[::stride])
            if stride > 1:  # extremes are never left out
                self._counts += self._binned(np.array((low, high), np.float32))
        else:
            self._counts[_BINS // 2] += flat.size
        if self.grid is not None:
            union = np.union1d(self.grid, flat)
            self.grid = union if len(union) <= _LEVELS else None

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and counts of the bins that are not empty; a centre lies within the values seen."""
        width = 2 * self._limit / _BINS
        used = np.flatnonzero(self._counts)
        centres = -self._limit + (used + 0.5) * width
        return np.clip(centres, self.low, self.high), self._counts[used]

    def _binned(self, values: np.ndarray) -> np.ndarray:
        """How many values lie in each bin; of one at an edge rounding decides, which does not matter here."""
        places = values.astype(np.float32) * np.float32(_BINS / 2 / self._limit)
        places += np.float32(_BINS // 2)
        return np.bincount(np.clip(places.astype(np.int32), 0, _BINS - 1), minlength=_BINS)

    def _widen(self, reach: float) -> None:
        if reach <= self._limit:
            return
        if not self._limit:
            zeros = int(self._counts.sum())
            self._counts[:] = 0
            self._counts[_BINS // 2] = zeros
            self._limit = reach
            return
        while self._limit < reach:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts[:] = 0
            self._counts[_BINS // 4 : _BINS // 4 + len(pairs)] = pairs
            self._limit *= 2


def choose(histogram: Histogram, form: QuantFormat, *, calibration: str = "mse") -> Range:
    """The range with the least mean square error over the values seen; minmax where `calibration` says so.

    Source: a clipped range can lose less than the full one: Banner et al. 2019, "Post training 4-bit quantization of
    convolutional networks for rapid-deployment", section 3.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    centres, counts = histogram.bins()
    exact = _on_grid(histogram, form)
    if exact is not None:
        return _described(exact, "exact", histogram, centres, counts, form)
    best, method = _params(low, high, form), "minmax"
    if calibration == "minmax":
        return _described(best, method, histogram, centres, counts, form)
    least = _error(best, centres, counts, form)
    for candidate, name in _candidates(low, high, centres, counts):
        params = _params(*candidate, form)
        error = _error(params, centres, counts, form)
        if error < least * (1 - 1e-6):
            best, method, least = params, name, error
    return _described(best, method, histogram, centres, counts, form)


def _candidates(
    low: float, high: float, centres: np.ndarray, counts: np.ndarray
) -> list[tuple[tuple[float, float], str]]:
    total = np.cumsum(counts) / counts.sum()
    found: list[tuple[tuple[float, float], str]] = []
    for share in _PERCENTILES:
        bottom = float(centres[np.searchsorted(total, 1 - share)]) if low < 0 else 0.0
        top = float(centres[min(int(np.searchsorted(total, share)), len(centres) - 1)])
        found.append(((min(bottom, 0.0), max(top, 0.0)), "percentile"))
    if low == 0 or high == 0:
        return found + [((low * share, high * share), "mse") for share in _SHARES]
    coarse = _SHARES[::4]
    return found + [((low * a, high * b), "mse") for a in coarse for b in coarse]


def _params(low: float, high: float, form: QuantFormat) -> tuple[float, int]:
    """Scale and zero point of a range that holds 0."""
    info = np.iinfo(form.activation_dtype)
    tiny = float(np.finfo(np.float32).tiny) * 256
    if form.activation_symmetric:
        return max(float(np.float32(max(-low, high) / info.max)), tiny), 0
    scale = max(float(np.float32((high - low) / (info.max - info.min))), tiny)
    return scale, int(np.clip(round(-low / scale) + info.min, info.min, info.max))


def _on_grid(histogram: Histogram, form: QuantFormat) -> tuple[float, int] | None:
    """Scale and zero point that hold every value seen exactly, as those of photos with one mean and std; else None."""
    values = histogram.grid
    if values is None or len(values) < 3 or form.activation_symmetric:
        return None
    gaps = np.diff(values.astype(np.float64))
    step = float(gaps.min())
    steps = (float(values[-1]) - float(values[0])) / step
    if steps > _LEVELS - 1 + 1e-3 or np.abs(gaps / step - np.rint(gaps / step)).max() > 1e-3:
        return None
    step = (float(values[-1]) - float(values[0])) / round(steps)
    zero = -float(values[0]) / step
    if not -1e-3 <= zero <= _LEVELS - 1 + 1e-3 or abs(zero - round(zero)) > 1e-3:
        return None
    start = min(max(round(zero), 0), _LEVELS - 1)
    return float(np.float32(step)), start + int(np.iinfo(form.activation_dtype).min)


def _error(params: tuple[float, int], centres: np.ndarray, counts: np.ndarray, form: QuantFormat) -> float:
    scale, zero = params
    info = np.iinfo(form.activation_dtype)
    levels = np.clip(np.rint(centres / scale) + zero, info.min, info.max)
    return float(counts @ np.square((levels - zero) * scale - centres) / counts.sum())


def _described(
    params: tuple[float, int],
    method: str,
    histogram: Histogram,
    centres: np.ndarray,
    counts: np.ndarray,
    form: QuantFormat,
) -> Range:
    scale, zero = params
    info = np.iinfo(form.activation_dtype)
    low, high = (info.min - zero - 0.5) * scale, (info.max - zero + 0.5) * scale
    clipped = float(counts[(centres < low) | (centres > high)].sum() / counts.sum())
    noise = 0.0 if method == "exact" else _error(params, centres, counts, form)
    power = float(counts @ np.square(centres) / counts.sum())
    sqnr = math.inf if noise == 0 else 10 * math.log10(power / noise) if power else -math.inf
    return Range(scale, zero, form.activation_dtype, (histogram.low, histogram.high), method, clipped, sqnr, noise)
