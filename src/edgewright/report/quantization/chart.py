"""The chart of a quantized network: what each layer costs alone, its own error before and after, the range it holds.

Three panels over one axis, the layers in graph order; a panel for which nothing is known is left out. Pointing at a
layer shows its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from edgewright.report.quantization import Part, QuantizedLayer, Range
from edgewright.report.quantization.words import change, decibel, ends, part_of, shift, shorten
from edgewright.report.svg import WIDE, nice, number, scale, svg

if TYPE_CHECKING:
    from markupsafe import Markup

_LEFT, _RIGHT, _TOP, _GAP, _FOOT = 62, 16, 46, 44, 22
_WIDEST, _WIDEST_BAND = 34.0, 60.0  # a column's bar and its background: a few layers are no walls
_ALONE, _ERROR, _RANGE = 120, 170, 120  # heights of the panels
_FLOOR, _CEILING = -20.0, 120.0  # dB: beyond them a mark lies at the edge


@dataclass(frozen=True)
class _Panel:
    """A band of the chart: where it lies, its scale, and what it draws of one layer at `x` with room for `width`."""

    top: float
    height: float
    title: str
    ticks: Sequence[float]
    y: Callable[[float], float]
    draw: Callable[[QuantizedLayer, float, float], list[str]]


def chart(part: Part) -> Markup | None:
    """The picture for the layers that are shown; None where there is nothing to draw, or one layer only."""
    if len(part.shown) < 2:
        return None
    top, panels = float(_TOP), []
    for make in (_alone, _errors, _ranges):
        panel = make(part, top)
        if panel is not None:
            panels.append(panel)
            top += panel.height + _GAP
    if not panels:
        return None
    height = top - _GAP + _FOOT
    parts = [line for panel in panels for line in _axis(panel)]
    step = (WIDE - _LEFT - _RIGHT) / len(part.shown)
    band = min(step, _WIDEST_BAND)
    ranks = {layer.index: rank for rank, layer in enumerate(part.worst, 1)}
    for place, layer in enumerate(part.shown):
        x = _LEFT + (place + 0.5) * step
        kind = "float" if layer.state == "float" else "worst" if layer.index in ranks else "int8"
        parts.append(f'<g class="q {kind}"><title>{escape(_tip(layer))}</title>')
        parts.append(
            f'<rect class="hit" x="{x - band / 2:.1f}" y="{_TOP - 4}" width="{band:.1f}" height="{height - _TOP - 14:.0f}"/>'
        )
        for panel in panels:
            parts += panel.draw(layer, x, min(step, _WIDEST))
        if layer.index in ranks:
            parts.append(
                f'<text class="rank" x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle">{ranks[layer.index]}</text>'
            )
        parts.append("</g>")
    parts.append(f'<text class="tick" x="{_LEFT}" y="{height - 4:.0f}">first layer</text>')
    parts.append(f'<text class="tick" x="{WIDE - _RIGHT}" y="{height - 4:.0f}" text-anchor="end">last layer</text>')
    return svg(parts, height, "Sensitivity, error and range by layer", WIDE)


def _axis(panel: _Panel) -> list[str]:
    parts = []
    for tick in panel.ticks:
        y = panel.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = number(abs(tick))
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{"−" if tick < 0 else ""}{text}</text>'
        )
    parts.append(
        f'<text class="axis" x="{_LEFT}" y="{panel.top - (28 if panel.top == _TOP else 12):.0f}">{panel.title}</text>'
    )
    return parts


def _alone(part: Part, top: float) -> _Panel | None:
    """Bars that hang from the best level: the longer, the more the layer alone costs."""
    y = _levels([layer.sensitivity_db for layer in part.shown], top, _ALONE)
    if y is None:
        return None

    def draw(layer: QuantizedLayer, x: float, width: float) -> list[str]:
        if layer.sensitivity_db is None:
            return []
        bar, end = max(width - 2, 1.5), y[1](_held(layer.sensitivity_db))
        return [
            f'<rect class="alone" x="{x - bar / 2:.1f}" y="{top:.0f}" width="{bar:.1f}" height="{max(end - top, 1.5):.1f}"/>'
        ]

    return _Panel(
        top,
        _ALONE,
        "this layer alone quantized: SQNR of the network's worst output, dB (the longer a bar, the more the layer costs)",
        y[0],
        y[1],
        draw,
    )


def _errors(part: Part, top: float) -> _Panel | None:
    """Error at the layer's own output: weights before (ring) and after (dot), activations (diamond)."""
    y = _levels(
        [db for layer in part.shown for db in (*_weights(layer), layer.activation_db)],
        top,
        _ERROR,
    )
    if y is None:
        return None

    def draw(layer: QuantizedLayer, x: float, width: float) -> list[str]:
        r = min(max(width * 0.3, 1.2), 4.5)
        before, after = (None if db is None else y[1](_held(db)) for db in _weights(layer))
        parts = []
        if before is not None and after is not None:
            parts.append(f'<line class="gain" x1="{x:.1f}" x2="{x:.1f}" y1="{before:.1f}" y2="{after:.1f}"/>')
        if before is not None:
            parts.append(f'<circle class="before" cx="{x:.1f}" cy="{before:.1f}" r="{r * 0.85:.1f}"/>')
        if after is not None:
            parts.append(f'<circle class="after" cx="{x:.1f}" cy="{after:.1f}" r="{r:.1f}"/>')
        if layer.activation_db is not None:
            parts.append(_diamond(x, y[1](_held(layer.activation_db)), r * 1.15))
        return parts

    own = any(layer.rounding_before is not None or layer.rounding_after is not None for layer in part.shown)
    what = "own output" if own or part.shown[0].activation_db is not None else "weights"
    return _Panel(top, _ERROR, f"SQNR of the layer's {what}, dB (higher is closer)", y[0], y[1], draw)


