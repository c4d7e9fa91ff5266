"""Charts of the report page as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edgewright.records import Candidate, DeployOutcome, InspectReport, LocateReport
from edgewright.report.svg import NARROW, label, nice, number, scale, svg

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDTH, _HEIGHT = NARROW, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 16, 44
_LABELS = 185  # width of the column of names
_STEP = 20.0  # height of a name in that column


def trade_off(outcome: DeployOutcome) -> Markup | None:
    """Agreement with the original (with bounds) against latency: one mark a measured candidate; None for fewer than 2."""
    points = [(item, gate) for item in outcome.candidates if item.bench and (gate := _gate(item))]
    if len(points) < 2:
        return None
    required = float(outcome.budget.get("min_agreement") or 0)
    times = [item.bench[0].infer.median_ms for item, _ in points]
    first, last = min(times) * 0.9, max(times) * 1.1
    right = _WIDTH - _LABELS
    height = max(_HEIGHT, len(points) * _STEP + _TOP + _BOTTOM + 10)
    x = scale(first, last, _LEFT, right)
    lowest = min([gate.low for _, gate in points if not math.isnan(gate.low)] + [required])
    bottom = max(math.floor(lowest * 20 - 0.2) / 20, 0.0)
    y = scale(bottom, 1.0, height - _BOTTOM, _TOP + 10)
    parts = [*_frame("median latency, ms", "agreement", right, height), *_x_ticks(x, first, last, height)]
    for tick in nice(bottom, 1.0, 5):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
        )
    parts.append(f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{y(required):.1f}" y2="{y(required):.1f}"/>')
    parts += _marks(points, times, x, y, right + 26)
    parts.append(
        f'<text class="limit-label" x="{right - 4}" y="{y(required) + 15:.1f}" text-anchor="end">'
        f"required {100 * required:.4g} %</text>"
    )
    return svg(parts, height, "Agreement with the original against latency")


def _marks(points: Sequence[tuple[Candidate, Any]], times: Sequence[float], x: Any, y: Any, column: float) -> list[str]:
    """Marks with whiskers, and their names in a column beside the chart, each joined to its mark by a thin line."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][1].value, -times[i]))
    crowded = ' opacity="0.4"' if len(order) > 8 else ""
    groups = []
    for row, index in enumerate(order):
        (item, gate), cx = points[index], x(times[index])
        cy, ly = y(gate.value), _TOP + 10 + row * _STEP
        lines = f"{cx:.1f},{cy:.1f} {column - 14:.1f},{ly:.1f} {column - 4:.1f},{ly:.1f}"
        group = (
            f'<g class="mark {_state(item)}"><title>{escape(_tip(item))}</title>'
            f'<polyline class="leader" points="{lines}"/>'
            f'<line class="whisker" x1="{cx:.1f}" x2="{cx:.1f}" y1="{y(gate.low):.1f}" y2="{y(gate.high):.1f}"{crowded}/>'
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="6"/>'
            f'<text class="name" x="{column:.1f}" y="{ly + 4:.1f}">{label(item.name, 22)}</text></g>'
        )
        groups.append((item.state == "chosen", group))
    return [group for _, group in sorted(groups, key=lambda pair: pair[0])]  # the chosen one on top of the others


