"""BenchPlan: how long to measure, and when it is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from edgewright.errors import EdgewrightError

_AT_LEAST = {"min_runs": 1, "max_runs": 1, "warmup": 0, "seed": 0, "max_samples": 1}


@dataclass(frozen=True)
class BenchPlan:
    """How a benchmark is run; every bundle of a call is measured by the same plan.

    Attributes:
        threads: Thread counts, each measured as an interleaved group of its own.
        min_runs: Fewest timed runs of each bundle, unless `max_seconds` is over before.
        max_runs: Most timed runs of each bundle.
        min_seconds: Fewest seconds of timed runs, unless there are `max_runs` before: disturbances outlast runs.
        max_seconds: Seconds of timed runs of each bundle at each thread count; at least one run is always made.
        half_width: Enough runs are made when the bootstrap half-width of the median is below this part of the median.
        rough_half_width: The same for a bundle that is out of the race (see `bench`).
        warmup: Runs of each bundle thrown away before its first timed one, fewer where they take over a second.
        seed: Seed of the order, the bootstrap and of random inputs.
        max_samples: Different inputs used in rotation.
        pre_post: Time file -> arrays and outputs -> result too, apart from the network.
        roofline: Measure this machine's float32 peak and memory bandwidth too, and say how near each bundle comes.
        timeout_seconds: A worker that does not answer for so long is killed.
    """

    threads: tuple[int, ...] = (1,)
    min_runs: int = 30
    max_runs: int = 10_000
    min_seconds: float = 1.0
    max_seconds: float = 10.0
    half_width: float = 0.02
    rough_half_width: float = 0.10
    warmup: int = 3
    seed: int = 0
    max_samples: int = 8
    pre_post: bool = True
    roofline: bool = False
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not self.threads or len(set(self.threads)) != len(self.threads) or min(self.threads) < 1:
            raise EdgewrightError("E103", f"`threads` is {self.threads}, but must be different counts of at least 1")
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise EdgewrightError("E103", f"`{name}` is {getattr(self, name)}, but must be at least {least}")
        if self.min_runs > self.max_runs:
            raise EdgewrightError("E103", f"`min_runs` is {self.min_runs}, but `max_runs` is only {self.max_runs}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not (math.isfinite(value) and value > 0):
                raise EdgewrightError("E103", f"`{field.name}` is {value}, but must be a number above 0")
