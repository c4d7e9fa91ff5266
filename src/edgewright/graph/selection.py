"""Which changes a network bears: the fewest that must be taken back so that the select samples still agree."""

from __future__ import annotations

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
_JUDGED, _TRIED = 100, 6
#: Of judged samples and what the network makes of them.
_HELD_BYTES = 256 * 2**20

Changed = Callable[[Sequence[str]], "ir.Model"]


@dataclass(frozen=True)
class Selection:
    """What the select samples said.

    Attributes:
        taken_back: Changes not to make, the worst first, each with what it alone does: rel-L2 of the worst output.
        agreement: That of the select samples with the other changes made; None where there are no samples.
        samples: How many were asked.
        required: The agreement that was looked for; 0 where there are no samples.
        steps: What was tried, in this order: how many changes were taken back, and the agreement then.
        alone: What each change does alone, where that was measured: rel-L2 of the worst output.
    """

    taken_back: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    samples: int = 0
    required: float = 0.0
    steps: tuple[tuple[int, float], ...] = ()
    alone: dict[str, float] = field(default_factory=dict)


def take_back_fewest(
    ir_model: ir.Model,
    changes: Sequence[str],
    changed: Changed,
    context: Context,
    *,
    most: int | None = None,
    alone: Callable[[str], ir.Model] | None = None,
    final: Changed | None = None,
) -> Selection:
    """The changes that move the outputs most are taken back, as few as the select samples need to agree.

    Agreement is taken to rise with the number of changes taken back, which is therefore found by fourfold steps and then
    by halving the gap.

    Args:
        ir_model: The graph without the changes.
        changes: Their names.
        changed: Makes a copy of the graph with the changes of these names.
        context: Samples, how they are run and compared, and what agreement they need.
        most: So many may be taken back; where these are not enough, what came nearest counts. None: all, if need be.
        alone: Makes a copy with one change alone. Given, each is tried alone in any case; else only where all changes
            together disagree.
        final: Makes the copy that counts in the end, where `changed` makes a cheaper one for the search.
    """
    samples, expected = _original(ir_model, context)
    if not samples or not changes:
        return Selection()
    required = context.required(len(samples))
    steps: dict[int, float] = {}
    ranked: list[str] = []

    def enough(count: int, make: Changed = changed) -> bool:
        run = context.runner(make([name for name in changes if name not in ranked[:count]]))
        got = []
        for number, sample in enumerate(samples):
            context.progress.update(f"compare answers with {count} taken back", number, len(samples))
            got.append(run(sample.arrays))
        steps[count] = context.agreement(expected, got)
        return steps[count] >= required

    reached = enough(0)
    moved: dict[str, float] = {}
    if alone is not None or not reached:
        for number, name in enumerate(changes):
            context.progress.update("each alone", number, len(changes))
            network = changed((name,)) if alone is None else alone(name)
            moved[name] = _moved(network, samples[:_TRIED], expected, context)
    ranked = sorted(changes, key=lambda name: -moved.get(name, 0.0))
    count = 0
    if not reached:
        count = _least(enough, len(changes) if most is None else most)
        if not count:
            count = len(changes) if most is None else max(steps, key=lambda tried: (steps[tried], -tried))
        if count and final is not None:
            enough(count, final)
    taken = {name: moved[name] for name in ranked[:count]}
    return Selection(taken, steps[count], len(samples), required, tuple(steps.items()), moved)


def _least(enough: Callable[[int], bool], most: int) -> int:
    """The least count from 1 to `most` that is enough, when 0 is not; 0 where even `most` is not."""
    low, high = 0, min(1, most)
    while high > low and not enough(high):
        if high == most:
            return 0
        low, high = high, min(4 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _original(ir_model: ir.Model, context: Context) -> tuple[list[Sample], list[Arrays]]:
    """Select samples and the outputs without any change, as many as fit into memory twice."""
    samples: list[Sample] = []
    expected: list[Arrays] = []
    room = _HELD_BYTES
    chosen = context.samples.role("select") if context.samples is not None else ()
    if not len(chosen):
        return [], []
    run = context.runner(ir_model)
    for sample in chosen:
        outputs = run(sample.arrays)
        room -= sum(array.nbytes for array in (*outputs.values(), *outputs.values(), *sample.arrays.values()))
        if len(samples) >= _TRIED and (room < 0 or len(samples) == _JUDGED):
            break
        samples.append(sample)
        expected.append(outputs)
    return samples, expected


def _moved(network: ir.Model, samples: Sequence[Sample], expected: Sequence[Arrays], context: Context) -> float:
    """How far the worst output moves: rel-L2 over all samples; infinite where one is NaN."""
    noise: dict[str, float] = {}
    signal: dict[str, float] = {}
    run = context.runner(network)
    for sample, outputs in zip(samples, expected, strict=False):
        results = run(sample.arrays)
        for name, value in outputs.items():
            if value.dtype.kind == "f" and value.shape == results[name].shape:
                true, got = value.astype(np.float64), results[name].astype(np.float64)
                noise[name] = noise.get(name, 0.0) + float(np.square(got - true).sum())
                signal[name] = signal.get(name, 0.0) + float(np.square(true).sum())
    ratios = [math.sqrt(noise[name] / signal[name]) for name in noise if signal[name]]
    return math.inf if any(map(math.isnan, ratios)) else max(ratios, default=0.0)
