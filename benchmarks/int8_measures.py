"""What int8_classification.py measures: agreement and top-1 over folds, speed over process restarts, SQNR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from int8_bundles import FLOAT, Made

import edgewright as ew
from edgewright.metrics import bootstrap

#: Restarts and rounds are drawn again so often.
_RESAMPLES = 4000


@dataclass
class Tally:
    """What one candidate at one thread count said about photos, fold by fold.

    Attributes:
        agrees: Photo -> whether it said what fp32 says, one value for each fold that judged it.
        lost: Photo -> 1 where fp32 was right and it was not, -1 the other way round, else 0.
        folds: Agreement of each fold.
        signal: Sum of squares of fp32's outputs.
        noise: Sum of squares of the differences.
    """

    agrees: dict[int, list[float]] = field(default_factory=dict)
    lost: dict[int, list[float]] = field(default_factory=dict)
    folds: list[float] = field(default_factory=list)
    right: int = 0
    total: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def add(self, judges: Sequence[int], reference: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
        """Count one fold: scores f32[n, classes] of the photos `judges`."""
        said, wanted = scores.argmax(1), reference.argmax(1)
        for photo, same, loss in zip(
            judges, said == wanted, 1.0 * (wanted == labels) - 1.0 * (said == labels), strict=True
        ):
            self.agrees.setdefault(photo, []).append(float(same))
            self.lost.setdefault(photo, []).append(float(loss))
        self.folds.append(float((said == wanted).mean()))
        self.right += int((said == labels).sum())
        self.total += len(judges)
        self.signal += float((reference.astype(np.float64) ** 2).sum())
        self.noise += float(((reference - scores).astype(np.float64) ** 2).sum())

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals; photos are drawn again, each with all the folds that judged it."""
        agrees = np.array([np.mean(values) for values in self.agrees.values()])
        lost = np.array([np.mean(values) for values in self.lost.values()])
        return {
            "agreement": float(agrees.mean()),
            "agreement_interval": bootstrap(agrees),
            "agreement_folds": self.folds,
            "top1": self.right / self.total,
            "top1_loss_points": 100 * float(lost.mean()),
            "top1_loss_interval_points": tuple(100 * value for value in bootstrap(lost)),
            "sqnr_db": 10 * float(np.log10(self.signal / self.noise)) if self.noise else float("inf"),
            "photos": len(agrees),
            "judgements": self.total,
        }


def outputs(bundle: Any, inputs: Sequence[Mapping[str, np.ndarray]], threads: int) -> np.ndarray:
    """The first output for every input, one row each."""
    with ew.open(bundle, threads=threads) as session:
        return np.concatenate([next(iter(session.run(item).values())).reshape(1, -1) for item in inputs])


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to noise over all rows, dB."""
    noise = float(((reference - other).astype(np.float64) ** 2).sum())
    return 10 * float(np.log10(float((reference.astype(np.float64) ** 2).sum()) / noise)) if noise else float("inf")


# --- speed ------------------------------------------------------------------------------------------------------------

#: (bundle name, threads) -> restart -> median ms of each round; rounds of one restart are common to all bundles.
Rounds = dict[tuple[str, int], list[list[float]]]


def time_all(
    made: Sequence[Made], samples: Any, *, threads: Sequence[int], restarts: int, seconds: float
) -> tuple[Rounds, list[Any]]:
    """Rounds of every bundle, all interleaved in random order, in new processes at each restart."""
    rounds: Rounds = {}
    records = []
    for restart in range(restarts):
        order = np.random.default_rng(restart).permutation(len(made))
        plan = ew.BenchPlan(
            threads=tuple(threads),
            seed=restart,
            min_seconds=seconds,
            max_seconds=seconds,
            half_width=1e-6,  # never enough before the seconds are over: all restarts weigh the same
            pre_post=False,
        )
        for result in ew.bench([made[index].bundle for index in order], samples, plan):
            medians = result.telemetry["during"]["round_medians_ms"]
            rounds.setdefault((result.bundle_name, result.threads), []).append(list(medians))
            records.append(result)
    return rounds, records


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Time of ours over theirs with a two-sided 95 % interval and the upper 95 % bound.

    A draw takes restarts again, then rounds within each, and is the median of the rounds' ratios: what slowed a whole
    round slowed both. Source: Davison and Hinkley 1997, section 3.8 (resampling of clusters).
    """
    logs = []
    for own, other in zip(ours, theirs, strict=True):
        common = min(len(own), len(other))
        logs.append(np.log(np.asarray(own[:common]) / np.asarray(other[:common])))
    rng = np.random.default_rng(0)
    drawn = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        restarts = rng.integers(0, len(logs), len(logs))
        drawn[number] = np.median(np.concatenate([rng.choice(logs[index], len(logs[index])) for index in restarts]))
    low, upper, high = np.exp(np.quantile(drawn, [0.025, 0.95, 0.975]))
    return {
        "ratio": float(np.exp(np.median(np.concatenate(logs)))),
        "low": float(low),
        "high": float(high),
        "upper_95": float(upper),
        "restarts": len(logs),
        "rounds": sum(len(item) for item in logs),
    }


def speed_rows(made: Sequence[Made], rounds: Rounds, threads: Sequence[int]) -> list[dict[str, Any]]:
    """Per bundle and thread count: median ms, speed against fp32 on the same runtime, ratio of ours over it."""
    rows = []
    for count in threads:
        for item in made:
            own = rounds[item.bundle.name, count]
            row: dict[str, Any] = {
                "candidate": item.candidate,
                "runtime": item.runtime,
                "threads": count,
                "median_ms": float(np.median(np.concatenate(own))),
                "size_bytes": item.bundle.size_bytes,
            }
            row["fp32_over_it"] = ratio(rounds[f"{FLOAT}-{item.runtime}", count], own)
            ours = rounds.get((f"ours-{item.runtime}", count))
            if ours is not None and item.candidate not in (FLOAT, "ours"):
                row["ours_over_it"] = ratio(ours, own)
            rows.append(row)
    return rows
