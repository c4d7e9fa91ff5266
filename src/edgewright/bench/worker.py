"""The child process that runs one bundle: `python -m edgewright.bench.worker REPLY_FD PARENT_PID`.

Requests are JSON lines on standard input, replies JSON lines on a pipe of their own, so that what libraries print
(standard output goes to the same file as standard error) cannot disturb them. The worker does nothing of its own
accord: between two requests it is blocked on its input, and the parent stops it (SIGSTOP), spinning threads included.
It dies with its parent.

    {"do": "open", "bundle": "out/", "threads": 1, "inputs": "inputs.npz"}  ->  {"load_ms": 41.0, ...}
    {"do": "block", "runs": 9}                                             ->  {"times_ms": [12.4, ...], ...}
    {"do": "stages", "seconds": 1.0, ...}                                  ->  {"pre_ms": [...], "post_ms": [...]}
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import registry
from edgewright.bench import telemetry
from edgewright.bundle import Bundle
from edgewright.contracts import Runner
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays

#: prctl option: the signal that a process gets when its parent ends. Source: prctl(2), linux/prctl.h.
_PR_SET_PDEATHSIG = 1
#: Fewest and most runs of one stage, whatever the seconds say.
_STAGE_RUNS = (5, 500)


class Station:
    """One opened bundle with its inputs, and what can be asked of it."""

    def __init__(self) -> None:
        self.bundle: Bundle | None = None
        self.runner: Runner | None = None
        self.inputs: list[Arrays] = []
        self.next = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self.open,
            "block": self.block,
            "stages": self.stages,
        }
        arguments = {key: value for key, value in request.items() if key != "do"}
        return handlers[request["do"]](**arguments)

    def open(self, bundle: str, threads: int, inputs: str) -> dict[str, Any]:
        """Open the bundle as a user would, hashes and library import included, and make the first run."""
        before = telemetry.process()
        start = time.perf_counter_ns()
        self.bundle = Bundle.open(bundle)
        plugin = registry.get("runtimes", self.bundle.runtime)
        self.runner = plugin.open(self.bundle, threads=threads)
        opened = time.perf_counter_ns()
        self.inputs = read_inputs(Path(inputs), self.bundle)
        first = time.perf_counter_ns()
        self.runner.run(self.inputs[0])
        end = time.perf_counter_ns()
        return {
            "hash": self.bundle.hash,
            "version": plugin.version(),
            "load_ms": (opened - start) / 1e6,
            "first_run_ms": (end - first) / 1e6,
            "rss_before_load_bytes": before["rss_bytes"],
        }

    def block(self, runs: int, discard: int = 1) -> dict[str, Any]:
        """Time `runs` runs, one by one, after `discard` runs that warm up what the pause cooled down."""
        assert self.runner is not None
        run, count = self.runner.run, len(self.inputs)
        for _ in range(discard):
            run(self.inputs[self.next % count])
            self.next += 1
        chosen = [self.inputs[(self.next + i) % count] for i in range(runs)]
        self.next += runs
        clock, times = time.perf_counter_ns, [0] * runs
        gc.disable()  # a collection belongs to this process, not to the network
        begin = clock()
        machine, process, start = telemetry.counters(), telemetry.process(), clock()
        for i, inputs in enumerate(chosen):
            before = clock()
            run(inputs)
            times[i] = clock() - before
        end, process_after, machine_after = clock(), telemetry.process(), telemetry.counters()
        gc.enable()
        return {
            "times_ms": [value / 1e6 for value in times],
            "wall_seconds": (end - start) / 1e9,
            "machine_seconds": (clock() - begin) / 1e9,
            "machine": telemetry.change(machine, machine_after),
            "worker": telemetry.change(process, process_after),
            "process": process_after,
            "running": telemetry.state()["procs_running"],
        }

    def stages(self, seconds: float, photos: list[str] | None, post: bool) -> dict[str, Any]:
        """Time file -> arrays for `photos` and outputs -> result, each for about `seconds`."""
        assert self.bundle is not None
        assert self.runner is not None
        spec, found = self.bundle.spec, {}
        if photos:
            prepare = preparation(self.bundle)
            found["pre_ms"] = _time_each([partial(prepare, Path(path)) for path in photos], seconds)
        if post:
            task = registry.get("tasks", spec.task)
            outputs = [dict(self.runner.run(inputs)) for inputs in self.inputs]
            calls = [partial(task.postprocess, item, spec) for item in outputs]
            found["post_ms"] = _time_each(calls, seconds)
        return found


def read_inputs(path: Path, bundle: Bundle) -> list[Arrays]:
    """The inputs that `inputs.write` wrote: entry `I.P` is sample I's array for the P-th input of the bundle."""
    found: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            sample, _, position = key.partition(".")
            found.setdefault(int(sample), {})[bundle.inputs[int(position)].name] = archive[key]
    return [found[index] for index in sorted(found)]


def preparation(bundle: Bundle) -> Callable[[Path], Arrays]:
    """The function that turns a photo's file into the bundle's inputs, as `Samples` does it."""
    from edgewright.samples.loading import Loader  # after the memory was measured: it is not the network's
    from edgewright.samples.sources import Entry

    loader = Loader(bundle.spec, bundle.inputs)
    return lambda path: loader.load(Entry(id=path.name, path=path, kind="photo"))


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, even while it is stopped (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _time_each(calls: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Milliseconds of each call in rotation, after one that is thrown away."""
    calls[0]()
    times: list[float] = []
    end = time.perf_counter_ns() + seconds * 1e9
    while len(times) < _STAGE_RUNS[1] and (len(times) < _STAGE_RUNS[0] or time.perf_counter_ns() < end):
        call = calls[len(times) % len(calls)]
        before = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return times


def main(arguments: list[str]) -> None:
    """Answer requests until standard input ends."""
    die_with_parent(int(arguments[1]))
    station = Station()
    with os.fdopen(int(arguments[0]), "w", encoding="utf-8") as replies:
        for line in sys.stdin:
            try:
                reply = station.answer(json.loads(line))
            except EdgewrightError as error:
                reply = {"error": error.to_json()}
            except Exception:  # whatever a library raises is the parent's to report
                reply = {"crash": traceback.format_exc()}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
