"""What a version of a model has done: counts, nanoseconds by stage, batch sizes, histograms."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright.serve.core.jobs import Reason

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
#: Upper ends of the latency histograms' bins, in seconds.
BINS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


#: Requests whose figures are noted down before they are put into the histograms together.
_NOTED = 512
_EDGES_S = np.array(BINS_S)


class Histogram:
    """Counts by bin, as Prometheus wants them, and their sum in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BINS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: np.ndarray) -> None:
        """Count values, float64[n]."""
        found = np.bincount(np.searchsorted(_EDGES_S, seconds), minlength=len(self.counts))
        self.counts = [before + int(more) for before, more in zip(self.counts, found, strict=True)]
        self.sum_s += float(seconds.sum())


class Statistics:
    """Counters of one version; every method may be called from any thread.

    A run is only noted; who asks for figures, or every so manieth run, counts what was noted since. Sorting each value
    into its bin when it comes would take longer than a small network.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: deque[tuple[int, tuple[float, float, float], tuple[float, ...]]] = deque()
        self._noted_short: deque[tuple[int, float]] = deque()
        self._requests = 0
        self._rows = 0
        self._runs = 0
        self.refused: Counter[Reason] = Counter()
        self.failed_ns = 0
        self._batches: dict[int, list[int]] = {}
        self._last_s = 0.0
        self._latency = Histogram()
        self._stages = {stage: Histogram() for stage in STAGES}

    def ran(self, rows: int, stages_s: tuple[float, float, float], waited_s: tuple[float, ...]) -> None:
        """One run: rows in it, seconds by stage after the queue, and what each request waited before."""
        self._last_s = time.time()
        self._noted.append((rows, stages_s, waited_s))
        if len(self._noted) >= _NOTED:
            with self._lock:
                self._count()

    def ran_short(self, rows: int, took_s: float) -> None:
        """One run of one request that waited for nothing, of which nothing but the network's time is worth a note."""
        self._last_s = time.time()
        self._noted_short.append((rows, took_s))
        if len(self._noted_short) >= _NOTED:
            with self._lock:
                self._count()

    @property
    def requests(self) -> int:
        """Requests that got a result."""
        return self._counted()._requests

    @property
    def rows(self) -> int:
        """Rows of the batch axis in these."""
        return self._counted()._rows

    @property
    def runs(self) -> int:
        """Runs of the network."""
        return self._counted()._runs

    @property
    def batches(self) -> dict[int, list[int]]:
        """By rows that ran together: how often, and nanoseconds."""
        return self._counted()._batches

    @property
    def latency(self) -> Histogram:
        """From arrival to the result."""
        return self._counted()._latency

    @property
    def stages(self) -> dict[str, Histogram]:
        """The same by stage."""
        return self._counted()._stages

    def refuse(self, reason: Reason, seconds: float = 0.0) -> None:
        """One request that got no result."""
        with self._lock:
            self.refused[reason] += 1
            self.failed_ns += round(seconds * 1e9)

    def document(self) -> dict[str, Any]:
        """The figures as the protocol's statistics extension names them, in nanoseconds.

        Source: docs/protocol/extension_statistics.md of triton-inference-server/server.
        """
        with self._lock:
            self._count()
            failed = sum(self.refused.values())
            stages = {
                name: {"count": self._requests, "ns": int(part.sum_s * 1e9)} for name, part in self._stages.items()
            }
            batches = [
                {"batch_size": size, "compute_infer": {"count": count, "ns": ns}}
                for size, (count, ns) in sorted(self._batches.items())
            ]
            return {
                "last_inference": int(self._last_s * 1000),
                "inference_count": self._rows,
                "execution_count": self._runs,
                "inference_stats": {
                    "success": {"count": self._requests, "ns": int(self._latency.sum_s * 1e9)},
                    "fail": {"count": failed, "ns": self.failed_ns},
                    **stages,
                },
                "batch_stats": batches,
            }

    def _counted(self) -> Statistics:
        with self._lock:
            self._count()
        return self

    def _count(self) -> None:
        """Count what was noted; the caller holds the lock."""
        if runs := _taken(self._noted):
            rows, stages, waited = zip(*runs, strict=True)
            stages_s = np.array(stages)
            waited_s = np.fromiter(itertools.chain.from_iterable(waited), np.float64)
            table = np.column_stack([waited_s, np.repeat(stages_s, list(map(len, waited)), axis=0)])
            self._add(rows, stages_s[:, 1], table)
        if short := _taken(self._noted_short):
            rows, took = zip(*short, strict=True)
            table = np.zeros((len(short), len(STAGES)))
            table[:, STAGES.index("compute_infer")] = took
            self._add(rows, np.array(took), table)

    def _add(self, rows: Sequence[int], took_s: np.ndarray, table: np.ndarray) -> None:
        """Add runs, by rows in each and seconds f64[runs] of the network, and their requests' seconds f64[n, stages]."""
        for size, count in Counter(rows).items():
            entry = self._batches.setdefault(size, [0, 0])
            entry[0] += count
            entry[1] += int(took_s[np.array(rows) == size].sum() * 1e9)
        self._runs += len(rows)
        self._rows += sum(rows)
        self._requests += len(table)
        self._latency.add(table.sum(axis=1))
        for histogram, column in zip(self._stages.values(), table.T, strict=True):
            histogram.add(column)


def _taken(noted: deque[Any]) -> list[Any]:
    """All that was noted by now; others may go on noting."""
    return [noted.popleft() for _ in range(len(noted))]
