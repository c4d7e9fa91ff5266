"""Which candidate is handed back, and how the others rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgewright.bench.pairs import Ratio, fastest, ratio
from edgewright.model import EXACT
from edgewright.records import BenchResult, Candidate

#: The recipe that changes nothing; its candidates are what the user came with.
ORIGINAL = "original"
#: Candidates that no measurement told apart from the fastest, and that are at most this much slower, are as fast.
TIE = 1.02


def pick(judged: Sequence[Candidate], measured: Mapping[str, BenchResult]) -> str | None:
    """Name of the candidate to hand back: the fastest verified one; among equally fast ones the exact, then the smaller.

    Equally fast: the interval of the time ratio to the fastest includes 1 and the ratio is at most `TIE`.
    """
    verified = {item.name: item for item in judged if item.state == "verified" and item.name in measured}
    if not verified:
        return None
    first = fastest([measured[name] for name in verified])
    ratios = {name: ratio(measured[name], first) for name in verified}
    tied = [name for name in verified if _as_fast(ratios[name])]
    return min(tied, key=lambda name: (_rough(verified[name]), _tenths(measured[name]), ratios[name][0]))


def rank(judged: Sequence[Candidate], measured: Mapping[str, BenchResult], chosen: str | None) -> tuple[Candidate, ...]:
    """All candidates with their measurements and final reasons: the chosen one, the verified by speed, the rest."""
    named = {item.name: item for item in judged}
    ranked = []
    for item in judged:
        result = measured.get(item.name)
        if result is None:
            ranked.append(item)
        elif item.name == chosen:
            ranked.append(replace(item, state="chosen", bench=(result,), reason=_best(item, judged, measured)))
        elif item.state == "verified" and chosen is not None:
            reason = _slower(item, result, named[chosen], measured[chosen])
            ranked.append(replace(item, bench=(result,), reason=reason))
        else:
            ranked.append(replace(item, bench=(result,)))
    order = {"chosen": 0, "verified": 1, "rejected": 2, "failed": 3}
    return tuple(sorted(ranked, key=lambda c: (order[c.state], c.bench[0].infer.median_ms if c.bench else math.inf)))


def speedup(chosen: str | None, judged: Sequence[Candidate], measured: Mapping[str, BenchResult]) -> Ratio | None:
    """Time of the fastest unmodified candidate over the chosen one's, with its interval; None without both."""
    originals = [measured[item.name] for item in judged if item.recipe == ORIGINAL and item.name in measured]
    if chosen is None or not originals:
        return None
    return ratio(fastest(originals), measured[chosen])


def _best(item: Candidate, judged: Sequence[Candidate], measured: Mapping[str, BenchResult]) -> str:
    """Why the chosen one was: the fastest, or preferred among those that no measurement tells apart."""
    result = measured[item.name]
    others = [other for other in judged if other.state == "verified" and other.name in measured and other is not item]
    tied = [other for other in others if _as_fast(ratio(measured[other.name], result))]
    gains = []
    if not _rough(item) and any(_rough(other) for other in tied):
        gains.append("more exact")
    if any(_tenths(measured[other.name]) > _tenths(result) for other in tied):
        gains.append("smaller")
    return "fastest within the budget" + (f"; {' and '.join(gains)} where speed is the same" if gains else "")


def _slower(item: Candidate, result: BenchResult, best: Candidate, best_result: BenchResult) -> str:
    """Why a verified candidate was not chosen."""
    found = ratio(result, best_result)
    value, low, high = found
    if not _as_fast(found):
        return f"takes {value:.2f} x the time of {best.name} ({low:.2f} to {high:.2f})"
    why = ""
    if _rough(item) and not _rough(best):
        why = ", but less exact"
    elif _tenths(result) > _tenths(best_result):
        why = ", but larger"
    return f"as fast as {best.name} within noise ({low:.2f} to {high:.2f} x its time){why}"


def _as_fast(found: Ratio) -> bool:
    """True where the interval of a time ratio includes 1, and the ratio is small."""
    value, low, _ = found
    return value <= TIE and low <= 1.0


def _rough(item: Candidate) -> bool:
    return item.precision not in EXACT


def _tenths(result: BenchResult) -> int:
    """Size in tenths of a megabyte: a few bytes of metadata do not make a file smaller."""
    return result.size_bytes // 100_000
