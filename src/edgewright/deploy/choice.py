"""Which candidate is handed back, and how the others rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgewright.bench.statistics import paired_ratio
from edgewright.records import BenchResult, Candidate

#: The recipe that changes nothing; its candidates are what the user came with.
ORIGINAL = "original"
#: Candidates that no measurement told apart from the fastest, and that are at most this much slower, are as fast.
TIE = 1.02

Ratio = tuple[float, float, float]


def ratio(result: BenchResult, base: BenchResult, *, seed: int = 0) -> Ratio:
    """Time of `result` over that of `base` with its 95 % interval, from rounds that both took part in."""
    if result is base:
        return (1.0, 1.0, 1.0)
    ours, theirs = ([[value] for value in item.telemetry["during"]["round_medians_ms"]] for item in (result, base))
    return paired_ratio(ours, theirs, seed=seed)


def pick(judged: Sequence[Candidate], measured: Mapping[str, BenchResult]) -> str | None:
    """Name of the candidate to hand back: the fastest verified one; among equally fast ones the exact, then the smaller.

    Equally fast: the interval of the time ratio to the fastest includes 1 and the ratio is at most `TIE`.
    """
    verified = {item.name: item for item in judged if item.state == "verified" and item.name in measured}
    if not verified:
        return None
    fastest = measured[min(verified, key=lambda name: measured[name].infer.median_ms)]
    tied = []
    for name in verified:
        value, low, _ = ratio(measured[name], fastest)
        if value <= TIE and low <= 1.0:
            tied.append(name)
    return min(
        tied,
        key=lambda name: (
            verified[name].precision != "fp32",
            measured[name].size_bytes // 100_000,  # a few bytes of metadata do not make a file smaller
            measured[name].infer.median_ms,
        ),
    )


def rank(judged: Sequence[Candidate], measured: Mapping[str, BenchResult], chosen: str | None) -> tuple[Candidate, ...]:
    """All candidates with their measurements and final reasons: the chosen one, the verified by speed, the rest."""
    ranked = []
    for item in judged:
        result = measured.get(item.name)
        if result is None:
            ranked.append(item)
        elif item.name == chosen:
            ranked.append(replace(item, state="chosen", bench=(result,), reason="fastest within the budget"))
        elif item.state == "verified" and chosen is not None:
            ranked.append(replace(item, bench=(result,), reason=_slower(result, measured[chosen], chosen)))
        else:
            ranked.append(replace(item, bench=(result,)))
    order = {"chosen": 0, "verified": 1, "rejected": 2, "failed": 3}
    return tuple(sorted(ranked, key=lambda c: (order[c.state], c.bench[0].infer.median_ms if c.bench else 0.0)))


def speedup(chosen: str | None, judged: Sequence[Candidate], measured: Mapping[str, BenchResult]) -> Ratio | None:
    """Time of the fastest unmodified candidate over the chosen one's, with its interval; None without both."""
    originals = [measured[item.name] for item in judged if item.recipe == ORIGINAL and item.name in measured]
    if chosen is None or not originals:
        return None
    return ratio(min(originals, key=lambda result: result.infer.median_ms), measured[chosen])


def _slower(result: BenchResult, best: BenchResult, chosen: str) -> str:
    value, low, high = ratio(result, best)
    text = f"verified; takes {value:.2f} x the time of {chosen} ({low:.2f}-{high:.2f})"
    return text + ("; as fast within noise, but larger or less exact" if low <= 1.0 else "")
