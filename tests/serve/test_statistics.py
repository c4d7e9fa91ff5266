"""What a version notes of its runs is what it tells."""

from __future__ import annotations

from typing import Any

from edgewright.serve.core.statistics import _NOTED, Statistics


def told(statistics: Statistics) -> dict[str, Any]:
    document = statistics.document()
    del document["last_inference"]
    histograms = {"all": statistics.latency, **statistics.stages}
    return {**document, **{name: (part.counts, part.sum_s) for name, part in histograms.items()}}


def test_short_runs_count_as_others_that_waited_for_nothing() -> None:
    quick, usual = Statistics(), Statistics()
    for number in range(2 * _NOTED + 5):  # some are counted on the way, some once they are asked for
        rows, took_s = number % 3 + 1, number / 2**16
        quick.ran_short(rows, took_s)
        usual.ran(rows, (0.0, took_s, 0.0), (0.0,))
    assert told(quick) == told(usual)
    assert (quick.requests, quick.runs, quick.rows) == (2 * _NOTED + 5,) * 2 + (usual.rows,)
    assert quick.document()["last_inference"] > 0


def test_runs_of_both_kinds_are_counted_together() -> None:
    statistics = Statistics()
    statistics.ran_short(1, 0.25)
    statistics.ran(4, (0.5, 1.0, 0.5), (0.25, 0.5))
    assert (statistics.requests, statistics.runs, statistics.rows) == (3, 2, 5)
    assert statistics.batches == {1: [1, 250_000_000], 4: [1, 1_000_000_000]}
    assert statistics.stages["queue"].sum_s == 0.75
    assert statistics.stages["compute_infer"].sum_s == 2.25  # each request of a batch waits for all of it
    assert statistics.latency.sum_s == 5.0
