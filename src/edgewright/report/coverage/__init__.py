"""Calibration coverage of a run: how far judges lie from what compression learnt from, drawn for each set of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.records import Candidate, Coverage, DeployOutcome
from edgewright.report.svg import NARROW, nice, number, scale, svg

if TYPE_CHECKING:
    from markupsafe import Markup

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 200, 62, 20, 16, 44


@dataclass(frozen=True)
class Part:
    """One comparison, and the candidates that it is about."""

    items: tuple[Candidate, ...]
    coverage: Coverage


def parts(outcome: DeployOutcome) -> tuple[Part, ...]:
    """The comparisons of a run, each once, what is not covered first."""
    found: dict[str, tuple[Coverage, list[Candidate]]] = {}
    for item in outcome.candidates:
        if item.verify is not None and item.verify.coverage is not None:
            found.setdefault(item.verify.coverage.message, (item.verify.coverage, []))[1].append(item)
    order = ("not covered", "covered", "unknown")
    made = [Part(tuple(items), coverage) for coverage, items in found.values()]
    return tuple(sorted(made, key=lambda part: order.index(part.coverage.decision)))


def chart(coverage: Coverage) -> Markup | None:
    """Nearest distances of calibrate samples and of judges as two outlines, the limit marked; None where nothing is known."""
    edges, kinds = coverage.edges, (coverage.calibrate_shares, coverage.judge_shares)
    if len(edges) < 2 or any(len(shares) != len(edges) - 1 for shares in kinds) or not edges[-1] > edges[0]:
        return None
    right, bottom = NARROW - _RIGHT, _HEIGHT - _BOTTOM
    x = scale(edges[0], edges[-1], _LEFT, right)
    most = max(map(max, kinds)) or 1.0
    y = scale(0, most, bottom, _TOP)
    drawn = []
    for tick in nice(0, most, 4):
        at = f"{y(tick):.1f}"
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        drawn.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
        )
    names, colours = ("calibrate samples", "judges"), ("var(--soft)", "var(--accent)")
    for shares, name, colour in zip(kinds, names, colours, strict=True):
        corners = [(x(edge), y(share)) for i, share in enumerate(shares) for edge in edges[i : i + 2]]
        places = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
        style = f"fill:{colour};fill-opacity:.15;stroke:{colour};stroke-width:2"
        outline = f"{x(edges[0]):.1f},{bottom} {places} {x(edges[-1]):.1f},{bottom}"
        drawn.append(f'<g><title>{name}</title><polyline points="{outline}" style="{style}"/></g>')
    if math.isfinite(coverage.limit):
        at = f"{x(coverage.limit):.1f}"
        drawn.append(f'<line class="limit" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
    for tick in nice(edges[0], edges[-1], 6):
        at = f"{x(tick):.1f}"
        drawn.append(f'<text class="tick" x="{at}" y="{bottom + 18}" text-anchor="middle">{number(tick)}</text>')
    middle = (_LEFT + right) / 2
    drawn.append(
        f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">distance to the nearest calibrate '
        "sample, as the original sees it</text>"
    )
    return svg(drawn, _HEIGHT, "Nearest distances of calibrate samples and judges")
