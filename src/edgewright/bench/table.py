"""Results as a Markdown table, the shape that llama-bench made usual, or as JSON.

print(markdown(results, baseline="original-onnxruntime"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgewright.bench import pairs
from edgewright.bench.statistics import P99_RUNS_MIN
from edgewright.errors import EdgewrightError
from edgewright.records import BenchResult, Timing

_COLUMNS = ("bundle", "runtime", "precision", "threads", "ms (95 %)", "p90", "p99", "{ratio}", "peak MB", "MB", "trust")
_STAGES = ("pre ms", "post ms")
_LEFT = 3  # columns of text come first


def markdown(results: Sequence[BenchResult], *, baseline: str | None = None) -> str:
    """The results as one Markdown table, with footnotes on what to be careful about.

    Args:
        results: As `bench` returned them.
        baseline: Name of the bundle whose time is 1 at each thread count; the fastest of each thread count by default.

    Raises:
        EdgewrightError: E101 when no result is called `baseline`.
    """
    names = {result.bundle_name for result in results}
    if baseline is not None and baseline not in names:
        raise EdgewrightError(
            "E101", f"bundle `{baseline}` is not among the results: {', '.join(sorted(names)) or 'none'}"
        )
    stages = any(result.pre or result.post for result in results)
    titles = [title.format(ratio=f"x {_cell(baseline or 'fastest')}") for title in _COLUMNS]
    titles += list(_STAGES) if stages else []
    lines = [_line(titles), _line(["---" if index < _LEFT else "---:" for index in range(len(titles))])]
    lines += [_line(_cells(result, _ratio(result, results, baseline), stages)) for result in results]
    return "\n".join([*lines, *_footnotes(results)])


def to_json(results: Sequence[BenchResult]) -> str:
    """The results as a JSON document, every record with its surroundings."""
    return json.dumps({"results": [result.to_json() for result in results]}, indent=1)


def _cells(result: BenchResult, ratio: str, stages: bool) -> list[str]:
    few = "*" if result.infer.runs < P99_RUNS_MIN else ""
    cells = [
        _cell(result.bundle_name),
        _cell(result.runtime),
        result.precision,
        str(result.threads),
        f"{_ms(result.infer.median_ms)} [{_ms(result.infer.low_ms)}-{_ms(result.infer.high_ms)}]",
        _ms(result.infer.p90_ms),
        _ms(result.infer.p99_ms) + few,
        ratio,
        f"{result.peak_memory_bytes / 1e6:.0f}",
        f"{result.size_bytes / 1e6:.1f}",
        result.trust,
    ]
    return [*cells, _stage(result.pre), _stage(result.post)] if stages else cells


def _ratio(result: BenchResult, results: Sequence[BenchResult], baseline: str | None) -> str:
    """`1.53 [1.50-1.57]`, from rounds that both took part in."""
    base = [item for item in results if item.bundle_name == baseline and item.threads == result.threads]
    if baseline is not None and not base:
        return "-"
    found = pairs.ratio(result, base[0]) if base else result.relative
    return "1.00" if found == (1.0, 1.0, 1.0) else "{:.2f} [{:.2f}-{:.2f}]".format(*found)


def _footnotes(results: Sequence[BenchResult]) -> list[str]:
    notes = []
    if any(result.infer.runs < P99_RUNS_MIN for result in results):
        notes.append(f"\\* p99 of fewer than {P99_RUNS_MIN} runs: close to the maximum.")
    for result in results:
        notes += [
            f"{result.trust}: {_cell(result.bundle_name)}, {result.threads} thread(s): {why}" for why in result.reasons
        ]
    notes += sorted({f"Inputs: {result.telemetry['inputs']}." for result in results if "inputs" in result.telemetry})
    return ["", *[f"- {note}" for note in notes]] if notes else []


def _stage(timing: Timing | None) -> str:
    return "-" if timing is None else _ms(timing.median_ms)


def _ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 1
        else f"{value:.3g}"
    )


def _cell(text: str) -> str:
    """Text that cannot break the table."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
