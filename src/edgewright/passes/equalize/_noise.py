"""Noise by factors, and the factors with the least of it.

With a' = s a in channels of one tensor, a uniform quantizer with one step D for the tensor adds noise of power D^2 / 12,
which the reader's weights, divided by s, take down: D^2 / 12 sum_c g_c / s_c^2, where D grows with max_c s_c |a_c|.
Rounding the reader's weights adds D_o^2 / 12 sum_c s_c^2 E[a_c^2] for each of its output channels, where D_o grows with
max_c |W_oc| / s_c. Both are sums of products of powers of s, with maxima: convex in log s (a geometric program). The
maxima are replaced by norms of a high power, which also lets a single far channel be clipped, as it will be.

Source: Boyd et al. 2007, "A tutorial on geometric programming", section 2; the noise of a uniform quantizer: Widrow 1956.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Reach = Literal["extremes", "tails"]
REACHES: tuple[Reach, ...] = get_args(Reach)

_LEVELS = 255
#: Shares of the range of values that are tried.
_SHARES = tuple(float(share) for share in np.linspace(1.0, 0.3, 15))
#: Power of the norm that stands for a maximum.
_POWER = 16
_STEPS = 150
_RATE = 0.1


@dataclass(frozen=True)
class Noise:
    """Predicted noise of a group, relative to the signal of its readers, summed over them."""

    activations: float
    weights: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.activations + self.weights


@dataclass(frozen=True, eq=False)
class Activation:
    """A quantized tensor.

    Attributes:
        reaches: How far each channel reaches below and above 0, f64[n] over the group's channels, by two measures.
        losses: What noise of power 1 in each channel does, f64[n].
        ids: The group's channel of each of its own, int64[C].
        learnt: Some of its values, f32[C, k].
        judged: Others, from other samples.
    """

    reaches: Mapping[Reach, tuple[np.ndarray, np.ndarray]]
    losses: np.ndarray
    ids: np.ndarray
    learnt: np.ndarray
    judged: np.ndarray

    def noise(self, logs: np.ndarray, reach: Reach) -> tuple[float, np.ndarray]:
        """Predicted noise and its gradient by the factors' logarithms."""
        (low, low_shares), (high, high_shares) = (_largest(side, logs) for side in self.reaches[reach])
        width = low + high
        lost = self.losses * np.exp(-2 * logs)
        scale = 1 / (12 * _LEVELS**2)
        gradient = 2 * width * (low * low_shares + high * high_shares) * lost.sum() - 2 * width**2 * lost
        return scale * width**2 * float(lost.sum()), scale * gradient

    def tried(self, logs: np.ndarray) -> float:
        """Noise of the judged values, quantized to the range that loses least of the learnt ones."""
        factors = np.exp(logs)[self.ids].astype(np.float32)[:, None]
        learnt, judged = self.learnt * factors, self.judged * factors
        low, high = min(float(learnt.min()), 0.0), max(float(learnt.max()), 0.0)
        if low == high:
            return 0.0
        best = min(_SHARES, key=lambda share: float(np.square(_quantized(learnt, share * low, share * high)).sum()))
        power = np.square(_quantized(judged, best * low, best * high)).mean(axis=1, dtype=np.float64)
        return float((self.losses[self.ids] * power / np.square(factors[:, 0])).sum())


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a layer that reads the group.

    Attributes:
        largest: Largest weight by input and output channel, f32[G, O / G, I / G].
        ids: The group's channel of each input channel, int64[G, I / G].
        power: Mean square of what the weights of an input channel see, summed over kernel positions, f64[G, I / G].
        scale: Factor of the noise.
    """

    largest: np.ndarray
    ids: np.ndarray
    power: np.ndarray
    scale: float

    def noise(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """Noise and its gradient by the factors' logarithms."""
        own = logs[self.ids]
        middle = own.mean(axis=1, keepdims=True)  # powers of what is near 1
        shrunk = np.exp(-_POWER * (own - middle))
        sums = np.matmul(self._powers, shrunk[..., None])[..., 0]
        safe = np.where(sums > 0, sums, 1.0)
        steps = np.square(self._peaks) * safe ** (2 / _POWER) * (sums > 0)
        power = self.power * np.exp(2 * (own - middle))
        total, seen = steps.sum(axis=1), power.sum(axis=1)
        weighted = np.matmul((steps / safe)[:, None, :], self._powers)[:, 0] * shrunk
        gradient = np.zeros(len(logs))
        np.add.at(gradient, self.ids, 2 * (total[:, None] * power - weighted * seen[:, None]))
        return self.scale * float((total * seen).sum()), self.scale * gradient

    @cached_property
    def _peaks(self) -> np.ndarray:
        peaks: np.ndarray = np.maximum(self.largest.max(axis=2), 1e-30).astype(np.float64)
        return peaks

    @cached_property
    def _powers(self) -> np.ndarray:
        powers: np.ndarray = (self.largest / self._peaks[..., None]) ** _POWER
        return powers


