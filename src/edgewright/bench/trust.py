"""Whether a measurement may be believed: trusted, noisy or invalid, with the reasons in words and what to do.

>>> judge(observation)
('trusted', ())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgewright.bench import statistics
from edgewright.records import Timing, Trust

# Limits. Those of steal, pressure and CPU per wall time are starting values from the practice of reading vmstat beside
# a benchmark; the others name where they come from.

#: Part of the busy CPU time that another virtual machine took.
STEAL_MAX = 0.01
#: Steal is counted in ticks of 10 ms: one or two are the counter's resolution, not a measurement.
STEAL_TICKS_MIN = 3
#: Part of the time in which some task of the machine waited for a core (PSI "some").
PRESSURE_MAX = 0.10
#: CPU time per wall time at one thread; below it the worker did not have its core.
CPU_PER_WALL_MIN = 0.95
#: Part of the threads' time in which they were ready but had no core. Above one thread this replaces CPU per wall time:
#: a thread that sleeps because its share of a layer is done is the runtime's doing, not the machine's.
WAITING_MAX = 0.05
#: Robust coefficient of variation. A quiet machine shows 1 % or less; at 10 % a difference of 5 % needs 60 runs.
SPREAD_MAX = 0.10
#: Shared virtual machines run 1.6 times slower while their neighbour is busy; 1.4 tells that from a wide distribution.
MODES_RATIO_MAX = 1.4

_QUIET = "close other programs and measure again"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a verdict is made of.

    Attributes:
        timing: Summary of all timed runs.
        times_ms: Every timed run.
        rounds: Number of rounds.
        threads: Threads of the runtime.
        half_width_wanted: Where the interval should have ended, as a part of the median.
        wall_seconds: Length of all timed blocks together.
        machine_seconds: The same with the reading of the machine's counters around them.
        machine: Summed changes of `telemetry.counters` over the blocks.
        worker: Summed changes of the worker's `telemetry.process` over the blocks.
    """

    timing: Timing
    times_ms: np.ndarray
    rounds: int
    threads: int
    half_width_wanted: float
    wall_seconds: float
    machine_seconds: float
    machine: Mapping[str, float | str] = field(default_factory=dict)
    worker: Mapping[str, float | str] = field(default_factory=dict)


def judge(seen: Observation) -> tuple[Trust, tuple[str, ...]]:
    """The verdict and why: every reason that applies, invalidating ones first."""
    invalid = _invalid(seen)
    noisy = [*_starved(seen), *_scattered(seen)]
    trust: Trust = "invalid" if invalid else "noisy" if noisy else "trusted"
    return trust, (*invalid, *noisy)


def advice(timing: Timing) -> tuple[str, ...]:
    """What a stricter reader would ask for; it does not change the verdict."""
    found = []
    if timing.runs < statistics.P99_RUNS_MIN:
        found.append(
            f"p99 comes from {timing.runs} runs, fewer than {statistics.P99_RUNS_MIN}: it is close to the maximum"
        )
    return tuple(found)


def steal_share(machine: Mapping[str, float | str]) -> float | None:
    """Stolen part of the time in which this machine wanted to compute, or None where it is not known.

    Idle time is left out, so that the number means the same on 2 and on 64 cores.
    """
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    parts = [_number(machine, f"cpu_{name}") for name in names]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not sum(known):
        return None
    return known[-1] / sum(known)


def pressure_share(machine: Mapping[str, float | str], machine_seconds: float) -> float | None:
    """Part of the measured time in which some task waited for a core, or None where it is not known."""
    waited = _number(machine, "pressure_cpu_us")
    return None if waited is None or machine_seconds <= 0 else waited / 1e6 / machine_seconds


def cpu_per_wall(worker: Mapping[str, float | str], wall_seconds: float) -> float | None:
    """Cores' worth of CPU time that the worker used during its blocks, or None where it is not known."""
    used = _number(worker, "cpu_seconds")
    return None if used is None or wall_seconds <= 0 else used / wall_seconds


