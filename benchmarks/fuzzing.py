"""What the fuzz benchmarks share: loads of mutated files, counted by what became of them."""

from __future__ import annotations

import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import edgewright as ew


@dataclass
class Outcome:
    """What became of the mutations.

    Attributes:
        results: Error code, or `loaded`, and how often.
        most_bytes: The most memory that Python objects of one load took.
        longest_s: The longest load.
    """

    results: Counter[str] = field(default_factory=Counter)
    most_bytes: int = 0
    longest_s: float = 0.0

    def __str__(self) -> str:
        tally = ", ".join(f"{result} {count}" for result, count in self.results.most_common())
        return f"{tally}; one load took at most {self.most_bytes / 1e6:.1f} MB and {self.longest_s:.2f} s"


def load_all(load: Callable[[int], ew.Model], count: int, *, limit_bytes: int, files: Path) -> Outcome:
    """`load(number)` for every number below `count`.

    Any exception but an EdgewrightError stops it.

    Args:
        load: Mutates and loads.
        count: How often.
        limit_bytes: Memory that one load may take.
        files: Where the mutated files lie, for the message.

    Raises:
        AssertionError: A load took more memory.
    """
    outcome = Outcome()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ew.EdgewrightWarning)
        tracemalloc.start()
        try:
            for number in range(count):
                _load(load, number, outcome, files)
                assert outcome.most_bytes < limit_bytes, (
                    f"{outcome.most_bytes} bytes were taken for what lies in {files}"
                )
        finally:
            tracemalloc.stop()
    return outcome


def _load(load: Callable[[int], ew.Model], number: int, outcome: Outcome, files: Path) -> None:
    tracemalloc.reset_peak()
    start = time.perf_counter()
    try:
        load(number).to_proto()
        outcome.results["loaded"] += 1
    except ew.EdgewrightError as problem:
        outcome.results[problem.code] += 1
    except Exception:
        print(f"mutation {number} is left in {files}", file=sys.stderr)
        raise
    outcome.longest_s = max(outcome.longest_s, time.perf_counter() - start)
    outcome.most_bytes = max(outcome.most_bytes, tracemalloc.get_traced_memory()[1])
