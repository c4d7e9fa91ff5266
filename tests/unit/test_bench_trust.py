"""Verdicts on synthetic observations, and telemetry read from synthetic kernel files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.bench import statistics, telemetry, trust
from edgewright.bench.telemetry import UNAVAILABLE
from edgewright.bench.trust import Observation

QUIET_MACHINE = {
    "cpu_user": 900, "cpu_nice": 0, "cpu_system": 20, "cpu_idle": 900, "cpu_iowait": 0, "cpu_irq": 0, "cpu_softirq": 0,
    "cpu_steal": 0, "pressure_cpu_us": 100_000, "swap_in_pages": 0, "swap_out_pages": 0, "cgroup_throttled": 0,
    "thermal_throttled": UNAVAILABLE,
}  # fmt: skip
QUIET_WORKER = {"cpu_seconds": 9.99, "waiting_ns": 10_000_000}


def observation(times: np.ndarray | None = None, *, threads: int = 1, **machine: float | str) -> Observation:
    if times is None:
        times = np.random.default_rng(0).normal(10, 0.05, 1000)
    rounds = [list(part) for part in times.reshape(-1, 10)]
    return Observation(
        timing=statistics.summarize(rounds),
        times_ms=times,
        rounds=len(rounds),
        threads=threads,
        half_width_wanted=0.02,
        wall_seconds=10.0,
        machine_seconds=10.0,
        machine=QUIET_MACHINE | machine,
        worker=QUIET_WORKER,
    )


def test_a_quiet_machine_is_trusted() -> None:
    assert trust.judge(observation()) == ("trusted", ())


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        ({"cpu_steal": 20}, "virtual machine"),
        ({"swap_in_pages": 1}, "swapped"),
        ({"swap_out_pages": 5}, "swapped"),
        ({"cgroup_throttled": 1}, "quota"),
        ({"thermal_throttled": 2}, "heat"),
    ],
)
def test_invalid(machine: dict[str, float], word: str) -> None:
    verdict, reasons = trust.judge(observation(**machine))
    assert verdict == "invalid"
    assert word in reasons[0]


def test_one_tick_of_steal_is_resolution_not_steal() -> None:
    few = {name: 0 for name in QUIET_MACHINE if name.startswith("cpu_")} | {"cpu_user": 20, "cpu_steal": 2}
    assert trust.judge(observation(**few))[0] == "trusted"


def test_steal_means_the_same_beside_idle_cores() -> None:
    assert trust.judge(observation(cpu_idle=1_000_000, cpu_steal=20))[0] == "invalid"


def test_pressure_is_noisy() -> None:
    verdict, reasons = trust.judge(observation(pressure_cpu_us=2_000_000))
    assert (verdict, len(reasons)) == ("noisy", 1)
    assert "20%" in reasons[0]


def test_a_starved_worker_is_noisy_at_one_thread() -> None:
    seen = replace(observation(), worker={"cpu_seconds": 9.0, "waiting_ns": 0})
    assert trust.judge(seen)[0] == "noisy"


def test_idle_threads_are_no_noise_but_waiting_ones_are() -> None:
    seen = replace(observation(threads=4), worker={"cpu_seconds": 20.0, "waiting_ns": 0})
    assert trust.judge(seen)[0] == "trusted"
    seen = replace(seen, worker={"cpu_seconds": 20.0, "waiting_ns": 4_000_000_000})
    verdict, reasons = trust.judge(seen)
    assert verdict == "noisy"
    assert "fewer threads" in reasons[0]


def test_a_bimodal_machine_is_noisy(rng: np.random.Generator) -> None:
    times = np.where(rng.random(2000) < 0.3, 16.0, 10.0)
    verdict, reasons = trust.judge(observation(times))
    assert verdict == "noisy"
    assert any("two groups, one 1.6 times slower" in reason for reason in reasons)


def test_scattered_runs_are_noisy(rng: np.random.Generator) -> None:
    verdict, reasons = trust.judge(observation(rng.normal(10, 1.5, 5000).clip(7, 13)))
    assert verdict == "noisy"
    assert any("scatter" in reason for reason in reasons)


def test_a_wide_interval_and_few_rounds_are_noisy(rng: np.random.Generator) -> None:
    verdict, reasons = trust.judge(observation(rng.lognormal(0, 0.09, 50)))
    assert verdict == "noisy"
    assert any("more seconds" in reason for reason in reasons)
    verdict, reasons = trust.judge(observation(np.full(20, 10.0)))
    assert "only 2 rounds" in reasons[0]


def test_unknown_is_neither_good_nor_bad() -> None:
    seen = replace(observation(), machine=dict.fromkeys(QUIET_MACHINE, UNAVAILABLE), worker={})
    assert trust.judge(seen) == ("trusted", ())
    assert trust.steal_share(seen.machine) is None
    assert trust.pressure_share(seen.machine, 1.0) is None
    assert trust.cpu_per_wall({}, 1.0) is None
    assert trust.waiting_share({}, 1.0, 2) is None


def test_invalid_reasons_come_first() -> None:
    verdict, reasons = trust.judge(observation(pressure_cpu_us=9_000_000, cpu_steal=100))
    assert verdict == "invalid"
    assert "virtual machine" in reasons[0]
    assert len(reasons) == 2


def test_advice_on_few_runs() -> None:
    assert trust.advice(observation(np.full(50, 1.0)).timing)
    assert not trust.advice(observation().timing)


# --- telemetry --------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A folder that looks like / on a small machine: proc/ and sys/."""
    files = {
        "proc/stat": "cpu  100 1 20 3000 4 0 6 7 0 0\ncpu0 1 1 1 1 1\nctxt 555\nprocs_running 2\nprocs_blocked 0\n",
        "proc/loadavg": "0.52 0.60 0.70 2/100 4242\n",
        "proc/meminfo": "MemTotal: 2048 kB\nMemAvailable: 1024 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        "proc/vmstat": "pgpgin 5\npswpin 3\npswpout 4\n",
        "proc/pressure/cpu": "some avg10=1.50 avg60=1.00 avg300=0.00 total=9000\nfull avg10=0.00 total=0\n",
        "proc/self/cgroup": "0::/box/inner\n",
        "proc/self/status": "Name:\tx\nVmHWM:\t 300 kB\nVmRSS:\t 200 kB\nThreads:\t3\n",
        "proc/self/task/1/schedstat": "100 20 3\n",
        "proc/self/task/2/schedstat": "100 22 3\n",
        "sys/fs/cgroup/box/cpu.stat": "usage_usec 5\nnr_throttled 2\n",
        "sys/fs/cgroup/box/inner/cpu.stat": "usage_usec 5\nnr_throttled 1\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "sys/devices/system/cpu/smt/active": "1\n",
        "sys/class/thermal/thermal_zone0/temp": "45500\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_counters_of_a_known_machine(kernel: Path) -> None:
    found = telemetry.counters(proc=kernel / "proc", sys=kernel / "sys")
    assert (found["cpu_user"], found["cpu_iowait"], found["cpu_steal"]) == (100, 4, 7)
    assert (found["context_switches"], found["swap_in_pages"], found["swap_out_pages"]) == (555, 3, 4)
    assert (found["pressure_cpu_us"], found["pressure_memory_us"]) == (9000, UNAVAILABLE)
    assert (found["cgroup_throttled"], found["thermal_throttled"]) == (3, UNAVAILABLE)


def test_state_and_machine_of_a_known_machine(kernel: Path) -> None:
    found = telemetry.state(proc=kernel / "proc", sys=kernel / "sys")
    assert (found["load_1_minute"], found["procs_running"], found["available_bytes"]) == (0.52, 2, 1024 * 1024)
    assert (found["frequency_mhz"], found["temperature_c"]) == ([2400.0], [45.5])
    machine = telemetry.machine(sys=kernel / "sys")
    assert (machine["governor"], machine["boost"], machine["smt"]) == ("performance", "off", "on")
    assert machine["cgroup_cpu_quota"] == 1.5


def test_process_of_a_known_machine(kernel: Path) -> None:
    found = telemetry.process(proc=kernel / "proc")
    assert (found["peak_rss_bytes"], found["rss_bytes"], found["threads"]) == (300 * 1024, 200 * 1024, 3)
    assert (found["swap_bytes"], found["waiting_ns"]) == (UNAVAILABLE, 42)


def test_absent_is_unavailable_never_zero(tmp_path: Path) -> None:
    found = telemetry.counters(proc=tmp_path, sys=tmp_path)
    assert set(found.values()) == {UNAVAILABLE}
    assert set(telemetry.state(proc=tmp_path, sys=tmp_path).values()) == {UNAVAILABLE}
    machine = telemetry.machine(sys=tmp_path)
    assert {machine[name] for name in ("governor", "boost", "smt", "cgroup_cpu_quota")} == {UNAVAILABLE}
    process = telemetry.process(proc=tmp_path)
    assert process["waiting_ns"] == UNAVAILABLE
    assert process["peak_rss_bytes"] != 0


@pytest.mark.parametrize(
    "text", ["", "\n", "cpu\n", "cpu  x y\n", "\x00\xff garbage", "some avg10=\n", "nr_throttled\n"]
)
def test_garbled_kernel_files_are_unavailable(kernel: Path, text: str) -> None:
    for path in [*kernel.glob("proc/*"), *kernel.rglob("cpu.*"), *kernel.rglob("temp"), *kernel.rglob("schedstat")]:
        if path.is_file():
            path.write_text(text, encoding="utf-8")
    found = telemetry.counters(proc=kernel / "proc", sys=kernel / "sys")
    assert found["cpu_user"] == UNAVAILABLE
    assert found["cgroup_throttled"] == UNAVAILABLE
    assert telemetry.state(proc=kernel / "proc", sys=kernel / "sys")["load_1_minute"] == UNAVAILABLE
    assert telemetry.cpu_quota(sys=kernel / "sys") is None


def test_changes_add_up_and_unavailable_stays(kernel: Path) -> None:
    before = telemetry.counters(proc=kernel / "proc", sys=kernel / "sys")
    (kernel / "proc/vmstat").write_text("pswpin 13\n", encoding="utf-8")
    step = telemetry.change(before, telemetry.counters(proc=kernel / "proc", sys=kernel / "sys"))
    assert (step["swap_in_pages"], step["swap_out_pages"], step["cpu_user"]) == (10, UNAVAILABLE, 0)
    total = telemetry.add(telemetry.add(None, step), step)
    assert (total["swap_in_pages"], total["swap_out_pages"]) == (20, UNAVAILABLE)


def test_this_machine_answers() -> None:
    assert telemetry.available_cores()
    assert telemetry.process()["cpu_seconds"] > 0
