"""Which changes a network bears: the fewest that must be taken back so that the select samples still agree."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context, Sample
from edgewright.model import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir

#: Select samples that are judged, and those on which each change is tried alone.
_JUDGED, _TRIED = 64, 4


@dataclass(frozen=True)
class Selection:
    """What the select samples said.

    Attributes:
        taken_back: Changes not to make, the worst first, each with what it alone does: rel-L2 of the outputs.
        agreement: That of the select samples with the other changes made; None where there are no samples.
        samples: How many were asked.
    """

    taken_back: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    samples: int = 0


def take_back_fewest(
    ir_model: ir.Model, changes: Sequence[str], changed: Callable[[Sequence[str]], ir.Model], context: Context
) -> Selection:
    """The changes that move the outputs most are taken back, as few as the select samples need to agree.

    Each change is tried alone only where all together disagree. Agreement is taken to rise with the number of changes
    taken back, which is therefore found by bisection.

    Args:
        ir_model: The graph without the changes.
        changes: Their names.
        changed: Makes a copy of the graph with the changes of these names.
        context: Samples, how they are run and compared, and what agreement they need.
    """
    source = context.samples.role("select") if context.samples is not None else ()
    samples = list(itertools.islice(source, _JUDGED))
    if not samples or not changes:
        return Selection()
    expected = [context.run(ir_model, sample.arrays) for sample in samples]

    def agreement(chosen: Sequence[str]) -> float:
        network = changed(chosen)
        return context.agreement(expected, [context.run(network, sample.arrays) for sample in samples])

    reached = {0: agreement(changes)}
    if reached[0] >= context.min_agreement:
        return Selection(agreement=reached[0], samples=len(samples))
    moved = {name: _moved(changed((name,)), samples[:_TRIED], expected, context) for name in changes}
    ranked = sorted(changes, key=lambda name: moved[name])  # the worst last

    def enough(count: int) -> bool:
        reached[count] = agreement(ranked[: len(ranked) - count])
        return reached[count] >= context.min_agreement

    count = bisect.bisect_left(range(len(changes)), True, lo=1, key=enough)
    if count not in reached:  # all of them
        enough(count)
    return Selection(
        {name: moved[name] for name in reversed(ranked[len(ranked) - count :])}, reached[count], len(samples)
    )


def _moved(network: ir.Model, samples: Sequence[Sample], expected: Sequence[Arrays], context: Context) -> float:
    """How far the outputs move: the mean over outputs of their rel-L2 over all samples; infinite where one is NaN."""
    noise: dict[str, float] = {}
    signal: dict[str, float] = {}
    for sample, outputs in zip(samples, expected, strict=False):
        results = context.run(network, sample.arrays)
        for name, value in outputs.items():
            if value.dtype.kind == "f" and value.shape == results[name].shape:
                true, got = value.astype(np.float64), results[name].astype(np.float64)
                noise[name] = noise.get(name, 0.0) + float(np.square(got - true).sum())
                signal[name] = signal.get(name, 0.0) + float(np.square(true).sum())
    ratios = [math.sqrt(noise[name] / signal[name]) for name in noise if signal[name]]
    mean = sum(ratios) / len(ratios) if ratios else 0.0
    return math.inf if math.isnan(mean) else mean
