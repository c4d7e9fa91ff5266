"""What the pass reports of itself, for the report page and for people who ask why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgewright.contracts import QuantFormat
from edgewright.graph.selection import Selection
from edgewright.passes.quantize_static._layers import Layer
from edgewright.passes.quantize_static._placement import Placement
from edgewright.passes.quantize_static._ranges import Range


def summary(
    form: QuantFormat,
    found: Mapping[str, Layer],
    outputs: Mapping[str, str],
    reasons: Mapping[str, str],
    placement: Placement,
    ranges: Mapping[str, Range],
    reports: Mapping[str, Mapping[str, Any]],
    selection: Selection,
) -> dict[str, Any]:
    """JSON-ready statistics.

    Args:
        form: The format.
        found: Every layer that might have been quantized, in graph order.
        outputs: By layer, the tensor that it hands on: after an activation fused into it.
        reasons: Why layers stay in float, those that could not be quantized among them.
        placement: What is quantized.
        ranges: By point.
        reports: By layer, what rounding did.
        selection: What the select samples said.
    """
    layers = []
    for name, layer in found.items():
        int8 = name in placement.layers
        layers.append(
            {
                "name": name,
                "node": layer.node,
                "op": layer.op,
                "state": "int8" if int8 else "float",
                "reason": reasons.get(name, ""),
                "weights": layer.weight.size,
                "weight_bits": layer.room(form).largest.bit_length() + 1 if int8 else 32,
                "input": _range(layer.data, placement, ranges) if int8 else None,
                "output": _range(outputs[name], placement, ranges) if outputs[name] in placement.points else None,
                "sensitivity_db": _level(selection.alone.get(name)),
                **reports.get(name, {}),
            }
        )
    return {
        "format": {
            "activation_dtype": form.activation_dtype,
            "activation_symmetric": form.activation_symmetric,
            "weight_bits": form.weight_bits,
            "pairs": form.pairs,
            "per_channel": form.per_channel,
            "reason": form.reason,
        },
        "layers": layers,
        "tensors": {name: _range(name, placement, ranges) for name in placement.points},
        "float": {name: reason for name, reason in reasons.items() if name not in found},
        "kept": list(selection.taken_back),
        "select": _selected(selection),
    }


def _selected(selection: Selection) -> dict[str, Any] | None:
    if not selection.steps:
        return None
    return {
        "samples": selection.samples,
        "required": selection.required,
        "agreement_before": selection.steps[0][1],
        "agreement_after": selection.agreement,
        "steps": [{"kept": count, "agreement": agreement} for count, agreement in selection.steps],
    }


def _level(moved: float | None) -> float | None:
    """SQNR in dB of a rel-L2 distance; None where there is none or nothing is left."""
    if moved is None or not math.isfinite(moved):
        return None
    return -20 * math.log10(max(moved, 1e-12))


def _range(name: str, placement: Placement, ranges: Mapping[str, Range]) -> dict[str, Any] | None:
    owner = placement.owner(name)
    return ranges[owner].to_json(name) if owner in ranges else None
