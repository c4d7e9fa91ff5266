"""Statistics of run times, against distributions whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgewright.bench import statistics


def in_rounds(values: np.ndarray, length: int = 10) -> list[list[float]]:
    return [list(part) for part in values.reshape(-1, length)]


def test_summary_of_known_values() -> None:
    timing = statistics.summarize([[float(value) for value in range(1, 102)]])
    assert (timing.median_ms, timing.p90_ms, timing.p99_ms, timing.mean_ms) == (51, 91, 100, 51)
    assert timing.runs == 101


def test_few_rounds_give_the_whole_range() -> None:
    timing = statistics.summarize([[1.0, 2.0], [3.0, 9.0]])
    assert (timing.low_ms, timing.high_ms) == (1, 9)


def test_one_run() -> None:
    timing = statistics.summarize([[2.0]])
    assert (timing.median_ms, timing.low_ms, timing.high_ms, timing.runs) == (2, 2, 2, 1)
    assert statistics.half_width(timing) == 0


def test_interval_covers_the_true_median() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        timing = statistics.summarize(in_rounds(rng.lognormal(0, 0.1, 200)), seed=seed)
        covered += timing.low_ms <= 1.0 <= timing.high_ms
    assert covered >= 85  # 95 nominal; a percentile bootstrap over 20 rounds is somewhat narrow


def test_interval_knows_that_runs_of_a_round_resemble_each_other(rng: np.random.Generator) -> None:
    slow_or_fast = np.repeat(rng.normal(10, 1, 20), 10) + rng.normal(0, 0.01, 200)
    by_rounds = statistics.summarize(in_rounds(slow_or_fast))
    by_runs = statistics.summarize_runs(list(slow_or_fast))
    assert statistics.half_width(by_rounds) > 1.5 * statistics.half_width(by_runs)


def test_same_seed_same_interval(rng: np.random.Generator) -> None:
    rounds = in_rounds(rng.lognormal(0, 0.1, 200))
    assert statistics.summarize(rounds, seed=3) == statistics.summarize(rounds, seed=3)


def test_paired_ratio_cancels_what_slows_a_whole_round(rng: np.random.Generator) -> None:
    busy = np.repeat(rng.choice([1.0, 1.6], 40), 10)
    base = 10 * busy * rng.normal(1, 0.01, 400)
    other = 12 * busy * rng.normal(1, 0.01, 400)
    ratio, low, high = statistics.paired_ratio(in_rounds(other), in_rounds(base))
    assert low <= 1.2 <= high
    assert high - low < 0.05 < statistics.half_width(statistics.summarize(in_rounds(other)))
    assert low <= ratio <= high


def test_paired_ratio_uses_common_rounds_only() -> None:
    base = [[1.0, 1.0]] * 6
    other = [[2.0, 2.0]] * 6 + [[50.0, 50.0]] * 20
    assert statistics.paired_ratio(other, base) == (2, 2, 2)


@pytest.mark.parametrize("rounds", [1, 4])
def test_paired_ratio_of_few_rounds_is_their_range(rounds: int) -> None:
    base = [[1.0]] * rounds
    other = [[float(2 + index)] for index in range(rounds)]
    _, low, high = statistics.paired_ratio(other, base)
    assert (low, high) == (2, 1 + rounds)


def test_rounds_of_different_length_may_be_paired() -> None:
    ratio, low, high = statistics.paired_ratio([[3.0] * 2] * 9, [[1.0] * 7] * 9)
    assert (ratio, low, high) == (3, 3, 3)


def test_modes_of_a_bimodal_machine(rng: np.random.Generator) -> None:
    times = np.where(rng.random(500) < 0.3, 16.0, 10.0) * rng.normal(1, 0.01, 500)
    assert statistics.modes_ratio(times) == pytest.approx(1.6, rel=0.01)


def test_modes_of_one_group_and_of_rare_outliers(rng: np.random.Generator) -> None:
    times = rng.normal(10, 0.2, 500)
    assert statistics.modes_ratio(times) < 1.1
    times[:20] *= 1.6  # 4 %: the percentiles show them
    assert statistics.modes_ratio(times) < 1.1


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [0.0, 0.0, 0.0]])
def test_modes_of_next_to_nothing(values: list[float]) -> None:
    assert math.isfinite(statistics.modes_ratio(np.array(values)))


def test_robust_spread_ignores_one_stray_run(rng: np.random.Generator) -> None:
    times = rng.normal(100, 2, 2000)
    clean = statistics.robust_cv(times)
    times[0] = 1e6
    assert statistics.robust_cv(times) == pytest.approx(clean, rel=0.05)
    assert clean == pytest.approx(0.02, rel=0.1)
