"""The table of a quantized network's layers: only the columns that the pass fills."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgewright.report.quantization import Part, QuantizedLayer, Range, text_of
from edgewright.report.quantization.words import change, decibel, ends, part_of, shift, shorten, value

_DASH = "–"
_MOST_OTHERS = 6  # columns of what this page does not know


@dataclass(frozen=True)
class Cell:
    """One cell: a value, and smaller lines below it."""

    text: str
    sub: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its title, whether its values are numbers, and its cells from top to bottom."""

    title: str
    numeric: bool
    cells: tuple[Cell, ...]


def columns(part: Part) -> tuple[Column, ...]:
    """Columns beyond place, name and state, for the layers that are shown; those without any value are left out."""
    known: list[tuple[str, Callable[[QuantizedLayer], Cell]]] = [
        ("alone, dB", lambda layer: Cell(decibel(layer.sensitivity_db))),
        ("input range", lambda layer: _range(layer.input)),
        ("output range", lambda layer: _range(layer.output)),
        ("clipped", _clipped),
        ("activations, dB", _activations),
        ("rounding, dB", _rounding),
        ("mean shift", lambda layer: Cell(change(layer.bias_before, layer.bias_after, shift))),
    ]
    made = [Column(title, True, tuple(cell(layer) for layer in part.shown)) for title, cell in known]
    return tuple(column for column in (*made, *_others(part)) if any(c.text != _DASH or c.sub for c in column.cells))


def _range(span: Range | None) -> Cell:
    if span is None:
        return Cell(_DASH)
    used, seen = ends(span.low, span.high), ends(span.seen_low, span.seen_high)
    words = [f"seen {seen}" if seen not in (used, _DASH) else "", shorten(span.method, 16)]
    return Cell(used, ", ".join(word for word in words if word))


def _clipped(layer: QuantizedLayer) -> Cell:
    first, second = (part_of(span.clipped) if span else _DASH for span in (layer.input, layer.output))
    return Cell(first, f"output {second}" if second != _DASH else "")


def _activations(layer: QuantizedLayer) -> Cell:
    own = [(name, decibel(span.sqnr_db)) for name, span in (("input", layer.input), ("output", layer.output)) if span]
    return Cell(decibel(layer.activation_db), "\n".join(f"{name} {level}" for name, level in own if level != _DASH))


def _rounding(layer: QuantizedLayer) -> Cell:
    own = decibel(layer.weight_db)
    return Cell(change(layer.rounding_before, layer.rounding_after, decibel), f"weights {own}" if own != _DASH else "")


def _others(part: Part) -> list[Column]:
    """Columns of scalars that another pass tells, titled by their keys."""
    keys: dict[str, None] = {}
    for layer in part.shown:
        keys.update(dict.fromkeys(key for key, item in layer.others.items() if _is_scalar(item)))
    found = []
    for key in list(keys)[:_MOST_OTHERS]:
        items = [layer.others.get(key) for layer in part.shown]
        numeric = not any(isinstance(item, str) for item in items)
        found.append(Column(shorten(key, 24).replace("_", " "), numeric, tuple(Cell(_scalar(item)) for item in items)))
    return found


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str | bool | int | float)


def _scalar(item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int) and abs(item) < 2**63:
        return f"{item:,}"
    if isinstance(item, float):
        return value(item) if math.isfinite(item) else _DASH
    return (shorten(text_of(item), 80)) or _DASH
