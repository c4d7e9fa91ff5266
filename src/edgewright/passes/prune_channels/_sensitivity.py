"""How much the whole network's outputs suffer when one group loses channels and its readers make up for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context, Sample
from edgewright.graph.dataflow import Names
from edgewright.graph.linear import find_linear
from edgewright.metrics import rel_l2
from edgewright.passes.prune_channels._elimination import Curve

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of samples and of what the network makes of them.
_HELD_BYTES = 256 * 2**20
#: Samples at most: every group is measured at several widths on each, and a mean of errors needs no more.
_MOST = 64


def corrected(
    ir_model: ir.Model, curves: Mapping[str, Curve], max_samples: int, context: Context
) -> tuple[dict[str, np.ndarray], dict[str, dict[int, float]]]:
    """Error curves by group, the predicted ones scaled to what was measured, and the measured errors.

    The error is the mean over samples of the squared relative L2 distance of the worst output. Between measured numbers
    of lost channels the scale is drawn straight. A curve never falls.
    """
    samples = list(_asked(context, min(max_samples, _MOST)))
    answers = [_floats(context.run(ir_model, sample.arrays)) for sample in samples]
    found: dict[str, np.ndarray] = {}
    measured: dict[str, dict[int, float]] = {}
    for done, (name, curve) in enumerate(curves.items()):
        context.progress.update("measure what groups matter", done, len(curves))
        measured[name] = {
            level: _error(_with(ir_model, weights), samples, answers, context)
            for level, weights in curve.snapshots.items()
        }
        scales = {level: error / max(curve.losses[level], 1e-12) for level, error in measured[name].items()}
        at = np.arange(len(curve.losses))
        scale = np.interp(at, sorted(scales), [scales[level] for level in sorted(scales)]) if scales else 1.0
        found[name] = np.maximum.accumulate(curve.losses * scale)
    context.progress.update("measure what groups matter", len(curves), len(curves))
    return found, measured


def _asked(context: Context, most: int) -> Sequence[Sample]:
    """Select samples, which the predictions have not seen, or calibrate samples where there are too few."""
    assert context.samples is not None
    chosen = context.samples.role("select")
    if len(chosen) < min(8, most):
        chosen = context.samples.role("calibrate")
    found: list[Sample] = []
    size = 0
    for sample in chosen.spread(most):
        size += sum(array.nbytes for array in sample.arrays.values())
        if found and size > _HELD_BYTES:
            break
        found.append(sample)
    return found


def _with(ir_model: ir.Model, weights: Mapping[str, np.ndarray]) -> ir.Model:
    """A copy in which layers have these weights and biases, f32[G, O, K + 1]."""
    copy = ir_model.clone()
    layers, names = find_linear(copy), Names(copy)
    for name, maps in weights.items():
        layers[name].write(maps[..., :-1], maps[..., -1].reshape(-1), names)
    return copy


def _error(
    ir_model: ir.Model, samples: Sequence[Sample], answers: Sequence[Mapping[str, np.ndarray]], context: Context
) -> float:
    run: Callable[..., Mapping[str, np.ndarray]] = context.runner(ir_model)
    total = 0.0
    for sample, expected in zip(samples, answers, strict=True):
        got = run(sample.arrays)
        total += max((rel_l2(array, got[name]) ** 2 for name, array in expected.items()), default=0.0)
    return total / max(len(samples), 1)


def _floats(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
