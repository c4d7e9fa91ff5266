"""What quantization did to each layer, read from the history of a run's bundles, in words and numbers for the page.

A pass that quantizes leaves `layers` in the stats of its Step: one mapping a layer, in graph order (`weights` where it
works on weights alone). Every key is optional and nothing is taken on trust, since a pass may be anyone's: what is
missing or no number is shown as a dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.model import Step
from edgewright.records import Candidate, DeployOutcome
from edgewright.report.steps import steps

#: Parts of the section, and layers of one part: what keeps the page of a huge run under a few MB.
MOST_PARTS, MOST_LAYERS = 5, 200
MOST_WORST = 5
_KNOWN = frozenset({
    "name", "node", "op", "state", "reason", "weights", "weight_bits", "bits", "input", "output", "weight_sqnr_db",
    "operator", "sqnr_db", "rounding_before_db", "rounding_after_db", "bias_before", "bias_after", "activation_db",
    "sensitivity_db",
})  # fmt: skip
_KNOWN_OF_NUMBERS = _KNOWN - {"name", "node", "op", "operator", "state", "reason", "weights", "input", "output"}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The range of one tensor: what was seen on the calibration samples, and what the quantized network can hold.

    Attributes:
        low: Smallest value that it holds.
        high: Largest.
        seen_low: Smallest value seen.
        seen_high: Largest.
        clipped: Part of the values outside `low`..`high`, 0..1.
        sqnr_db: Signal to noise of the tensor by this, dB.
        method: How the range was found.
    """

    low: float | None = None
    high: float | None = None
    seen_low: float | None = None
    seen_high: float | None = None
    clipped: float | None = None
    sqnr_db: float | None = None
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """One layer with weights: None where a number is not known; levels in dB are infinite where nothing changed.

    Attributes:
        index: Place in the graph, from 1.
        name: Its last tensor.
        node: Its node.
        op: Its operator.
        state: "int8", "float" or another word of the pass.
        reason: Why it stays in float.
        weights: Number of weights.
        bits: Bits of a weight.
        input: Range of what it reads.
        output: Range of what it makes.
        weight_db: Signal to noise of the weights themselves, rounded to nearest.
        rounding_before: Of its output by weights rounded to nearest.
        rounding_after: Of its output by the weights that were chosen.
        bias_before: Shift of its output's mean over the output's spread, before the bias was corrected.
        bias_after: After.
        activation_db: Of its output by quantized activations alone.
        sensitivity_db: Of the network's worst output where this layer alone is quantized.
        others: What else the pass tells of it.
    """

    index: int
    name: str
    node: str = ""
    op: str = ""
    state: str = ""
    reason: str = ""
    weights: int | None = None
    bits: int | None = None
    input: Range | None = None
    output: Range | None = None
    weight_db: float | None = None
    rounding_before: float | None = None
    rounding_after: float | None = None
    bias_before: float | None = None
    bias_after: float | None = None
    activation_db: float | None = None
    sensitivity_db: float | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error_db(self) -> float | None:
        """Signal to noise of its own output by all that is rounded, None where nothing is known."""
        noises = [10 ** (-min(level, 3000.0) / 10) for level in self.sources.values()]
        if not noises:
            return None
        total = sum(noises)
        return -10 * math.log10(total) if total > 1e-200 else math.inf

    @property
    def sources(self) -> dict[str, float]:
        """What its own output loses, dB, by source: its weights, its input, what it makes; those that are known."""
        stages = (self.rounding_after, self.rounding_before, self.weight_db)
        levels = {
            "weights": next((level for level in stages if level is not None), None),
            "input": self.activation_db,
            "output": self.output.sqnr_db if self.output else None,
        }
        return {source: level for source, level in levels.items() if level is not None}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one quantizing step did, for all candidates that hold the same result.

    Attributes:
        items: The candidates.
        step: The step of their history.
        layers: In graph order.
        worst: Those in int8 that hurt most, worst first.
        by_sensitivity: True where `worst` is by the effect on the whole network, False where by the layer's own error.
    """

    items: tuple[Candidate, ...]
    step: Step
    layers: tuple[QuantizedLayer, ...]
    worst: tuple[QuantizedLayer, ...]
    by_sensitivity: bool

    @property
    def shown(self) -> tuple[QuantizedLayer, ...]:
        """Layers for chart and table: all of them, or the `MOST_LAYERS` that matter most, in graph order."""
        if len(self.layers) <= MOST_LAYERS:
            return self.layers
        order = sorted(self.layers, key=lambda layer: (_ahead(layer, self.by_sensitivity), layer.index))
        return tuple(sorted(order[:MOST_LAYERS], key=lambda layer: layer.index))

    @property
    def quantized(self) -> tuple[QuantizedLayer, ...]:
        """Layers that are not in float."""
        return tuple(layer for layer in self.layers if layer.state != "float")


def parts(outcome: DeployOutcome, run: Path) -> tuple[Part, ...]:
    """What quantization did in the candidates of the run in folder `run`, the chosen one first.

    A bundle that was moved away or altered costs its part only.
    """
    return tuple(_part(step, items) for step, items in steps(outcome, run, _quantizes))


def _quantizes(item: Candidate, step: Step) -> bool:
    """What an original brought with it was not done in this run."""
    return item.recipe != "original" and bool(_rows(step.stats))


def _rows(stats: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for key in ("layers", "weights"):
        rows = [row for row in list_of(stats.get(key)) if isinstance(row, Mapping)]
        if any(_KNOWN_OF_NUMBERS & row.keys() for row in rows):  # else some other pass counts its layers
            return rows
    return []


def _part(step: Step, items: Sequence[Candidate]) -> Part:
    layers = tuple(_layer(index, row, step.stats) for index, row in enumerate(_rows(step.stats), 1))
    ranked = [layer for layer in layers if layer.state != "float"]
    by_sensitivity = any(layer.sensitivity_db is not None for layer in ranked)
    measured = [layer for layer in ranked if math.isfinite(_level(layer, by_sensitivity))]
    worst = sorted(measured, key=lambda layer: _level(layer, by_sensitivity))
    worst = worst[: min(MOST_WORST, (len(ranked) + 1) // 2)]  # where all are the worst, none is
    return Part(items=tuple(items), step=step, layers=layers, worst=tuple(worst), by_sensitivity=by_sensitivity)


def _level(layer: QuantizedLayer, by_sensitivity: bool) -> float:
    level = layer.sensitivity_db if by_sensitivity else layer.error_db
    return math.inf if level is None else level


def _ahead(layer: QuantizedLayer, by_sensitivity: bool) -> float:
    """Sort key of what must be on the page: layers in float, then by level."""
    return -math.inf if layer.state == "float" else _level(layer, by_sensitivity)


def _layer(index: int, row: Mapping[str, Any], stats: Mapping[str, Any]) -> QuantizedLayer:
    bits = whole_of(next((row[key] for key in ("weight_bits", "bits") if key in row), stats.get("weight_bits")))
    tensors = stats.get("tensors")
    made = tensors.get(row.get("name")) if isinstance(tensors, Mapping) and isinstance(row.get("name"), str) else None
    stored = "" if bits is None or not 0 < bits <= 8 else f"int{bits}" if bits <= 4 else "int8"
    return QuantizedLayer(
        index=index,
        name=text_of(row.get("name")) or text_of(row.get("node")) or f"layer {index}",
        node=text_of(row.get("node")),
        op=text_of(row.get("op")) or text_of(row.get("operator")),
        state=text_of(row.get("state")) or stored,
        reason=text_of(row.get("reason")),
        weights=whole_of(row.get("weights")),
        bits=bits,
        input=_range(row.get("input")),
        output=_range(row.get("output") or made),
        weight_db=number_of(next((row[key] for key in ("weight_sqnr_db", "sqnr_db") if key in row), None)),
        rounding_before=number_of(row.get("rounding_before_db")),
        rounding_after=number_of(row.get("rounding_after_db")),
        bias_before=finite_of(row.get("bias_before")),
        bias_after=finite_of(row.get("bias_after")),
        activation_db=number_of(row.get("activation_db")),
        sensitivity_db=number_of(row.get("sensitivity_db")),
        others={text_of(key): value for key, value in row.items() if key not in _KNOWN},
    )


def _range(value: Any) -> Range | None:
    if not isinstance(value, Mapping):
        return None
    ends = {key: finite_of(value.get(key)) for key in ("low", "high", "seen_low", "seen_high", "clipped")}
    return Range(**ends, sqnr_db=number_of(value.get("sqnr_db")), method=text_of(value.get("method")))


# --- values that may be anything ----------------------------------------------------------------------------------------


def text_of(item: Any) -> str:
    """Text that UTF-8 can hold; "" for what is none."""
    return item.encode("utf-8", "replace").decode("utf-8") if isinstance(item, str) else ""


def list_of(item: Any) -> Sequence[Any]:
    """A list; empty for what is none."""
    return item if isinstance(item, list | tuple) else ()


def number_of(item: Any) -> float | None:
    """A number, maybe infinite; None for what is none, NaN included."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    try:
        number = float(item)
    except OverflowError:
        return None
    return None if math.isnan(number) else number


def finite_of(item: Any) -> float | None:
    """A finite number; None for what is none."""
    number = number_of(item)
    return number if number is not None and math.isfinite(number) else None


def whole_of(item: Any) -> int | None:
    """A whole number of at most 64 bits; None for what is none."""
    return item if type(item) is int and abs(item) < 2**63 else None
