"""What a search tried: agreement against latency, size and multiply-adds, with the line of those that no other beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from edgewright.records import Frontier, SearchPoint
from edgewright.report.svg import WIDE, nice, number, scale, svg

if TYPE_CHECKING:
    from markupsafe import Markup

_PANEL, _HEIGHT, _LEFT, _TOP, _BOTTOM = 364, 270, 56, 16, 44
_GAP = (WIDE - 3 * _PANEL) / 2

#: What each panel's axis shows, its title, and how a point is counted.
_COSTS: tuple[tuple[str, Callable[[SearchPoint], float | None]], ...] = (
    ("latency, ms", lambda point: point.latency_ms),
    ("size, MB", lambda point: point.size_bytes / 1e6),
    ("multiply-adds, M", lambda point: None if point.macs is None else point.macs / 1e6),
)


def chart(frontier: Frontier, chosen: str | None) -> Markup | None:
    """Three panels, agreement against each cost; None where nothing was tried."""
    if not frontier.points:
        return None
    lowest = min(point.agreement for point in frontier.points)
    bottom = max(min(lowest, frontier.required) - 0.02, 0.0)
    y = scale(bottom, 1.0, _HEIGHT - _BOTTOM, _TOP + 6)
    parts: list[str] = []
    for index, (title, cost) in enumerate(_COSTS):
        parts.append(f'<g transform="translate({index * (_PANEL + _GAP):.0f} 0)">')
        parts += _panel(frontier, chosen, title, cost, y, bottom)
        parts.append("</g>")
    return svg(parts, _HEIGHT, "Agreement with the original against latency, size and multiply-adds", WIDE)


def ordered(frontier: Frontier) -> list[SearchPoint]:
    """The points by rising latency."""
    return sorted(frontier.points, key=lambda point: point.latency_ms)


def pareto(points: Sequence[SearchPoint], cost: Callable[[SearchPoint], float | None]) -> list[SearchPoint]:
    """Points that no other beats in both agreement and cost, by rising cost; those of unknown cost are left out."""
    known = [(value, point) for point in points if (value := cost(point)) is not None]
    found: list[SearchPoint] = []
    for _, point in sorted(known, key=lambda pair: (pair[0], -pair[1].agreement)):
        if not found or point.agreement > found[-1].agreement:
            found.append(point)
    return found


def _panel(
    frontier: Frontier,
    chosen: str | None,
    title: str,
    cost: Callable[[SearchPoint], float | None],
    y: Callable[[float], float],
    bottom: float,
) -> list[str]:
    """One panel, its marks last so that they lie on top."""
    costs = [(value, point) for point in frontier.points if (value := cost(point)) is not None]
    parts = [f'<text class="axis" x="{(_LEFT + _PANEL) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{title}</text>']
    if not costs:
        return [*parts, f'<text class="tick" x="{_LEFT}" y="{_HEIGHT / 2}">not known</text>']
    first, last = min(value for value, _ in costs) * 0.95, max(value for value, _ in costs) * 1.05
    x = scale(first, last, _LEFT, _PANEL - 8)
    for tick in nice(bottom, 1.0, 5):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_PANEL}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.4g} %</text>'
        )
    for tick in nice(first, last, 4):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    at = f"{y(frontier.required):.1f}"
    parts.append(f'<line class="limit" x1="{_LEFT}" x2="{_PANEL}" y1="{at}" y2="{at}"/>')
    line = " ".join(f"{x(cost(point) or 0.0):.1f},{y(point.agreement):.1f}" for point in pareto(frontier.points, cost))
    parts.append(f'<polyline class="pareto" points="{line}"/>')
    parts += [_mark(point, x(value), y(point.agreement), chosen) for value, point in costs]
    return parts


def _mark(point: SearchPoint, x: float, y: float, chosen: str | None) -> str:
    state = "chosen" if point.name == chosen else "verified" if point.within else "rejected"
    tip = (
        f"{point.name}: {number(point.latency_ms)} ms, agreement {100 * point.agreement:.1f} %, "
        f"{point.size_bytes / 1e6:.1f} MB" + ("" if point.macs is None else f", {point.macs / 1e6:.0f} M multiply-adds")
    )
    return f'<g class="mark {state}"><title>{escape(tip)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>'
