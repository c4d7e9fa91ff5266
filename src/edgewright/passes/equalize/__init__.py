"""Equalize: move scales between layers so that a tensor's channels share one quantization step with less loss.

Channels of unequal range waste the levels of a tensor that has one step for all. A layer's weights can make an output
channel larger or smaller, and the weights of its readers undo that; through Relu, Add and pooling as well, so that a
whole residual stream has one set of factors. The factors are those for which the quantization noise that the readers
will see, from the activations and from their own weights, is predicted to be least. The float network stays the same.

Channels that a Clip bounds keep their factor: one that is far below the bound on few samples may reach it on others.
Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, which
balances ranges of weights; here the noise of activations counts too, and is what is minimized.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import Names, lift_constants
from edgewright.graph.naming import require_known
from edgewright.graph.scaling import Group, Scaling, find
from edgewright.graph.shapes import infer
from edgewright.passes.equalize._noise import Noise, Problem, choose
from edgewright.passes.equalize._problem import Points, problem
from edgewright.passes.equalize._statistics import gather

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = True

#: Less predicted noise than this share of what was there, or nothing changes.
_WORTHWHILE = 0.95
_SHOWN = 20


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of tensors whose channels keep their scales, and those of all that is tied to them.
        max_samples: Calibrate samples that are looked at, evenly spaced, 1 or more.
        max_factor: Largest factor, and the inverse of the smallest, 1 or more.
        rounding: How much the noise of rounding weights counts, 0 or more: below 1, since rounding that lets errors
            compensate each other leaves less than rounding to nearest.
    """

    keep: tuple[str, ...] = ()
    max_samples: int = 64
    max_factor: float = 64.0
    rounding: float = 0.3


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Scale in place; returns for each group of tied tensors the predicted noise, before and after, or why it stays.

    Raises:
        EdgewrightError: E103 for an option, E211 where the target has no int8, E212 for activations that are NaN or
            infinite, E301 without calibrate samples.
    """
    _check(config, ir_model)
    form = context.quant_format
    infer(ir_model)
    lift_constants(ir_model)
    scaling = find(ir_model)
    points = Points.of(ir_model, scaling, form)
    chosen, skipped = _candidates(scaling, points, config)
    names = dict.fromkeys(name for group in chosen for name in points.needed(group))
    factors = np.ones(len(scaling.free))
    reports = []
    if names:
        statistics = gather(ir_model, scaling, tuple(names), config.max_samples, context)
        for group in chosen:
            posed = problem(group, scaling, points, statistics, form.weight_bits, config.rounding)
            found, before, after = choose(posed, config.max_factor)
            if not after.total <= _WORTHWHILE * before.total:
                skipped["nothing to gain"] += 1
                continue
            factors[group.classes] = np.exp(found)
            reports.append(_report(group, posed, found, before, after))
    changed = scaling.apply(factors, names=Names(ir_model))
    return {
        "groups": len(scaling.groups),
        "scaled": reports,
        "rescaled": sorted(
            value.name
            for value, channels in scaling.channels.items()
            if value.name and not value.is_initializer() and (factors[channels.ids] != 1).any()
        ),
        "constants_changed": changed,
        "not_scaled": dict(sorted(skipped.items())),
    }


def _candidates(scaling: Scaling, points: Points, config: Config) -> tuple[list[Group], Counter[str]]:
    """Groups in which something may be scaled and something is quantized; of the others, how many and why."""
    chosen: list[Group] = []
    skipped: Counter[str] = Counter()
    for group in scaling.groups:
        if not scaling.free[group.classes].any():
            skipped[_kind(group.barriers)] += 1
        elif set(config.keep).intersection(value.name for value in group.values):
            skipped["asked for"] += 1
        elif not points.readers(group) or not points.quantized(group):
            skipped["no int8 layer reads it"] += 1
        else:
            chosen.append(group)
    return chosen, skipped


def _kind(barriers: tuple[str, ...]) -> str:
    """The first reason without the tensor's name, so that equal ones can be counted."""
    words = [word for word in barriers[0].split(" ") if not word.startswith("`")] if barriers else ["nothing is free"]
    return " ".join(words).rstrip(":")


def _report(group: Group, posed: Problem, found: np.ndarray, before: Noise, after: Noise) -> dict[str, Any]:
    names = [value.name for value in group.values]
    return {
        "tensors": names[:_SHOWN],
        "channels": len(found),
        "fixed": int((~posed.changing).sum()),
        "factors": [float(np.exp(found.min())), float(np.exp(found.max()))],
        "activation_noise": [before.activations, after.activations],
        "weight_noise": [before.weights, after.weights],
    }


def _check(config: Config, ir_model: ir.Model) -> None:
    limits = (
        ("max_samples", config.max_samples, config.max_samples >= 1, "at least 1"),
        ("max_factor", config.max_factor, config.max_factor >= 1, "at least 1"),
        ("rounding", config.rounding, config.rounding >= 0, "at least 0"),
    )
    for option, given, fits, limit in limits:
        if not fits:
            raise EdgewrightError("E103", f"option `equalize.{option}` is {given}, but must be {limit}")
    known = {value.name for node in ir_model.graph for value in node.outputs if value.name}
    require_known(config.keep, known, option="equalize.keep", what="a tensor")
