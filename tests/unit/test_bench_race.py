"""Races with workers that are made up: who leaves the rounds early, who stays, and how rarely one is wronged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgewright.bench import BenchPlan, outcome, pairs, schedule
from edgewright.bench.race import MARGIN, clearly_slower
from edgewright.bench.schedule import Entry
from edgewright.bundle import Bundle
from edgewright.progress import SILENT
from edgewright.records import BenchResult
from edgewright.spec import Spec

Noise = Callable[[np.random.Generator, int], np.ndarray]
Race = Sequence[Collection[str]]


def quiet(rng: np.random.Generator, runs: int) -> np.ndarray:
    """A machine whose rounds differ by 1 %, and runs within a round by 1 %."""
    return rng.normal(1, 0.01) * rng.normal(1, 0.01, runs)


def disturbed(rng: np.random.Generator, runs: int) -> np.ndarray:
    """A machine with a neighbour: every fourth block is 1.6 times slower, whoever runs."""
    return quiet(rng, runs) * (1.6 if rng.random() < 0.25 else 1.0)


def uneven(rng: np.random.Generator, runs: int) -> np.ndarray:
    """Rounds that scatter by half: no median of few of them is known to a tenth."""
    return np.full(runs, rng.uniform(0.5, 2))


class Workers:
    """Stands for `WorkerProcess`: makes workers that answer with times of a known median, slowed as all are."""

    def __init__(self, medians_ms: dict[str, float], noise: Noise, seed: int) -> None:
        self.medians_ms, self.noise = medians_ms, noise
        self.rng = np.random.default_rng(seed)
        self.slowed: Callable[[int], float] = lambda block: 1.0
        self.staged: list[tuple[str, int]] = []
        self.blocks = 0

    def __call__(self, name: str, *, threads: int, folder: Path) -> SimpleNamespace:
        def ask(request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
            return getattr(self, request["do"])(name, request)  # type: ignore[no-any-return]

        return SimpleNamespace(ask=ask, close=lambda: None)

    def open(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "hash": name, "version": "1", "load_ms": 1.0, "first_run_ms": self.medians_ms[name],
            "rss_before_load_bytes": 1,
        }  # fmt: skip

    def block(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        self.blocks += 1
        slowed = self.slowed(self.blocks)
        times = self.medians_ms[name] * slowed * self.noise(self.rng, request["runs"])
        memory = dict.fromkeys(("rss_bytes", "peak_rss_bytes", "swap_bytes", "threads"), 1)
        seconds = float(times.sum() / 1000)
        return {
            "times_ms": list(times), "wall_seconds": seconds, "machine_seconds": seconds, "machine": {}, "worker": {},
            "process": memory, "running": 1,
        }  # fmt: skip

    def stages(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        self.staged.append((name, len(request["photos"])))
        return {"pre_ms": [1.0] * 5} if request["photos"] else {}


def run(
    workers: Workers, race: Race, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: BenchPlan | None = None
) -> dict[str, Entry]:
    """Entries by name after a whole measurement."""
    plan = plan or BenchPlan(pre_post=False)
    monkeypatch.setattr(schedule, "WorkerProcess", workers)
    entries = [entry_of(name, tmp_path, race) for name in workers.medians_ms]

    def lose(entry: Entry, error: Exception) -> None:
        raise error

    schedule.measure(entries, 1, plan, tmp_path, lose=lose, progress=SILENT)
    return {entry.name: entry for entry in entries}


def entry_of(name: str, tmp_path: Path, race: Race) -> Entry:
    bundle: Any = SimpleNamespace(
        hash=name, path=tmp_path / name, spec=Spec(), runtime="r", precision="fp32", size_bytes=1, origin="o",
        model_name="m", macs=1,
    )  # fmt: skip
    groups = tuple(number for number, names in enumerate(race) if name in names) if race else None
    typed: Bundle = bundle
    return Entry(typed, name, tmp_path / "inputs.npz", groups=groups)


def results(entries: dict[str, Entry], plan: BenchPlan | None = None) -> dict[str, BenchResult]:
    found = outcome.results_of(list(entries.values()), 1, plan or BenchPlan(), {})
    return {result.bundle_name: result for result in found}


# --- who leaves -------------------------------------------------------------------------------------------------------


def test_a_clear_loser_leaves_and_an_equal_pair_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({"a": 10.0, "b": 10.05, "slow": 19.0}, disturbed, seed=0)
    entries = run(workers, [("a", "b", "slow")], tmp_path, monkeypatch)
    assert entries["slow"].left in {"clearly slower than a", "clearly slower than b"}
    assert entries["a"].left == entries["b"].left == ""
    assert len(entries["slow"].rounds) < len(entries["a"].rounds) == len(entries["b"].rounds)
    found = results(entries)["slow"]
    value, low, high = pairs.ratio(found, results(entries)["a"])
    assert low <= value <= high
    assert low > 1


def test_without_a_race_all_are_measured_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BenchPlan(pre_post=False, half_width=0.003)
    entries = run(Workers({"a": 10.0, "slow": 30.0}, quiet, seed=0), (), tmp_path, monkeypatch, plan)
    assert not any(entry.left for entry in entries.values())
    assert len({len(entry.rounds) for entry in entries.values()}) == 1


def test_the_fastest_unmodified_one_stays_however_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medians = {"original-a": 20.0, "original-b": 30.0, "int8-a": 10.0, "int8-b": 10.1}
    race, plan = [medians, ("original-a", "original-b")], BenchPlan(pre_post=False, half_width=0.003)
    entries = run(Workers(medians, quiet, seed=1), race, tmp_path, monkeypatch, plan)
    assert [name for name, entry in entries.items() if entry.left] == ["original-b"]
    assert len(entries["original-a"].rounds) == len(entries["int8-a"].rounds)


def test_one_that_may_not_be_chosen_throws_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, plan = Workers({"a": 10.0, "b": 10.1, "wrong": 2.0}, quiet, 2), BenchPlan(pre_post=False, half_width=0.003)
    entries = run(workers, [("a", "b")], tmp_path, monkeypatch, plan)
    assert {name: entry.left for name, entry in entries.items()} == {
        "a": "", "b": "", "wrong": "not among those to choose from",
    }  # fmt: skip


def test_nobody_leaves_before_the_plan_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BenchPlan(pre_post=False, min_runs=400, min_seconds=3.0)
    entries = run(Workers({"a": 10.0, "slow": 20.0}, quiet, 3), [("a", "slow")], tmp_path, monkeypatch, plan)
    assert entries["slow"].left
    assert entries["slow"].runs >= 400
    assert entries["slow"].wall_seconds >= 3


def test_a_loser_of_unknown_speed_stays_until_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BenchPlan(pre_post=False, max_seconds=3.0)
    entries = run(Workers({"a": 1.0, "slow": 20.0}, uneven, 3), [("a", "slow")], tmp_path, monkeypatch, plan)
    assert clearly_slower(entries["slow"].rounds, entries["a"].rounds)
    assert entries["slow"].left == ""
    assert results(entries, plan)["slow"].trust == "noisy"


# --- records stay honest ----------------------------------------------------------------------------------------------


def test_what_the_record_of_an_early_leaver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BenchPlan(pre_post=False, half_width=0.003)
    workers = Workers({"a": 10.0, "b": 10.1, "slow": 14.0}, quiet, 4)
    entries = run(workers, [("a", "b", "slow")], tmp_path, monkeypatch, plan)
    found = results(entries, plan)
    slow, best = found["slow"], found["a"]
    assert slow.infer.runs < best.infer.runs
    assert slow.telemetry["during"]["rounds"] == len(entries["slow"].rounds)
    rounds = len(entries["slow"].rounds)
    assert f"it left after {rounds} rounds, {entries['slow'].left}" in slow.telemetry["advice"]
    assert not any("left" in line for line in best.telemetry["advice"])
    assert slow.relative[1] <= 1.4 <= slow.relative[2]
    assert slow.trust == "trusted"
    assert BenchResult.from_json(slow.to_json()).to_json() == slow.to_json()


def test_trust_asks_of_an_early_leaver_what_it_was_measured_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rounds = [[float(value)] * 5 for value in rng.normal(10, 0.8, 12)]
    verdicts = {}
    for left in ("", "clearly slower than a"):
        entry = entry_of("x", tmp_path, ())
        entry.rounds, entry.left = rounds, left
        entry.opened = {"version": "1", "load_ms": 1.0, "first_run_ms": 1.0, "rss_before_load_bytes": 1}
        entry.process = dict.fromkeys(("rss_bytes", "peak_rss_bytes", "swap_bytes", "threads"), 1)
        verdicts[left] = results({"x": entry})["x"].reasons
    assert any("wanted +-2.0%" in reason for reason in verdicts[""])
    assert not any("wanted" in reason for reason in verdicts["clearly slower than a"])


def test_the_fastest_is_found_by_common_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine gets 3 times slower after the loser has left: its milliseconds are lower, and it has lost all the same."""
    workers, plan = (
        Workers({"a": 10.0, "b": 10.05, "slow": 14.0}, quiet, 5),
        BenchPlan(pre_post=False, half_width=0.001),
    )
    workers.slowed = lambda block: 1.0 if block < 60 else 3.0
    found = results(run(workers, [("a", "b", "slow")], tmp_path, monkeypatch, plan))
    assert found["slow"].infer.median_ms < found["a"].infer.median_ms
    assert pairs.fastest(list(found.values())).bundle_name in {"a", "b"}
    assert pairs.ratio(found["slow"], found["a"])[1] > 1
    assert found["slow"].relative[1] > 1