def latency(outcome: DeployOutcome) -> Markup | None:
    """Median latency of each measured candidate as a bar with its 95 % interval; None where nothing was measured."""
    items = sorted((c for c in outcome.candidates if c.bench), key=lambda c: c.bench[0].infer.median_ms)
    if not items:
        return None
    row, left = 30, 190
    height = _TOP + row * len(items) + _BOTTOM
    top = max(item.bench[0].infer.high_ms for item in items) * 1.15
    x = scale(0, top, left, _WIDTH - 60)
    parts = []
    for tick in nice(0, top, 5):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{height - _BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    for index, item in enumerate(items):
        timing = item.bench[0].infer
        y = _TOP + index * row
        parts.append(f'<g class="mark {_state(item)}"><title>{escape(_tip(item))}</title>')
        parts.append(f'<text class="name" x="{left - 10}" y="{y + 19}" text-anchor="end">{label(item.name, 22)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 5}" width="{x(timing.median_ms) - left:.1f}" height="{row - 12}" rx="3"/>'
        )
        middle = y + row / 2 - 1
        parts.append(
            f'<line class="whisker" x1="{x(timing.low_ms):.1f}" x2="{x(timing.high_ms):.1f}" y1="{middle}" y2="{middle}"/>'
        )
        parts.append(
            f'<text class="value" x="{x(timing.high_ms) + 8:.1f}" y="{y + 19}">{number(timing.median_ms)}</text></g>'
        )
    parts.append(
        f'<text class="axis" x="{(left + _WIDTH - 60) / 2}" y="{height - 6}" text-anchor="middle">median latency, ms</text>'
    )
    return svg(parts, height, "Median latency by candidate")


def layers(locate: LocateReport | None, inspection: InspectReport | None) -> Markup | None:
    """Error (dB, isolated and cumulative) and time by layer, in graph order; None where there is neither."""
    if locate is None or not locate.layers:
        return None
    width, height = 1140, 250 if inspection is None else 400
    names = [layer.name for layer in locate.layers]
    step = (width - _LEFT - _RIGHT) / len(names)
    parts = _error_panel(locate, step, width)
    if inspection is not None:
        parts += _time_panel(names, inspection, step, width)
    return svg(parts, height, "Error and time by layer", width)


def _error_panel(locate: LocateReport, step: float, width: int) -> list[str]:
    cumulative = [_decibel(layer.cumulative.sqnr_db) for layer in locate.layers]
    isolated = [_decibel(layer.isolated.sqnr_db) for layer in locate.layers]
    finite = [v for v in (*cumulative, *isolated) if v is not None and v < 160] or [100.0]
    low, high = min(0.0, *finite), max(finite) * 1.08
    y = scale(low, high, 200, _TOP)
    parts = []
    for tick in nice(low, high, 5):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.0f}</text>')
    for index, (layer, value) in enumerate(zip(locate.layers, isolated, strict=True)):
        top = y(high if value is None or value >= 160 else value)
        tip = f"{layer.name} ({layer.op_type}): isolated {_db(value)}, cumulative {_db(cumulative[index])}"
        style = "passed" if layer.passed else "failed"
        parts.append(
            f'<rect class="layer {style}" x="{_LEFT + index * step:.2f}" y="{top:.1f}" width="{max(step - 1, 0.6):.2f}" '
            f'height="{max(200 - top, 0):.1f}"><title>{escape(tip)}</title></rect>'
        )
    line = " ".join(
        f"{_LEFT + (index + 0.5) * step:.1f},{y(high if value is None or value >= 160 else value):.1f}"
        for index, value in enumerate(cumulative)
    )
    parts.append(f'<polyline class="cumulative" points="{line}"/>')
    parts.append('<text class="axis" transform="translate(14 110) rotate(-90)" text-anchor="middle">SQNR, dB</text>')
    parts.append(f'<text class="tick" x="{_LEFT}" y="218">first layer</text>')
    parts.append(f'<text class="tick" x="{width - _RIGHT}" y="218" text-anchor="end">last layer</text>')
    return parts


def _time_panel(names: Sequence[str], inspection: InspectReport, step: float, width: int) -> list[str]:
    costs = {layer.name: layer for layer in inspection.layers}
    times = [costs[name].time_ms or 0.0 if name in costs else 0.0 for name in names]
    top = max(times, default=0.0) * 1.1 or 1.0
    y = scale(0, top, 380, 250)
    parts = []
    for tick in nice(0, top, 4):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    for index, (name, value) in enumerate(zip(names, times, strict=True)):
        cost = costs.get(name)
        bound = (cost.bound or "unknown") if cost else "unknown"
        tip = escape(f"{name}: {number(value)} ms, bound by {bound}")
        parts.append(
            f'<rect class="time {escape(bound)}" x="{_LEFT + index * step:.2f}" y="{y(value):.1f}" '
            f'width="{max(step - 1, 0.6):.2f}" height="{380 - y(value):.1f}"><title>{tip}</title></rect>'
        )
    parts.append('<text class="axis" transform="translate(14 315) rotate(-90)" text-anchor="middle">time, ms</text>')
    return parts


def _state(item: Candidate) -> str:
    return "undecided" if item.verify is not None and item.verify.decision == "undecided" else item.state


def _gate(item: Candidate) -> Any:
    if item.verify is None:
        return None
    return next((gate for gate in item.verify.gates if gate.name == "agreement"), None)


def _tip(item: Candidate) -> str:
    timing = item.bench[0].infer
    return f"{item.name}: {number(timing.median_ms)} ms ({number(timing.low_ms)} to {number(timing.high_ms)}); {item.reason}"


def _x_ticks(x: Any, first: float, last: float, height: float) -> list[str]:
    parts = []
    for tick in nice(first, last, 6):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{height - _BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    return parts


def _frame(x_label: str, y_label: str, right: float, height: float) -> list[str]:
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + height - _BOTTOM) / 2
    return [
        f'<text class="axis" x="{middle_x}" y="{height - 6}" text-anchor="middle">{x_label}</text>',
        f'<text class="axis" transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">{y_label}</text>',
    ]


def _decibel(value: float) -> float | None:
    """A level that can be drawn: None where the layers are equal or could not be compared."""
    if math.isnan(value):
        return 0.0
    return None if value == math.inf else max(value, 0.0)


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
