"""Results of one call compared by the rounds that both took part in: a bundle may have left the rounds early.

Medians over different rounds are not comparable where the machine was slow for a while; those over common rounds are.

    value, low, high = ratio(result, base)
    base = fastest(results)
"""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.bench import statistics
from edgewright.records import BenchResult

Ratio = tuple[float, float, float]


def ratio(result: BenchResult, base: BenchResult, *, seed: int = 0) -> Ratio:
    """Time of `result` over that of `base` with its 95 % interval; both come from the same call and thread count."""
    if result is base:
        return (1.0, 1.0, 1.0)
    return statistics.paired_ratio(_rounds(result), _rounds(base), seed=seed)


def fastest(results: Sequence[BenchResult]) -> BenchResult:
    """The fastest of one call and thread count; the first of those that are equal."""
    return results[statistics.fastest([_rounds(result) for result in results])]


def _rounds(result: BenchResult) -> statistics.Rounds:
    return [[value] for value in result.telemetry["during"]["round_medians_ms"]]
