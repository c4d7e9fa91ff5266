"""The curve of a training as a picture: loss and, where pictures watched, their top-1, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDE, HIGH, EDGE = 640, 300, 40


def drawn(curve: Sequence[dict[str, Any]]) -> str:
    """SVG of the curve; each line goes from the lowest to the highest of its own values, which are written beside it."""
    lines = [
        _line(curve, name, colour, place)
        for place, (name, colour) in enumerate((("loss", "#c0392b"), ("held_top1", "#2471a3")))
        if all(point[name] is not None for point in curve)
    ]
    frame = (
        f'<rect x="{EDGE}" y="{EDGE}" width="{WIDE - 2 * EDGE}" height="{HIGH - 2 * EDGE}" fill="none" stroke="#999"/>'
    )
    below = f'<text x="{WIDE / 2}" y="{HIGH - 10}" text-anchor="middle">epochs 1 to {curve[-1]["epoch"]}</text>'
    body = "\n".join((frame, *lines, below))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">'
    )
    return f'{head}\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'


def _line(curve: Sequence[dict[str, Any]], name: str, colour: str, place: int) -> str:
    values = [float(point[name]) for point in curve]
    low, high = min(values), max(values)
    points = " ".join(
        f"{EDGE + (WIDE - 2 * EDGE) * number / max(len(values) - 1, 1):.1f},"
        f"{HIGH - EDGE - (HIGH - 2 * EDGE) * (value - low) / (high - low or 1):.1f}"
        for number, value in enumerate(values)
    )
    title = f"{name.replace('_', ' ')} {values[0]:.3f} to {values[-1]:.3f}"
    text = f'<text x="{EDGE + 240 * place}" y="25" fill="{colour}">{title} (axis {low:.3f} to {high:.3f})</text>'
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{text}'