@dataclass(frozen=True)
class Problem:
    """A group: whose factors may change, and all noise that depends on them.

    Attributes:
        free: bool[n].
        dead: bool[n], always 0 on the samples; they keep the factor 1.
        activations: Its quantized tensors.
        weights: The weights of the layers that read it.
    """

    free: np.ndarray
    dead: np.ndarray
    activations: tuple[Activation, ...]
    weights: tuple[Weights, ...]

    @property
    def changing(self) -> np.ndarray:
        """Channels whose factors may differ from 1, bool[n]."""
        result: np.ndarray = self.free & ~self.dead
        return result

    def balanced(self, reach: Reach, max_factor: float) -> np.ndarray:
        """Logarithms of factors that let every channel reach equally far, where they may: near the least noise."""
        limit = float(np.log(max_factor))
        far = np.max([np.maximum(*item.reaches[reach]) for item in self.activations], axis=0)
        held = far[~self.free].max(initial=0.0) or far.max()
        logs = np.where(self.changing & (far > 0), np.log(held / np.where(far > 0, far, 1.0)), 0.0)
        return _centred(np.clip(logs, -limit, limit), self, limit)

    def tried(self, logs: np.ndarray) -> Noise:
        """Noise with factors exp(logs): of activations as measured on kept values, of weights as predicted."""
        return Noise(sum(a.tried(logs) for a in self.activations), sum(w.noise(logs)[0] for w in self.weights))

    def evaluate(self, logs: np.ndarray, reach: Reach) -> tuple[float, np.ndarray]:
        """The predicted noise and its gradient, 0 where factors do not change."""
        parts = [item.noise(logs, reach) for item in self.activations] + [item.noise(logs) for item in self.weights]
        gradient = sum((item[1] for item in parts), np.zeros(len(logs)))
        return sum(item[0] for item in parts), np.where(self.changing, gradient, 0.0)


def choose(problem: Problem, max_factor: float) -> tuple[np.ndarray, Noise, Noise]:
    """The logarithms of factors, f64[n], that do best on the judged values, with the noise before and after.

    Predictions propose, halfway as well, and so does equal reach; what is measured decides, no factors at all included.
    """
    nothing = np.zeros(len(problem.free))
    before = problem.tried(nothing)
    best, after = nothing, before
    for reach in REACHES if problem.changing.any() else ():
        found = solve(problem, max_factor, reach)
        for candidate in (found, found / 2, problem.balanced(reach, max_factor)):
            noise = problem.tried(candidate)
            if noise.total < after.total:
                best, after = candidate, noise
    return best, before, after


def solve(problem: Problem, max_factor: float, reach: Reach) -> np.ndarray:
    """Logarithms of the factors with the least predicted noise, f64[n]: 0 where they do not change.

    Steps of gradient descent with their size adapted to each factor; the best point seen is returned, so never worse
    than no factors at all.

    Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.
    """
    limit = float(np.log(max_factor))
    best = np.zeros(len(problem.free))
    least, gradient = problem.evaluate(best, reach)
    if not least > 0 or not problem.changing.any():
        return best
    logs = problem.balanced(reach, max_factor)
    first, slope = problem.evaluate(logs, reach)
    if first < least:
        best, least, gradient = logs, first, slope
    logs, first = best, least
    mean, square = np.zeros_like(logs), np.zeros_like(logs)
    for step in range(1, _STEPS + 1):
        mean = 0.9 * mean + 0.1 * gradient / first
        square = 0.99 * square + 0.01 * np.square(gradient / first)
        rate = _RATE * (1 - (step - 1) / _STEPS)
        move = rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-12)
        logs = _centred(np.clip(logs - move, -limit, limit), problem, limit)
        noise, gradient = problem.evaluate(logs, reach)
        if noise < least:
            best, least = logs, noise
    return best


def _centred(logs: np.ndarray, problem: Problem, limit: float) -> np.ndarray:
    """With mean 0 where nothing alive is held at 1: scaling all channels alike changes nothing."""
    changing = problem.changing
    if not changing.any() or not (changing | problem.dead).all():
        return logs
    return np.where(changing, np.clip(logs - logs[changing].mean(), -limit, limit), 0.0)


def _quantized(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What quantization to [low, high] adds to the values."""
    step = np.float32((high - low) / _LEVELS)
    zero = np.float32(round(-low / float(step)))
    result: np.ndarray = (np.clip(np.rint(values / step), -zero, _LEVELS - zero) * step) - values
    return result


def _largest(reach: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """The norm of the scaled reaches, and each one's share in its growth."""
    scaled = reach * np.exp(logs)
    peak = float(scaled.max(initial=0.0))
    if peak == 0:
        return 0.0, np.zeros_like(reach)
    powers = (scaled / peak) ** _POWER
    total = float(powers.sum())
    return peak * total ** (1 / _POWER), powers / total
