"""How networks were trained, read from the history of a run's bundles: the curve of each training, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.model import Step
from edgewright.records import Candidate, DeployOutcome
from edgewright.report.quantization import finite_of, list_of, whole_of
from edgewright.report.steps import steps
from edgewright.report.svg import NARROW, nice, number, scale, svg

if TYPE_CHECKING:
    from markupsafe import Markup

#: Trainings that have a place on the page.
MOST_PARTS = 6
_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 220, 62, 62, 16, 44


@dataclass(frozen=True)
class Point:
    """One evaluation: steps done, agreement with the original on the select samples, loss; None where not known."""

    step: int
    agreement: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One training, for all candidates that hold its result.

    Attributes:
        items: The candidates.
        points: Its evaluations.
        kept: The step whose weights were kept, None where not known.
        sentence: What was done, in words.
    """

    items: tuple[Candidate, ...]
    points: tuple[Point, ...]
    kept: int | None
    sentence: str


def parts(outcome: DeployOutcome, run: Path) -> tuple[Part, ...]:
    """The trainings of the candidates of the run in folder `run`, the chosen one first.

    A bundle that was moved away or altered costs its part only.
    """
    made = [_part(step, items) for step, items in steps(outcome, run, lambda _, step: bool(step.stats.get("curve")))]
    return tuple(part for part in made if len(part.points) > 1)


def _part(step: Step, items: list[Candidate]) -> Part:
    points = []
    for row in list_of(step.stats.get("curve")):
        at = whole_of(row.get("step")) if isinstance(row, Mapping) else None
        if at is not None and at >= 0:
            loss = finite_of(row.get("select_loss"))
            loss = finite_of(row.get("loss")) if loss is None else loss
            points.append(Point(at, _share(row.get("agreement")), loss))
    points = sorted({point.step: point for point in points}.values(), key=lambda point: point.step)
    kept = whole_of(step.stats.get("kept_step"))
    return Part(items=tuple(items), points=tuple(points), kept=kept, sentence=_sentence(step.stats, kept))


def _share(value: Any) -> float | None:
    share = finite_of(value)
    return share if share is not None and 0 <= share <= 1 else None


def _sentence(stats: Mapping[str, Any], kept: int | None) -> str:
    steps, seconds, samples = (
        whole_of(stats.get("steps")),
        finite_of(stats.get("seconds")),
        whole_of(stats.get("samples")),
    )
    text = "Trained to say what the original says"
    text += "" if steps is None else f", {steps} steps"
    text += "" if seconds is None else f" in {seconds / 60:.1f} minutes"
    text += "" if samples is None else f" on {samples} calibrate samples, without labels" * (not _labelled(stats))
    before, after = _share(stats.get("before")), _share(stats.get("after"))
    if before is not None and after is not None:
        text += f"; agreement on the select samples {100 * before:.1f} % before, {100 * after:.1f} % after"
    return text + ("" if kept is None else f"; the weights of step {kept} were kept") + "."


def _labelled(stats: Mapping[str, Any]) -> bool:
    return any(isinstance(row, Mapping) and "right" in row for row in list_of(stats.get("curve")))


def chart(part: Part) -> Markup:
    """Agreement (left axis) and loss (right axis) over steps, the kept step marked."""
    right, bottom = NARROW - _RIGHT, _HEIGHT - _BOTTOM
    first, last = part.points[0].step, part.points[-1].step
    x = scale(first, last, _LEFT, right)
    shares = [(x(point.step), point.agreement) for point in part.points if point.agreement is not None]
    losses = [(x(point.step), point.loss) for point in part.points if point.loss is not None]
    drawn = []
    if losses:
        low, high = min(0.0, *(loss for _, loss in losses)), max(loss for _, loss in losses) or 1.0
        y = scale(low, high, bottom, _TOP)
        for tick in nice(low, high, 4):
            drawn.append(f'<text class="tick" x="{right + 8}" y="{y(tick) + 4:.1f}">{number(tick)}</text>')
        drawn.append(_line([(at, y(loss)) for at, loss in losses], "loss", "var(--soft)"))
    if shares:
        low = max(min(share for _, share in shares) - 0.05, 0.0)
        y = scale(low, 1.0, bottom, _TOP)
        for tick in nice(low, 1.0, 4):
            at = f"{y(tick):.1f}"
            drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
            drawn.append(
                f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
            )
        drawn.append(_line([(at, y(share)) for at, share in shares], "agreement", "var(--accent)"))
    if part.kept is not None and first <= part.kept <= last:
        at = f"{x(part.kept):.1f}"
        drawn.append(f'<line class="limit" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
    for tick in nice(first, last, 5):
        at = f"{x(tick):.1f}"
        drawn.append(f'<text class="tick" x="{at}" y="{bottom + 18}" text-anchor="middle">{number(tick)}</text>')
    middle = (_LEFT + right) / 2
    drawn.append(f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">steps</text>')
    return svg(drawn, _HEIGHT, "Agreement and loss over training")


def _line(points: list[tuple[float, float]], name: str, colour: str) -> str:
    """A curve, with its name for those who point at it."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f"fill:none;stroke:{colour};stroke-width:2"
    return f'<g><title>{name}</title><polyline points="{places}" style="{style}"/></g>'