def _diamond(x: float, y: float, r: float) -> str:
    corners = f"{x:.1f},{y - r:.1f} {x + r:.1f},{y:.1f} {x:.1f},{y + r:.1f} {x - r:.1f},{y:.1f}"
    return f'<polygon class="act" points="{corners}"/>'


def _ranges(part: Part, top: float) -> _Panel | None:
    """Range of each layer's input over its own largest value: used, and what is clipped of the range that was seen."""
    drawn = {layer.index: bounds for layer in part.shown if (bounds := _bounds(layer.input)) is not None}
    if not drawn:
        return None
    low = -1.0 if any(min(bounds) < 0 for bounds in drawn.values()) else 0.0
    y = scale(low, 1.0, top + _RANGE, top)

    def draw(layer: QuantizedLayer, x: float, width: float) -> list[str]:
        if layer.index not in drawn:
            return []
        used_low, used_high, seen_low, seen_high = drawn[layer.index]
        wide = max(width * 0.55, 1.2)
        spans = [("unused", used_low, used_high), ("used", max(used_low, seen_low), min(used_high, seen_high))]
        spans += [("cut", used_high, seen_high), ("cut", seen_low, used_low)]
        return [
            f'<rect class="{kind}" x="{x - wide / 2:.1f}" y="{y(end):.1f}" width="{wide:.1f}" height="{y(start) - y(end):.1f}"/>'
            for kind, start, end in spans
            if end - start > 1e-3
        ]

    return _Panel(
        top,
        _RANGE,
        "range of the layer's input, over its largest value",
        (low, 0.0, 1.0) if low else (0.0, 0.5, 1.0),
        y,
        draw,
    )


def _bounds(span: Range | None) -> tuple[float, float, float, float] | None:
    """(low, high, seen low, seen high) over the largest of their magnitudes; None where the range is not known."""
    if span is None or span.low is None or span.high is None:
        return None
    seen_low = span.low if span.seen_low is None else span.seen_low
    seen_high = span.high if span.seen_high is None else span.seen_high
    largest = max(map(abs, (span.low, span.high, seen_low, seen_high)))
    if not largest:
        return None
    return span.low / largest, span.high / largest, seen_low / largest, seen_high / largest


def _weights(layer: QuantizedLayer) -> tuple[float | None, float | None]:
    """Levels of the weights' rounding before and after; one that is not known is not drawn."""
    before = layer.rounding_before
    return (layer.weight_db if before is None and layer.rounding_after is None else before), layer.rounding_after


def _levels(
    values: Sequence[float | None], top: float, height: float
) -> tuple[list[float], Callable[[float], float]] | None:
    """(Ticks, scale) that hold the levels `values`, dB; None where none of them is known."""
    finite = [_held(level) for level in values if level is not None and math.isfinite(level)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    pad = max((high - low) * 0.08, 1.0)
    low, high = low - pad, high + pad
    inner = scale(low, high, top + height, top)
    return nice(low, high, 4), lambda level: min(max(inner(level), top), top + height)


def _held(level: float) -> float:
    return min(max(level, _FLOOR), _CEILING)


def _tip(layer: QuantizedLayer) -> str:
    lines = [
        f"{layer.index}. {shorten(layer.name, 100)} ({' '.join(filter(None, (shorten(layer.op, 30), layer.state)))})"
    ]
    if layer.reason:
        lines.append(
            f"in float: {shorten(layer.reason, 160)}" if layer.state == "float" else shorten(layer.reason, 160)
        )
    span = layer.input
    if span is not None:
        lines.append(f"input {ends(span.low, span.high)}, seen {ends(span.seen_low, span.seen_high)}")
        lines.append(f"clipped {part_of(span.clipped)}")
    told = [
        ("weights", change(layer.rounding_before, layer.rounding_after, decibel), " dB"),
        ("activations", decibel(layer.activation_db), " dB"),
        ("mean shift", change(layer.bias_before, layer.bias_after, shift), ""),
        ("alone", decibel(layer.sensitivity_db), " dB"),
    ]
    return "\n".join([*lines, *(f"{name} {text}{unit}" for name, text, unit in told if text != "–")])
