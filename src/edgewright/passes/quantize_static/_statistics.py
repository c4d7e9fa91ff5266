"""What the float network shows on the calibrate samples: histograms of tensors, means and powers of layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context, Sample, SampleSource
from edgewright.graph.observing import chunks, require_finite
from edgewright.passes.quantize_static._layers import Layer, absorbed
from edgewright.passes.quantize_static._ranges import Histogram

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class ChannelSums:
    """Sums over one output channel of a layer, f64[O] each."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel."""
        return self.total / max(self.count, 1)

    @property
    def power(self) -> np.ndarray:
        """Mean square of each channel."""
        return self.squares / max(self.count, 1)

    def add(self, made: np.ndarray, axis: int) -> None:
        """Count one array whose channels lie on `axis`."""
        rows = np.moveaxis(made, axis, 0).reshape(made.shape[axis], -1)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(axis=1)  # pairwise in float32: as exact as it need be, and fast
        self.squares = self.squares + np.einsum("cp,cp->c", rows, rows, dtype=np.float64)


@dataclass(frozen=True)
class Statistics:
    """Of the float network.

    Attributes:
        histograms: By tensor, over all calibrate samples.
        channels: By what a layer makes, before and after an activation fused into it, over the samples that rounding
            learns from as well, so that means compare.
    """

    histograms: Mapping[str, Histogram]
    channels: Mapping[str, ChannelSums]


def gather(
    ir_model: ir.Model,
    points: Sequence[str],
    layers: Mapping[str, Layer],
    *,
    samples: SampleSource,
    learning: Collection[int],
    context: Context,
) -> tuple[Statistics, list[Sample]]:
    """Run the float network over the calibrate samples, one at a time; also those that rounding learns from.

    Args:
        ir_model: The float graph.
        points: Tensors to make histograms of.
        layers: Layers to sum the outputs of.
        samples: Calibrate samples.
        learning: Positions of the samples that rounding learns from.
        context: For running it.

    Raises:
        EdgewrightError: E212 where a tensor is not finite.
    """
    histograms = {name: Histogram() for name in points}
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    made = {name: absorbed(values[name]).name or "" for name in layers}
    axes = {key: 1 if layers[name].op == "Conv" else -1 for name in layers for key in (name, made[name])}
    channels = {name: ChannelSums() for name in axes}
    batches = list(chunks(ir_model, dict.fromkeys((*points, *axes))))
    context.progress.update("observe activations", 0, len(samples) * len(batches))
    done = 0
    kept: dict[int, Sample] = {}
    for chunk in batches:  # one network at a time: another set of outputs is another session
        for position, sample in enumerate(samples):
            shown = context.run(ir_model, sample.arrays, chunk)
            if position in learning:
                kept[position] = sample
            for name, array in shown.items():
                require_finite(name, array, sample, step="quantize_static")
                if name in histograms:
                    histograms[name].add(array)
                if name in channels and position in learning:
                    channels[name].add(array, axes[name])
            done += 1
            context.progress.update("observe activations", done, len(samples) * len(batches))
    return Statistics(histograms, channels), list(kept.values())
