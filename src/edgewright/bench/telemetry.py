"""What the machine did before, during and after a measurement. Reads the kernel's files; never guesses.

Counters are read around every block of runs and added up, so that they speak of the measured time only. What a machine
does not tell is "unavailable", never 0. `trust.py` judges by it.

    >>> change({"ticks": 5, "steal": UNAVAILABLE}, {"ticks": 7, "steal": UNAVAILABLE})
    {'ticks': 2, 'steal': 'unavailable'}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from sys import platform
from typing import Any, Final

UNAVAILABLE: Final = "unavailable"
PROC = Path("/proc")
SYS = Path("/sys")

#: Columns of the first line of /proc/stat. Source: proc_stat(5).
_CPU_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
#: Fields of /proc/self/status that are kept, with the names used here. Source: proc_pid_status(5).
_STATUS = {"VmHWM": "peak_rss_bytes", "VmRSS": "rss_bytes", "VmSwap": "swap_bytes", "Threads": "threads"}
_MEMINFO = {"MemAvailable": "available_bytes", "SwapTotal": "swap_total_bytes", "SwapFree": "swap_free_bytes"}
_KEPT_CGROUP_DEPTH = 16

Counters = dict[str, float | str]


def counters(*, proc: Path = PROC, sys: Path = SYS) -> Counters:
    """Counters of the whole machine that only grow; `change` of two of them tells what happened in between.

    CPU time in clock ticks (usually 10 ms) over all cores, pressure in microseconds. Source: proc_stat(5), kernel
    documentation of PSI (accounting/psi.rst) and of cgroups.
    """
    found: Counters = {f"cpu_{name}": UNAVAILABLE for name in _CPU_COLUMNS}
    stat = _lines(proc / "stat")
    for line in stat:
        fields = line.split()
        if fields and fields[0] == "cpu":
            columns = zip(_CPU_COLUMNS, fields[1:], strict=False)
            found |= {f"cpu_{name}": int(value) for name, value in columns if value.isdigit()}
    found["context_switches"] = _value(stat, "ctxt")
    for resource in ("cpu", "memory", "io"):
        found[f"pressure_{resource}_us"] = _pressure(_lines(proc / "pressure" / resource))
    paging = _lines(proc / "vmstat")
    found["swap_in_pages"] = _value(paging, "pswpin")
    found["swap_out_pages"] = _value(paging, "pswpout")
    found["cgroup_throttled"] = _throttled(proc, sys)
    found["thermal_throttled"] = _thermal_throttled(sys)
    return found


def change(before: Mapping[str, float | str], after: Mapping[str, float | str]) -> Counters:
    """What was added to each counter; unavailable where it was so at either end."""
    result: Counters = {}
    for name, start in before.items():
        end = after.get(name, UNAVAILABLE)
        result[name] = UNAVAILABLE if isinstance(start, str) or isinstance(end, str) else end - start
    return result


def add(total: Mapping[str, float | str] | None, more: Mapping[str, float | str]) -> Counters:
    """Sum of two changes; unavailable where either is."""
    if total is None:
        return dict(more)
    result: Counters = {}
    for name, value in more.items():
        old = total.get(name, UNAVAILABLE)
        result[name] = UNAVAILABLE if isinstance(old, str) or isinstance(value, str) else old + value
    return result


def state(*, proc: Path = PROC, sys: Path = SYS) -> dict[str, Any]:
    """What holds at this moment: load, run queue, memory, frequencies in MHz, temperatures in degrees Celsius."""
    stat, load = _lines(proc / "stat"), re.match(r"(\d+\.\d+)\s", _text(proc / "loadavg"))
    found: dict[str, Any] = {
        "load_1_minute": float(load[1]) if load else UNAVAILABLE,
        "procs_running": _value(stat, "procs_running"),
        "procs_blocked": _value(stat, "procs_blocked"),
    }
    memory = _table(proc / "meminfo")
    found |= {name: memory.get(key, UNAVAILABLE) for key, name in _MEMINFO.items()}
    cpus = sys / "devices" / "system" / "cpu"
    found["frequency_mhz"] = _each(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq", 1 / 1000)
    found["temperature_c"] = _each(sys / "class" / "thermal", "thermal_zone*/temp", 1 / 1000)
    return found


def machine(*, sys: Path = SYS) -> dict[str, Any]:
    """What stays as it is: governor, boost, SMT, and the cores this process may use."""
    cpus = sys / "devices" / "system" / "cpu"
    no_turbo = _text(cpus / "intel_pstate" / "no_turbo")
    boost = _text(cpus / "cpufreq" / "boost")
    if boost == UNAVAILABLE and no_turbo in ("0", "1"):
        boost = "1" if no_turbo == "0" else "0"
    governors = {_text(path) for path in sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor"))}
    return {
        "governor": ", ".join(sorted(governors)) or UNAVAILABLE,
        "boost": {"1": "on", "0": "off"}.get(boost, UNAVAILABLE),
        "smt": {"1": "on", "0": "off"}.get(_text(cpus / "smt" / "active"), UNAVAILABLE),
        "affinity": list(available_cores()),
        "cgroup_cpu_quota": UNAVAILABLE if (quota := cpu_quota(sys=sys)) is None else quota,
    }


def process(*, proc: Path = PROC) -> dict[str, Any]:
    """What this process has used: CPU seconds, switches, faults, waiting for a core, memory, threads.

    Peak memory is VmHWM, which starts anew with each program; getrusage's maximum is inherited from the parent, so it
    only stands in where there is no /proc.
    """
    found: dict[str, Any] = dict.fromkeys(_STATUS.values(), UNAVAILABLE)
    table = _table(proc / "self" / "status")
    found |= {name: table[key] for key, name in _STATUS.items() if key in table}
    found["waiting_ns"] = _waiting(proc / "self" / "task")
    try:
        import resource  # not on Windows
    except ImportError:
        return found | dict.fromkeys(("cpu_seconds", "voluntary_switches", "involuntary_switches"), UNAVAILABLE)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    if found["peak_rss_bytes"] == UNAVAILABLE:
        found["peak_rss_bytes"] = usage.ru_maxrss * (1 if platform == "darwin" else 1024)
    return found | {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
        "minor_faults": usage.ru_minflt,
        "major_faults": usage.ru_majflt,
    }


def available_cores() -> tuple[int, ...]:
    """Numbers of the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(*, sys: Path = SYS) -> float | None:
    """Cores' worth of time that the cgroup allows, or None where it is not limited or not told."""
    root = sys / "fs" / "cgroup"
    fields = _text(root / "cpu.max").split()
    if len(fields) != 2:
        fields = [_text(root / "cpu" / "cpu.cfs_quota_us"), _text(root / "cpu" / "cpu.cfs_period_us")]
    if not all(re.fullmatch(r"[0-9]+", item) for item in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


# --- reading ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """The file's text, or "unavailable": kernel files come and go and may be unreadable in a container."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return UNAVAILABLE


def _lines(path: Path) -> list[str]:
    text = _text(path)
    return [] if text == UNAVAILABLE else text.splitlines()


def _value(lines: list[str], name: str) -> float | str:
    """The number behind `name` at the start of a line."""
    for line in lines:
        fields = line.split()
        if len(fields) >= 2 and fields[0] == name and fields[1].isdigit():
            return int(fields[1])
    return UNAVAILABLE


def _table(path: Path) -> dict[str, int]:
    """Numbers of a `Name:  12 kB` file, in bytes where it says kB."""
    found = {}
    for line in _lines(path):
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = int(fields[0]) * (1024 if fields[1:] == ["kB"] else 1)
    return found


def _pressure(lines: list[str]) -> float | str:
    """Microseconds in which some task waited, from a PSI file."""
    for line in lines:
        match = re.match(r"some .*total=(\d+)", line)
        if match:
            return int(match[1])
    return UNAVAILABLE


def _throttled(proc: Path, sys: Path) -> float | str:
    """Times that this process's cgroup, or one above it, ran into its CPU quota (v2 and v1 layouts)."""
    found: list[int] = []
    for line in _lines(proc / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in ("cpu", "cpu,cpuacct") if controllers else ("", "unified"):
            folder = sys / "fs" / "cgroup" / root / own.strip("/")
            for level in (folder, *folder.parents)[:_KEPT_CGROUP_DEPTH]:
                count = _value(_lines(level / "cpu.stat"), "nr_throttled")
                found += [int(count)] if not isinstance(count, str) else []
                if level == sys / "fs" / "cgroup":
                    break
    return sum(found) if found else UNAVAILABLE


def _thermal_throttled(sys: Path) -> float | str:
    counts = _each(sys / "devices" / "system" / "cpu", "cpu[0-9]*/thermal_throttle/core_throttle_count", 1)
    return sum(counts) if isinstance(counts, list) else UNAVAILABLE


def _each(folder: Path, pattern: str, scale: float) -> list[float] | str:
    """Numbers in all files that match, times `scale`; "unavailable" where there is none."""
    texts = [_text(path) for path in sorted(folder.glob(pattern))]
    numbers = [int(text) * scale for text in texts if re.fullmatch(r"-?[0-9]+", text)]
    return numbers or UNAVAILABLE


def _waiting(tasks: Path) -> float | str:
    """Nanoseconds that this process's threads were ready but had no core. Source: scheduler/sched-stats.rst."""
    found = [line.split() for path in tasks.glob("*/schedstat") for line in _lines(path)[:1]]
    numbers = [int(fields[1]) for fields in found if len(fields) >= 2 and fields[1].isdigit()]
    return sum(numbers) if numbers else UNAVAILABLE
