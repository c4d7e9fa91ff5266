"""From what a group of workers measured to the records that `bench` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewright.bench import statistics, telemetry, trust
from edgewright.bench.machine import Roof
from edgewright.bench.plan import BenchPlan
from edgewright.bench.schedule import Entry
from edgewright.records import BenchResult, Environment, Roofline, Timing

#: Counters of the worker that tell something on their own.
_SHOWN = ("voluntary_switches", "involuntary_switches", "minor_faults", "major_faults")


def results_of(
    entries: Sequence[Entry], threads: int, plan: BenchPlan, machine: Mapping[str, Any], roof: Roof | None = None
) -> list[BenchResult]:
    """A record per entry of one interleaved group; `machine` is the telemetry that they share."""
    timings = [statistics.summarize(entry.rounds, seed=plan.seed) for entry in entries]
    if not timings:
        return []
    fastest: dict[str, Entry] = {}
    for origin in {entry.bundle.origin for entry in entries}:
        group = [entry for entry in entries if entry.bundle.origin == origin]
        fastest[origin] = group[statistics.fastest([entry.rounds for entry in group])]
    results = []
    for entry, timing in zip(entries, timings, strict=True):
        ratio, base = (1.0, 1.0, 1.0), fastest[entry.bundle.origin]
        if entry is not base:
            ratio = statistics.paired_ratio(entry.rounds, base.rounds, seed=plan.seed)
        results.append(_result(entry, timing, threads=threads, ratio=ratio, plan=plan, machine=machine, roof=roof))
    return results


def _result(
    entry: Entry,
    timing: Timing,
    *,
    threads: int,
    ratio: tuple[float, float, float],
    plan: BenchPlan,
    machine: Mapping[str, Any],
    roof: Roof | None,
) -> BenchResult:
    seen = trust.Observation(
        timing=timing,
        times_ms=np.concatenate([np.asarray(item) for item in entry.rounds]),
        rounds=len(entry.rounds),
        threads=threads,
        half_width_wanted=plan.rough_half_width if entry.left else plan.half_width,
        wall_seconds=entry.wall_seconds,
        machine_seconds=entry.machine_seconds,
        machine=entry.machine_used or {},
        worker=entry.worker_used or {},
    )
    verdict, reasons = trust.judge(seen)
    stages = {name: statistics.summarize_runs(values, seed=plan.seed) for name, values in entry.stages.items()}
    return BenchResult(
        bundle_hash=entry.bundle.hash,
        bundle_name=entry.name,
        runtime=f"{entry.bundle.runtime} {entry.opened['version']}",
        precision=entry.bundle.precision,
        threads=threads,
        infer=timing,
        pre=stages.get("pre_ms"),
        post=stages.get("post_ms"),
        peak_memory_bytes=int(entry.process["peak_rss_bytes"]),
        load_ms=float(entry.opened["load_ms"]),
        size_bytes=entry.bundle.size_bytes,
        trust=verdict,
        reasons=reasons,
        telemetry=_telemetry(entry, seen, machine),
        relative=ratio,
        seed=plan.seed,
        environment=Environment.here(),
        model=entry.bundle.model_name,
        origin=entry.bundle.origin,
        macs=entry.bundle.macs,
        roofline=None if roof is None else _roofline(entry, timing, roof),
    )


def _roofline(entry: Entry, timing: Timing, roof: Roof) -> Roofline | None:
    """How near the network comes to the roof; None where the bundle does not record its costs."""
    macs, traffic_bytes = entry.bundle.macs, entry.bundle.traffic_bytes
    if macs is None or traffic_bytes is None or not timing.median_ms:
        return None
    floor_ms, bound = roof.floor_ms(macs, traffic_bytes)
    return Roofline(
        peak_gflops=roof.peak_gflops,
        bandwidth_gbs=roof.bandwidth_gbs,
        floor_ms=floor_ms,
        bound=bound,
        reached=floor_ms / timing.median_ms,
    )


def _telemetry(entry: Entry, seen: trust.Observation, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The record's telemetry; shares are parts of 1, counters are sums over all blocks."""
    wall, worker = seen.wall_seconds, seen.worker
    running = [value for value in entry.running if not isinstance(value, str)]
    return {
        "inputs": entry.note,
        **machine,
        "during": {
            "rounds": seen.rounds,
            "runs_per_round": entry.block_runs,
            "measured_seconds": wall,
            "round_medians_ms": [float(np.median(item)) for item in entry.rounds],
            "round_lows_ms": [float(np.min(item)) for item in entry.rounds],
            "spread": statistics.robust_cv(seen.times_ms),
            "modes_ratio": statistics.modes_ratio(seen.times_ms),
            "half_width": statistics.half_width(seen.timing),
            "steal_share": _told(trust.steal_share(seen.machine)),
            "cpu_pressure_share": _told(trust.pressure_share(seen.machine, seen.machine_seconds)),
            "procs_running": float(np.mean(running)) if running else telemetry.UNAVAILABLE,
            **seen.machine,
        },
        "worker": {
            "cpu_per_wall": _told(trust.cpu_per_wall(worker, wall)),
            "waiting_share": _told(trust.waiting_share(worker, wall, seen.threads)),
            **{name: worker.get(name, telemetry.UNAVAILABLE) for name in _SHOWN},
            **{name: entry.process[name] for name in ("rss_bytes", "peak_rss_bytes", "swap_bytes", "threads")},
            "rss_before_load_bytes": entry.opened["rss_before_load_bytes"],
            "first_run_ms": entry.opened["first_run_ms"],
        },
        "advice": [*trust.advice(seen.timing), *_early(entry)],
    }


def _early(entry: Entry) -> tuple[str, ...]:
    return (f"it left after {len(entry.rounds)} rounds, {entry.left}",) if entry.left else ()


def _told(value: float | None) -> float | str:
    return telemetry.UNAVAILABLE if value is None else value
