"""What a version of a model has done: counts, nanoseconds by stage, batch sizes, histograms."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from typing import Any

from edgewright.serve.core.jobs import Reason

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
#: Upper ends of the latency histograms' bins, in seconds.
BINS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts by bin, as Prometheus wants them, and their sum in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BINS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(BINS_S, seconds)] += 1
        self.sum_s += seconds


class Statistics:
    """Counters of one version; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.rows = 0
        self.runs = 0
        self.refused: Counter[Reason] = Counter()
        self.failed_ns = 0
        self.batches: dict[int, list[int]] = {}
        self.last_ms = 0
        self.latency = Histogram()
        self.stages = {stage: Histogram() for stage in STAGES}

    def ran(self, batch_rows: int, stages_s: tuple[float, float, float], requests: list[tuple[int, float]]) -> None:
        """One run.

        Args:
            batch_rows: Rows that ran together.
            stages_s: Seconds of preparing, of the run itself and of taking the answers apart.
            requests: For each request its rows and the seconds that it waited.
        """
        with self._lock:
            self.runs += 1
            self.last_ms = time.time_ns() // 1_000_000
            entry = self.batches.setdefault(batch_rows, [0, 0])
            entry[0] += 1
            entry[1] += int(stages_s[1] * 1e9)
            for rows, waited_s in requests:
                self.requests += 1
                self.rows += rows
                self.latency.add(waited_s + sum(stages_s))
                for histogram, seconds in zip(self.stages.values(), (waited_s, *stages_s), strict=True):
                    histogram.add(seconds)

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
            failed = sum(self.refused.values())
            stages = {name: {"count": self.requests, "ns": int(part.sum_s * 1e9)} for name, part in self.stages.items()}
            batches = [
                {"batch_size": size, "compute_infer": {"count": count, "ns": ns}}
                for size, (count, ns) in sorted(self.batches.items())
            ]
            return {
                "last_inference": self.last_ms,
                "inference_count": self.rows,
                "execution_count": self.runs,
                "inference_stats": {
                    "success": {"count": self.requests, "ns": int(self.latency.sum_s * 1e9)},
                    "fail": {"count": failed, "ns": self.failed_ns},
                    **stages,
                },
                "batch_stats": batches,
            }
