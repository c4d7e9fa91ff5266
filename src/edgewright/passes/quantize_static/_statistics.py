"""What the float network shows on the calibrate samples: histograms of tensors, means and powers of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Lesson:
    """What rounding learns from.

    Attributes:
        samples: Calibrate samples.
        channels: What the float network makes of these very samples, by what a layer makes, before and after an
            activation fused into it: so that means compare.
    """

    samples: list[Sample]
    channels: Mapping[str, ChannelSums]


@dataclass(frozen=True)
class Statistics:
    """Of the float network.

    Attributes:
        histograms: By tensor, over all calibrate samples.
        lesson: Over those that rounding learns from.
        trial: Over a part of these, for trials.
    """

    histograms: Mapping[str, Histogram]
    lesson: Lesson
    trial: Lesson


def gather(
    ir_model: ir.Model,
    points: Sequence[str],
    layers: Mapping[str, Layer],
    *,
    samples: SampleSource,
    learning: Sequence[int],
    trial: Sequence[int],
    context: Context,
) -> Statistics:
    """Run the float network over the calibrate samples, one at a time.

    Args:
        ir_model: The float graph.
        points: Tensors to make histograms of.
        layers: Layers to sum the outputs of.
        samples: Calibrate samples.
        learning: Positions of the samples that rounding learns from.
        trial: Of these, the positions of those that trials learn from.
        context: For running it.

    Raises:
        EdgewrightError: E212 where a tensor is not finite.
    """
    histograms = {name: Histogram() for name in points}
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    made = {name: absorbed(values[name]).name or "" for name in layers}
    axes = {key: 1 if layers[name].op == "Conv" else -1 for name in layers for key in (name, made[name])}
    lessons = [(positions, Lesson([], {name: ChannelSums() for name in axes})) for positions in (learning, trial)]
    batches = list(chunks(ir_model, dict.fromkeys((*points, *axes))))
    context.progress.update("observe activations", 0, len(samples) * len(batches))
    done = 0
    for number, chunk in enumerate(batches):  # one network at a time: another set of outputs is another session
        run = context.runner(ir_model, chunk)
        for position, sample in enumerate(samples):
            shown = run(sample.arrays)
            taught = [lesson for positions, lesson in lessons if position in positions]
            for lesson in taught if number == 0 else ():
                lesson.samples.append(sample)
            for name, array in shown.items():
                require_finite(name, array, sample, step="quantize_static")
                if name in histograms:
                    histograms[name].add(array)
                if name in axes:
                    for lesson in taught:
                        lesson.channels[name].add(array, axes[name])
            done += 1
            context.progress.update("observe activations", done, len(samples) * len(batches))
    (_, lesson), (_, few) = lessons
    return Statistics(histograms, lesson, few)