def waiting_share(worker: Mapping[str, float | str], wall_seconds: float, threads: int) -> float | None:
    """Part of the threads' time in which they were ready but had no core, or None where it is not known."""
    waited = _number(worker, "waiting_ns")
    return None if waited is None or wall_seconds <= 0 else waited / 1e9 / wall_seconds / threads


def _invalid(seen: Observation) -> list[str]:
    reasons = []
    steal, ticks = steal_share(seen.machine), _number(seen.machine, "cpu_steal") or 0
    if steal is not None and steal > STEAL_MAX and ticks >= STEAL_TICKS_MIN:
        reasons.append(
            f"another virtual machine took {steal:.1%} of the CPU time (limit {STEAL_MAX:.0%}): use another machine"
        )
    pages = sum(_number(seen.machine, f"swap_{way}_pages") or 0 for way in ("in", "out"))
    if pages:
        reasons.append(f"{pages:.0f} pages were swapped: free memory, or measure fewer bundles at once")
    if throttled := _number(seen.machine, "cgroup_throttled"):
        reasons.append(
            f"the container ran into its CPU quota {throttled:.0f} times: raise the quota or lower the threads"
        )
    if throttled := _number(seen.machine, "thermal_throttled"):
        reasons.append(f"the CPU was throttled for heat {throttled:.0f} times: let it cool and measure again")
    return reasons


def _starved(seen: Observation) -> list[str]:
    reasons = []
    pressure = pressure_share(seen.machine, seen.machine_seconds)
    if pressure is not None and pressure > PRESSURE_MAX:
        reasons.append(
            f"some program waited for a core {pressure:.0%} of the time (limit {PRESSURE_MAX:.0%}): {_QUIET}"
        )
    used = cpu_per_wall(seen.worker, seen.wall_seconds)
    waiting = waiting_share(seen.worker, seen.wall_seconds, seen.threads)
    if seen.threads == 1 and used is not None and used < CPU_PER_WALL_MIN:
        reasons.append(
            f"the worker had a core {used:.0%} of the time (limit {CPU_PER_WALL_MIN:.0%}): it waited for a core, "
            f"a disk or a lock; {_QUIET}"
        )
    elif seen.threads > 1 and waiting is not None and waiting > WAITING_MAX:
        reasons.append(
            f"its {seen.threads} threads waited for a core {waiting:.0%} of the time (limit {WAITING_MAX:.0%}): "
            f"{_QUIET}, or use fewer threads"
        )
    return reasons


def _scattered(seen: Observation) -> list[str]:
    reasons = []
    reached = statistics.half_width(seen.timing)
    if seen.rounds < statistics.ROUNDS_MIN:
        reasons.append(
            f"only {seen.rounds} rounds ({seen.timing.runs} runs) were made, an interval needs at least "
            f"{statistics.ROUNDS_MIN}: give it more seconds"
        )
    elif reached > seen.half_width_wanted:
        reasons.append(
            f"the median is known to +-{reached:.1%} after {seen.timing.runs} runs, "
            f"wanted +-{seen.half_width_wanted:.1%}: give it more seconds"
        )
    ratio = statistics.modes_ratio(seen.times_ms)
    spread = statistics.robust_cv(seen.times_ms)
    if ratio > MODES_RATIO_MAX:
        reasons.append(
            f"the runs fall into two groups, one {ratio:.1f} times slower: the machine was busy at times; "
            "trust the ratios more than the milliseconds"
        )
    elif spread > SPREAD_MAX:
        reasons.append(f"the runs scatter by {spread:.0%} (limit {SPREAD_MAX:.0%}): {_QUIET}")
    return reasons


def _number(counters: Mapping[str, float | str], name: str) -> float | None:
    value = counters.get(name)
    return None if value is None or isinstance(value, str) else float(value)
