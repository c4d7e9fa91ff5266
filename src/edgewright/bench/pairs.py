"""Results of one call compared by the rounds that both took part in: a bundle may have left the rounds early.

Medians over different rounds are not comparable where the machine was slow for a while; those over common rounds are.

    value, low, high = ratio(result, base)
    base = fastest(results)
    for found in winners(results): ...      # one for each model and thread count
"""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.bench import statistics
from edgewright.records import BenchResult, Fastest

Ratio = tuple[float, float, float]


def ratio(result: BenchResult, base: BenchResult, *, seed: int = 0) -> Ratio:
    """Time of `result` over that of `base` with its 95 % interval; both come from the same call and thread count."""
    if result is base:
        return (1.0, 1.0, 1.0)
    return statistics.paired_ratio(_rounds(result), _rounds(base), seed=seed)


def fastest(results: Sequence[BenchResult]) -> BenchResult:
    """The fastest of one call and thread count; the first of those that are equal."""
    return results[statistics.fastest([_rounds(result) for result in results])]


def winners(results: Sequence[BenchResult]) -> tuple[Fastest, ...]:
    """The fastest of each model at each thread count of one call, by model as they come and then by threads."""
    origins = dict.fromkeys(result.origin for result in results)
    counts = sorted({result.threads for result in results})
    groups = [[r for r in results if (r.origin, r.threads) == (origin, n)] for origin in origins for n in counts]
    return tuple(_winner(group) for group in groups if group)


def _winner(group: Sequence[BenchResult]) -> Fastest:
    best = min(group, key=lambda result: result.relative[0])
    rivals = {result.bundle_name: result.relative for result in group if result is not best}
    nearest = min(rivals, key=lambda name: rivals[name], default=None)
    return Fastest(
        model=best.model,
        origin=best.origin,
        threads=best.threads,
        bundle_name=best.bundle_name,
        runtime=best.runtime,
        precision=best.precision,
        next=nearest,
        ratio=None if nearest is None else rivals[nearest],
        equal=tuple(name for name, (_, low, _high) in rivals.items() if low <= 1),
    )


def _rounds(result: BenchResult) -> statistics.Rounds:
    return [[value] for value in result.telemetry["during"]["round_medians_ms"]]
