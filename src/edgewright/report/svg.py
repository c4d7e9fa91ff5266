"""What the charts of the report page are drawn with: scales, round ticks, numbers, names, the frame of an SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

#: Widths in user units: a chart in half of the page, and one that takes all of it.
NARROW, WIDE = 560, 1140


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map that takes `low` to `start` and `high` to `end`."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def nice(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    raw = (high - low) / count or 1.0
    unit = 10 ** math.floor(math.log10(raw))
    step = next((m * unit for m in (1, 2, 5, 10) if m * unit >= raw), 10 * unit)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number with about three significant digits."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def elided(name: str, most: int) -> str:
    """`name` in at most `most` characters: the middle of a long one is left out, since both ends tell names apart."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def label(name: str, most: int) -> str:
    """A name that fits its column, escaped."""
    return escape(elided(name, most))


def svg(parts: Sequence[str], height: float, title: str, width: int = NARROW) -> Markup:
    """The picture of `parts`, `title` for those who cannot see it."""
    from markupsafe import Markup

    body = "\n".join(parts)
    wide = ' class="wide"' if width > NARROW else ""
    return Markup(f'<svg{wide} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{body}</svg>')
