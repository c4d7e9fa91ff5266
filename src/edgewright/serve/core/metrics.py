"""Figures for Prometheus, in its text form.

Source: prometheus.io, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from edgewright.serve.core.statistics import BINS_S, Histogram
from edgewright.serve.core.version import Version

_HELP = {
    "requests_total": ("counter", "Requests that got a result."),
    "rows_total": ("counter", "Rows of the batch axis in these."),
    "runs_total": ("counter", "Runs of the network; fewer than requests where they are batched."),
    "refused_total": ("counter", "Requests that got none, by reason."),
    "queue_length": ("gauge", "Requests that wait."),
    "batch_rows": ("counter", "Runs by the number of rows in them."),
    "latency_seconds": ("histogram", "From arrival in the queue to the result."),
    "stage_seconds": ("histogram", "The same by stage."),
}


def exposition(versions: Iterable[Version], server: Mapping[str, float]) -> str:
    """All figures of the versions, and those of the server by name (gauges)."""
    lines: dict[str, list[str]] = {name: [] for name in _HELP}
    for version in versions:
        labels = {"model": version.name, "version": str(version.number)}
        figures = version.statistics
        lines["requests_total"].append(_line("requests_total", labels, figures.requests))
        lines["rows_total"].append(_line("rows_total", labels, figures.rows))
        lines["runs_total"].append(_line("runs_total", labels, figures.runs))
        lines["queue_length"].append(_line("queue_length", labels, version.waiting))
        for reason, count in sorted(figures.refused.items()):
            lines["refused_total"].append(_line("refused_total", {**labels, "reason": reason}, count))
        for rows, (count, _) in sorted(dict(figures.batches).items()):
            lines["batch_rows"].append(_line("batch_rows", {**labels, "rows": str(rows)}, count))
        lines["latency_seconds"] += _histogram("latency_seconds", labels, figures.latency)
        for stage, histogram in figures.stages.items():
            lines["stage_seconds"] += _histogram("stage_seconds", {**labels, "stage": stage}, histogram)
    text = []
    for name, (kind, about) in _HELP.items():
        text += [f"# HELP edgewright_{name} {about}", f"# TYPE edgewright_{name} {kind}", *lines[name]]
    for name, value in server.items():
        text += [f"# TYPE edgewright_{name} gauge", f"edgewright_{name} {value}"]
    return "\n".join(text) + "\n"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> list[str]:
    totals = list(itertools.accumulate(histogram.counts))
    ends = [*(f"{end:g}" for end in BINS_S), "+Inf"]
    lines = [_line(f"{name}_bucket", {**labels, "le": end}, total) for end, total in zip(ends, totals, strict=True)]
    return [*lines, _line(f"{name}_sum", labels, histogram.sum_s), _line(f"{name}_count", labels, totals[-1])]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"edgewright_{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
