"""report: one self-contained HTML page of a deploy run, from outcome.json and the evidence in its bundles.

No script is loaded and no address is contacted: the page can be mailed, archived and opened anywhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole
from edgewright.records import Candidate, DeployOutcome, InspectReport, LocateReport
from edgewright.report import charts, coverage, frontier, quantization, training
from edgewright.report.quantization import words
from edgewright.report.quantization.chart import chart
from edgewright.report.quantization.table import columns

OUTCOME = "outcome.json"
PAGE = "report.html"


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Path of the page made for the deploy run in folder `run`.

    Args:
        run: Folder that holds outcome.json.
        out: Where to write the page; `run`/report.html by default.

    Raises:
        EdgewrightError: E104 when there is no readable outcome, E105 when the page cannot be written.
    """
    run = Path(run)
    outcome = read_outcome(run)
    page = render(outcome, run)
    return write_whole(Path(out) if out else run / PAGE, page)


def read_outcome(run: Path) -> DeployOutcome:
    """The DeployOutcome that a run left behind.

    Raises:
        EdgewrightError: E104 when it is missing or malformed.
    """
    path = run / OUTCOME
    try:
        return DeployOutcome.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise EdgewrightError(
            "E104",
            f"`{path}` cannot be read: {problem.strerror}",
            hint="edgewright deploy MODEL --samples PHOTOS --out runs/x",
        ) from None
    except (ValueError, EdgewrightError) as problem:
        raise EdgewrightError("E104", f"`{path}` is not a deploy outcome: {problem}") from None


def render(outcome: DeployOutcome, run: Path) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(ms=_ms, size=_size, percent=_percent, short=_short, ticks=_ticks)
    chosen = next((item for item in outcome.candidates if item.name == outcome.chosen), None)
    locate, inspection = _layers(chosen, run)
    quantized = quantization.parts(outcome, run)
    return environment.get_template("page.html.j2").render(
        outcome=outcome,
        chosen=chosen,
        baseline=_baseline(outcome),
        trade_off=charts.trade_off(outcome),
        latency=charts.latency(outcome),
        layer_chart=charts.layers(locate, inspection),
        layers=_layer_rows(locate, inspection),
        locate=locate,
        inspection=inspection,
        quantized=quantized[: quantization.MOST_PARTS],
        left_out=len(quantized[quantization.MOST_PARTS :]),
        headlines={item.name: words.headline(part) for part in quantized for item in part.items},
        words=words,
        quantized_chart=chart,
        quantized_columns=columns,
        trained=training.parts(outcome, run)[: training.MOST_PARTS],
        training_chart=training.chart,
        covered=coverage.parts(outcome),
        coverage_chart=coverage.chart,
        frontier=outcome.frontier,
        frontier_chart=frontier.chart(outcome.frontier, outcome.chosen) if outcome.frontier else None,
        frontier_points=frontier.ordered(outcome.frontier) if outcome.frontier else [],
        versions=", ".join(f"{name} {version}" for name, version in outcome.environment.versions.items()),
        agreement=_agreement,
    )


def _layers(chosen: Candidate | None, run: Path) -> tuple[LocateReport | None, InspectReport | None]:
    """The newest layer evidence of the chosen bundle, where there is any."""
    if chosen is None or chosen.bundle is None:
        return None, None
    try:
        bundle = Bundle.open(run / chosen.bundle)
    except EdgewrightError:
        return None, None  # the page is about the outcome; a bundle that was moved away only costs the layer section
    located, inspected = bundle.evidence("locate"), bundle.evidence("inspect")
    return (
        LocateReport.from_json(located[-1]) if located else None,
        InspectReport.from_json(_without(inspected[-1], "bundle_hash")) if inspected else None,
    )


def _layer_rows(locate: LocateReport | None, inspection: InspectReport | None) -> list[dict[str, Any]]:
    times = {layer.name: layer for layer in inspection.layers} if inspection else {}
    if locate is None:
        return [{"layer": None, "cost": cost, "name": cost.name, "op_type": cost.op_type} for cost in times.values()]
    return [
        {"layer": layer, "cost": times.get(layer.name), "name": layer.name, "op_type": layer.op_type}
        for layer in locate.layers
    ]


def _baseline(outcome: DeployOutcome) -> Candidate | None:
    """The fastest unmodified candidate; by ratios, since one that was clearly slower may have left the rounds early."""
    originals = [item for item in outcome.candidates if item.recipe == "original" and item.bench]
    return min(originals, key=lambda item: item.bench[0].relative[0], default=None)


def _agreement(item: Candidate) -> Any:
    if item.verify is None:
        return None
    return next((gate for gate in item.verify.gates if gate.name == "agreement"), None)


def _without(document: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def _ms(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.3f}"
    )


def _size(value: int | None) -> str:
    if value is None:
        return "–"
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def _percent(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.1f} %"


def _ticks(text: str) -> Any:
    """Escaped text in which `names in backticks` are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and not math.isfinite(value):
        return "equal" if value > 0 else "–"
    return "0" if value == 0 else f"{value:.1e}" if abs(value) < 0.01 else f"{value:.1f}"
