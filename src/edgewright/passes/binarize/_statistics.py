"""Mean and spread of what layers read and make in the original, by channel, from the calibrate samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.observing import require_finite

if TYPE_CHECKING:
    import onnx_ir as ir

#: Samples that are enough for a mean and a spread.
_MOST_SAMPLES = 64


@dataclass
class Moments:
    """Sums over samples and places, f64[C] each."""

    count: int = 0
    total: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0

    def add(self, x: np.ndarray) -> None:
        """Take in f32[N, C, ...]."""
        rows = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1)
        self.squares = self.squares + np.square(rows).sum(1)

    @property
    def mean(self) -> np.ndarray:
        """f32[C]."""
        return np.asarray(self.total / self.count, np.float32)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation f32[C], at least a thousandth of the largest one, so that dead channels divide by no 0."""
        mean = np.asarray(self.total) / self.count
        found = np.sqrt(np.maximum(np.asarray(self.squares) / self.count - mean**2, 0))
        return np.maximum(found, max(1e-3 * float(found.max()), 1e-6)).astype(np.float32)


@dataclass
class Statistics:
    """Of one layer.

    Attributes:
        read: What it reads.
        made: What it makes, or, where a shortcut leads around it, how far that is from what it reads.
        shortcut: True where what it reads has the size of what it makes.
    """

    shortcut: bool
    read: Moments = field(default_factory=Moments)
    made: Moments = field(default_factory=Moments)


def measured(ir_model: ir.Model, layers: Sequence[ir.Node], context: Context, *, shortcuts: bool) -> list[Statistics]:
    """The statistics of each layer, in their order.

    Raises:
        EdgewrightError: E301 without calibrate samples, E212 where one is not finite, or what a layer makes of it.
    """
    assert context.samples is not None
    samples = context.samples.role("calibrate")
    if not len(samples):
        raise EdgewrightError("E301", "binarize needs samples of the role calibrate, and there are none")
    found = [Statistics(shortcuts and _same_size(layer)) for layer in layers]
    pairs = [(str(layer.inputs[0].name), str(layer.outputs[0].name)) for layer in layers if layer.inputs[0] is not None]
    run = context.runner(ir_model.clone(), tuple(dict.fromkeys(name for pair in pairs for name in pair)))
    for number, sample in enumerate(samples):
        if number >= _MOST_SAMPLES:
            break
        context.progress.update("binarize", number, min(len(samples), _MOST_SAMPLES))
        for name, array in sample.arrays.items():
            require_finite(name, array, sample, step="binarize")
        tensors = run(sample.arrays)
        for name, array in tensors.items():
            require_finite(name, array, sample, step="binarize")
        for one, (read, made) in zip(found, pairs, strict=True):
            one.read.add(tensors[read])
            one.made.add(tensors[made] - tensors[read] if one.shortcut else tensors[made])
    return found


def _same_size(layer: ir.Node) -> bool:
    source, result = layer.inputs[0], layer.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return False
    return list(source.shape) == list(result.shape)
