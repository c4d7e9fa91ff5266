"""Quantize to int8 with static ranges: standard QDQ, in the format that the target's runtime really fuses.

Closed form, without labels or training: ranges with the least squared error over the calibrate samples; weights by
output channel, rounded layer by layer on the quantized network's own activations so that errors compensate each
other; biases shifted so that every channel keeps its mean; and the few layers that the answers depend on most left in
float, where the select samples say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.contracts import Context, QuantFormat, Sample, SampleSource, evenly
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import drop_unused, lift_constants
from edgewright.graph.naming import names_of, require_float, require_known
from edgewright.graph.observing import calibrating
from edgewright.graph.shapes import infer, static_shape
from edgewright.passes.quantize_static._assembly import quantize
from edgewright.passes.quantize_static._layers import absorbed, find_layers
from edgewright.passes.quantize_static._placement import Placement, place
from edgewright.passes.quantize_static._ranges import Range, choose
from edgewright.passes.quantize_static._statistics import Statistics, gather
from edgewright.passes.quantize_static._summary import summary
from edgewright.passes.quantize_static._trials import Trials, without

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = True
ROUGH = {"search": False, "compensate": False, "correct_bias": False, "ranges": "minmax"}

_ASKED = "asked for"
_MIXED = "its output mixes scales: one step for all channels would drown the small ones"
_SENSITIVE = "the answers depend on it most"
#: Activations kept for rounding, for all samples together.
_KEPT_BYTES = 384 * 2**20
_FEWEST, _MOST = 4, 64
#: Samples that trials of the search learn from, up to twice as many: the vectors are as many, they come from fewer samples.
_TRIAL = 16
#: A head whose output one step cannot serve: this share of its channels is below this SQNR.
_MIXED_SHARE, _MIXED_POWER = 0.1, 10**1.5


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of nodes, or of tensors that they make, to leave in float.
        search: Also leave in float the fewest layers with which the select samples agree as required.
        keep_share: Largest share of the layers that the search may leave in float.
        ranges: How ranges of activations are chosen.
        compensate: Let the rounding errors of a layer's weights compensate each other.
        correct_bias: Shift biases so that every channel keeps its mean.
    """

    keep: tuple[str, ...] = ()
    search: bool = True
    keep_share: float = 0.5
    ranges: Literal["mse", "minmax"] = "mse"
    compensate: bool = True
    correct_bias: bool = True


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Quantize in place; returns what was done to each layer, and how far the select samples agree.

    Raises:
        EdgewrightError: E103 for an unknown name in `keep`, E211 where the runtime has no int8, E212 for a graph that is
            quantized already or has nothing to quantize, and for activations that are NaN or infinite, E301 without
            calibrate samples.
    """
    require_float(ir_model, step="quantize_static", recipe="int8")
    form = context.quant_format
    infer(ir_model)
    lift_constants(ir_model)
    _check(config, ir_model)
    found, reasons = find_layers(ir_model, form)
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    outputs = {name: absorbed(values[layer.result]).name or "" for name, layer in found.items()}
    asked = {
        name for name, layer in found.items() if {name, layer.node, layer.result, outputs[name]} & set(config.keep)
    }
    reasons |= dict.fromkeys(asked, _ASKED)
    layers = {name: layer for name, layer in found.items() if name not in asked}
    if not layers:
        raise EdgewrightError("E212", f"`quantize_static` finds no layer to quantize{_why(reasons)}")
    samples = calibrating(context, step="quantize_static")
    placement = place(ir_model, layers, form)
    statistics = _observe(ir_model, placement, samples, context)
    ranges = {name: choose(item, form, calibration=config.ranges) for name, item in statistics.histograms.items()}
    mixed = _mixed_heads(ir_model, placement, ranges, statistics, form)
    reasons |= dict.fromkeys(mixed, _MIXED)
    placement = without(ir_model, placement, mixed, context)
    if not placement.layers:
        raise EdgewrightError("E212", f"`quantize_static` finds no layer to quantize{_why(reasons)}")
    trials = Trials(ir_model, placement, ranges, statistics, context, config.compensate, config.correct_bias)
    selection = trials.select(keep_share=config.keep_share if config.search else 0.0)
    reasons |= dict.fromkeys(selection.taken_back, _SENSITIVE)
    reports = dict(trials.learnt(placement.layers)[0].reports)  # of all, those that stay in float among them
    learner, rounded = trials.learnt([name for name in placement.layers if name not in selection.taken_back])
    placement, reports = learner.placement, reports | learner.reports
    quantize(ir_model, placement, ranges, rounded)
    for graph in ir_model.graphs():
        for value in tuple(graph.initializers.values()):
            drop_unused(value)
    return summary(form, found, outputs, reasons, placement, ranges, reports, selection)


def _observe(ir_model: ir.Model, placement: Placement, samples: SampleSource, context: Context) -> Statistics:
    """Statistics of the float network, over all samples and over those that rounding learns from."""
    points = placement.points  # also those that share a range: with fewer layers in int8 they may stand alone
    first = next(iter(samples))
    largest = max(_bytes(ir_model, points, first, context))
    count = min(int(np.clip(_KEPT_BYTES // max(largest, 1), _FEWEST, _MOST)), len(samples))
    positions = evenly(len(samples), count)
    few = positions[:: max(count // _TRIAL, 1)]
    return gather(ir_model, points, placement.layers, samples=samples, learning=positions, trial=few, context=context)


def _bytes(ir_model: ir.Model, names: Sequence[str], sample: Sample, context: Context) -> list[int]:
    """Size of each tensor, for one sample where the graph does not say."""
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    values |= {value.name: value for value in ir_model.graph.inputs}
    shapes = {name: static_shape(values[name]) for name in names}
    unknown = [name for name, shape in shapes.items() if shape is None]
    measured = context.run(ir_model, sample.arrays, unknown) if unknown else {}
    return [
        measured[name].nbytes if shape is None else 4 * int(np.prod(shape, dtype=np.int64))
        for name, shape in shapes.items()
    ]


def _mixed_heads(
    ir_model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, Range],
    statistics: Statistics,
    form: QuantFormat,
) -> list[str]:
    """Layers whose output is quantized although no int8 layer reads it, and has channels too small for its one step."""
    values = {value.name: value for node in ir_model.graph for value in node.outputs}
    found = []
    for name, layer in placement.layers.items():
        made = absorbed(values[name]).name or ""
        if made not in placement.points or layer.op in form.float_outputs or _feeds(values[made], placement):
            continue
        channels = statistics.lesson.channels[name]
        step = ranges[placement.owner(made)].scale
        alive = channels.power > 0
        small = alive & (channels.power < _MIXED_POWER * step**2 / 12)
        if small.sum() > _MIXED_SHARE * max(alive.sum(), 1):
            found.append(name)
    return found


def _feeds(value: ir.Value, placement: Placement) -> bool:
    """True where an int8 layer reads what becomes of `value`."""
    read = {layer.data for layer in placement.layers.values()}
    seen, stack = set(), [value]
    while stack:
        item = stack.pop()
        if item.name in read:
            return True
        for use in item.uses():
            for output in use.node.outputs:
                if output not in seen:
                    seen.add(output)
                    stack.append(output)
    return False


def _check(config: Config, ir_model: ir.Model) -> None:
    if not 0 <= config.keep_share <= 1:
        raise EdgewrightError(
            "E103", f"option `quantize_static.keep_share` is {config.keep_share}, but must be from 0 to 1"
        )
    known = {name for node in ir_model.graph for name in names_of(node)}
    require_known(config.keep, known, option="quantize_static.keep", what="a node or tensor")


def _why(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ": it has none with constant weights"
    name, reason = next(iter(reasons.items()))
    return f": {len(reasons)} cannot be, first `{name}`: {reason}"