# --- how often one is wronged -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [quiet, disturbed, uneven])
@pytest.mark.parametrize("ratio", [1.0, 1.02, MARGIN])
def test_hardly_ever_is_one_that_is_no_clear_loser_thrown_out(noise: Noise, ratio: float) -> None:
    """Five looks at up to 60 rounds, 100 times: at the margin itself the bound is 1 in 1000, below it much less."""
    wronged = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ours, theirs = ([list(scale * noise(rng, 5)) for _ in range(60)] for scale in (ratio, 1.0))
        wronged += any(clearly_slower(ours[:count], theirs[:count]) for count in (15, 20, 30, 45, 60))
    assert wronged <= (1 if ratio == MARGIN else 0)


@pytest.mark.parametrize(("noise", "ratio"), [(quiet, 1.2), (disturbed, 3.0), (uneven, 8.0)])
def test_clear_losers_are_found_soon(noise: Noise, ratio: float) -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        ours, theirs = ([list(scale * noise(rng, 5)) for _ in range(20)] for scale in (ratio, 1.0))
        assert clearly_slower(ours, theirs)


def test_fewer_than_twelve_rounds_never_decide() -> None:
    assert not clearly_slower([[9.0]] * 11, [[1.0]] * 11)
    assert clearly_slower([[9.0]] * 12, [[1.0]] * 12)
    assert not clearly_slower([[9.0]] * 99, [[1.0]] * 11)  # rounds that the other did not have say nothing


# --- what is done once ------------------------------------------------------------------------------------------------


def test_photos_of_one_spec_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({"a": 10.0, "b": 10.0, "other": 10.0}, quiet, 6)
    monkeypatch.setattr(schedule, "WorkerProcess", workers)
    entries = [entry_of(name, tmp_path, ()) for name in workers.medians_ms]
    for entry in entries:
        entry.photos = (tmp_path / "1.jpg", tmp_path / "2.jpg")
    entries[2].bundle.spec = Spec(task="classify")  # type: ignore[misc]
    schedule.measure(entries, 1, BenchPlan(), tmp_path, lose=lambda entry, error: None, progress=SILENT)
    assert workers.staged == [("a", 2), ("b", 0), ("other", 2)]
    assert all(entry.stages["pre_ms"] == [1.0] * 5 for entry in entries)
