"""What the channels of tensors hold on the calibrate samples: extremes, mean, power and some values, streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context
from edgewright.graph.observing import calibrating, chunks, require_finite
from edgewright.graph.scaling import Scaling

if TYPE_CHECKING:
    import onnx_ir as ir

#: Values of one tensor that are kept, for all samples together.
_KEPT_VALUES = 2**18


@dataclass
class ChannelStatistics:
    """Of one tensor, f64[C] each.

    Attributes:
        low: Smallest value, at most 0.
        high: Largest value, at least 0.
        total: Sum of values.
        squares: Sum of squares.
        positions: Values per channel that were counted, over all samples.
        kept: Values at some positions, f32[C, n] for each sample.
    """

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    positions: int = 0
    kept: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def empty(cls, channels: int) -> ChannelStatistics:
        """Nothing counted yet."""
        return cls(np.zeros(channels), np.zeros(channels), np.zeros(channels), np.zeros(channels))

    @property
    def power(self) -> np.ndarray:
        """Mean square of each channel."""
        mean: np.ndarray = self.squares / max(self.positions, 1)
        return mean

    @property
    def values(self) -> np.ndarray:
        """All values that were kept, f32[C, n]."""
        return np.concatenate(self.kept, axis=1)

    @property
    def variance(self) -> np.ndarray:
        """Variance of each channel."""
        mean = self.total / max(self.positions, 1)
        spread: np.ndarray = np.maximum(self.power - np.square(mean), 0.0)
        return spread

    def add(self, rows: np.ndarray, keep: int, rng: np.random.Generator) -> None:
        """Count the values of one sample, f32[C, positions], and keep those at up to `keep` positions."""
        if not rows.size:
            return
        self.low = np.minimum(self.low, rows.min(axis=1))
        self.high = np.maximum(self.high, rows.max(axis=1))
        self.total += rows.sum(axis=1)  # pairwise in float32: as exact as it need be, and fast
        self.squares += np.einsum("cp,cp->c", rows, rows, dtype=np.float64)
        self.positions += rows.shape[1]
        drawn = rng.integers(0, rows.shape[1], keep) if rows.shape[1] > keep else slice(None)
        self.kept.append(rows[:, drawn].copy())

    def merged(self, other: ChannelStatistics) -> ChannelStatistics:
        """Both together."""
        return ChannelStatistics(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.total + other.total,
            self.squares + other.squares,
            self.positions + other.positions,
            self.kept + other.kept,
        )


@dataclass(frozen=True)
class Observed:
    """A tensor on two halves of the samples: factors are made from one and judged by the other."""

    learnt: ChannelStatistics
    judged: ChannelStatistics

    @property
    def both(self) -> ChannelStatistics:
        """Over all samples."""
        return self.learnt if self.judged is self.learnt else self.learnt.merged(self.judged)


def gather(
    ir_model: ir.Model, scaling: Scaling, names: Sequence[str], max_samples: int, context: Context
) -> Mapping[str, Observed]:
    """Statistics of tensors by name, over at most `max_samples` calibrate samples, evenly spaced.

    A single sample is both halves.

    Raises:
        EdgewrightError: E212 where a tensor is not finite, E301 without calibrate samples.
    """
    samples = calibrating(context, step="equalize").spread(max_samples)
    count = len(samples)
    channels = {value.name: item for value, item in scaling.channels.items()}
    sizes = {name: len(channels[name].ids) for name in names}
    halves = [{name: ChannelStatistics.empty(size) for name, size in sizes.items()} for _ in range(2)]
    batches = list(chunks(ir_model, names))
    rng = np.random.default_rng(context.seed)
    done = 0
    for chunk in batches:
        run = context.runner(ir_model, chunk)
        for turn, sample in enumerate(samples):
            for name, array in run(sample.arrays).items():
                require_finite(name, array, sample, step="equalize")
                axis = channels[name].axis
                rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
                keep = max(1, _KEPT_VALUES // (count * sizes[name]))
                halves[turn % 2][name].add(rows, keep, rng)
            done += 1
            context.progress.update("observe channels", done, count * len(batches))
    return {name: Observed(halves[0][name], halves[1 if count > 1 else 0][name]) for name in names}
