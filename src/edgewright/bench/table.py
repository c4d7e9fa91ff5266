"""Results as a Markdown table, the shape that llama-bench made usual, or as JSON; both name the fastest of each model.

print(markdown(results, baseline="original-onnxruntime"))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.bench import pairs
from edgewright.bench.statistics import P99_RUNS_MIN
from edgewright.errors import EdgewrightError
from edgewright.records import BenchResult, Fastest, Timing


@dataclass(frozen=True)
class _Column:
    """A column of the table; `shown` says whether it tells anything about these results."""

    title: str
    cell: Callable[[BenchResult], str]
    right: bool = True
    shown: bool = True


def markdown(results: Sequence[BenchResult], *, baseline: str | None = None) -> str:
    """The results as one Markdown table by model and thread count, the fastest of each, and what to be careful about.

    Args:
        results: As `bench` returned them.
        baseline: Name of the bundle whose time is 1 at each thread count; the fastest of each model and thread count by
            default.

    Raises:
        EdgewrightError: E101 when no result is called `baseline`.
    """
    names = {result.bundle_name for result in results}
    if baseline is not None and baseline not in names:
        raise EdgewrightError(
            "E101", f"bundle `{baseline}` is not among the results: {', '.join(sorted(names)) or 'none'}"
        )
    columns = _columns(results, baseline)
    lines = [_line([column.title for column in columns]), _line(["---:" if c.right else "---" for c in columns])]
    lines += [_line([column.cell(result) for column in columns]) for result in by_model(results)]
    notes = [*map(verdict, pairs.winners(results)), *_footnotes(results)]
    return "\n".join([*lines, *(["", *[f"- {note}" for note in notes]] if notes else [])])


def to_json(results: Sequence[BenchResult]) -> str:
    """The results as a JSON document, every record with its surroundings."""
    return json.dumps(document(results), indent=1)


def document(results: Sequence[BenchResult]) -> dict[str, Any]:
    """The results, and the fastest of each model and thread count, as JSON-ready values."""
    fastest = [found.to_json() for found in pairs.winners(results)]
    return {"results": [result.to_json() for result in results], "fastest": fastest}


def by_model(results: Sequence[BenchResult]) -> list[BenchResult]:
    """The results with those of one model together, models as they come and thread counts as given."""
    origins = list(dict.fromkeys(result.origin for result in results))
    return sorted(results, key=lambda result: origins.index(result.origin))


def verdict(found: Fastest) -> str:
    """One sentence on which is the fastest, with its 95 % interval, or that no difference is proven."""
    where = f"{_cell(found.model or found.origin[:12])}, {_threads(found.threads)}"
    best = f"{_cell(found.bundle_name)} ({_cell(found.runtime)}, {found.precision})"
    if found.ratio is None or found.next is None:
        return f"{where}: {best} alone was measured"
    ratio = "{:.2f} [{:.2f}-{:.2f}]".format(*found.ratio)
    if found.equal:
        others = ", ".join(map(_cell, found.equal))
        return f"{where}: no difference proven between {best} and {others}; {_cell(found.next)} took {ratio} x the time"
    return f"{where}: fastest is {best}; the next, {_cell(found.next)}, took {ratio} x the time"


def _columns(results: Sequence[BenchResult], baseline: str | None) -> list[_Column]:
    models = len({result.origin for result in results}) > 1
    stages = any(result.pre or result.post for result in results)
    columns = [
        _Column("model", lambda r: _cell(r.model or r.origin[:12]), right=False, shown=models),
        _Column("bundle", lambda r: _cell(r.bundle_name), right=False),
        _Column("runtime", lambda r: _cell(r.runtime), right=False),
        _Column("precision", lambda r: r.precision, right=False),
        _Column("threads", lambda r: str(r.threads)),
        _Column("ms (95 %)", lambda r: f"{_ms(r.infer.median_ms)} [{_ms(r.infer.low_ms)}-{_ms(r.infer.high_ms)}]"),
        _Column("p90", lambda r: _ms(r.infer.p90_ms)),
        _Column("p99", lambda r: _ms(r.infer.p99_ms) + ("*" if r.infer.runs < P99_RUNS_MIN else "")),
        _Column(f"x {_cell(baseline or 'fastest')}", lambda r: _ratio(r, results, baseline)),
        _Column("of fp32 roof", _reached, shown=any(result.roofline for result in results)),
        _Column("peak MB", lambda r: f"{r.peak_memory_bytes / 1e6:.0f}"),
        _Column("MB", lambda r: f"{r.size_bytes / 1e6:.1f}"),
        _Column("trust", lambda r: r.trust, right=False),
        _Column("pre ms", lambda r: _stage(r.pre), shown=stages),
        _Column("post ms", lambda r: _stage(r.post), shown=stages),
    ]
    return [column for column in columns if column.shown]


def _ratio(result: BenchResult, results: Sequence[BenchResult], baseline: str | None) -> str:
    """`1.53 [1.50-1.57]`, from rounds that both took part in."""
    base = [item for item in results if item.bundle_name == baseline and item.threads == result.threads]
    if baseline is not None and (not base or base[0].origin != result.origin):
        return "-"
    found = pairs.ratio(result, base[0]) if base else result.relative
    return "1.00" if found == (1.0, 1.0, 1.0) else "{:.2f} [{:.2f}-{:.2f}]".format(*found)


def _reached(result: BenchResult) -> str:
    return "-" if result.roofline is None else f"{100 * result.roofline.reached:.0f} % {result.roofline.bound}"


def _footnotes(results: Sequence[BenchResult]) -> list[str]:
    notes = []
    if any(result.infer.runs < P99_RUNS_MIN for result in results):
        notes.append(f"\\* p99 of fewer than {P99_RUNS_MIN} runs: close to the maximum.")
    for result in results:
        notes += [
            f"{result.trust}: {_cell(result.bundle_name)}, {_threads(result.threads)}: {why}" for why in result.reasons
        ]
    roofs = {result.threads: result.roofline for result in results if result.roofline}
    notes += [
        f"fp32 roof, {_threads(count)}: {roof.peak_gflops:.0f} GFLOP/s and {roof.bandwidth_gbs:.1f} GB/s, measured; "
        "weights, inputs and outputs moved once."
        for count, roof in sorted(roofs.items())
    ]
    notes += sorted({f"Inputs: {result.telemetry['inputs']}." for result in results if "inputs" in result.telemetry})
    notes += sorted({f"Machine: {_cell(r.environment.host)}, {_cell(r.environment.cpu)}." for r in results})
    return notes


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _stage(timing: Timing | None) -> str:
    return "-" if timing is None else _ms(timing.median_ms)


def _ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.3g}"


def _cell(text: str) -> str:
    """Text that cannot break the table."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
