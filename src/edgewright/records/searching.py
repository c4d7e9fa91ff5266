"""Records of a search: every point that was tried, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.environment import Record


@dataclass(frozen=True, kw_only=True)
class SearchPoint(Record):
    """One network that a search made and measured.

    Attributes:
        name: RECIPE-RUNTIME, as a candidate of the deployment would be called.
        recipe: The recipe that makes it.
        runtime: The runtime.
        parent: The point that it was made from, and must beat; "" for where the search began.
        asked: Share of the parent's time that was asked for; None where none was.
        relative: Its time over that of the unmodified network on the same runtime, (ratio, low, high).
        latency_ms: The same in milliseconds of the unmodified network's median.
        agreement: With the original on the select samples, 0..1.
        drop: Of the task's metric there, where labels decide.
        within: True where the select samples find it within the budget.
        size_bytes: Of the runtime's files.
        macs: Multiply-adds of one run, where known.
        file: The recipe as a file in the run's folder; "" for a built-in one.
    """

    name: str
    recipe: str
    runtime: str
    parent: str
    asked: float | None
    relative: tuple[float, float, float]
    latency_ms: float
    agreement: float
    drop: float | None
    within: bool
    size_bytes: int
    macs: int | None
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Frontier(Record):
    """What a search found: accuracy against latency, size and multiply-adds.

    Attributes:
        points: Everything that was tried, in this order.
        required: Agreement that the select samples asked for, 0..1.
        max_drop: Largest drop of the metric, where labels decide.
        samples: Select samples.
        minutes: What the search took.
        notes: What it found out, and why it stopped, in sentences.
    """

    points: tuple[SearchPoint, ...]
    required: float
    max_drop: float | None
    samples: int
    minutes: float
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[SearchPoint, ...]:
        """Points that no other beats in both agreement and latency, by rising latency (the Pareto line)."""
        found: list[SearchPoint] = []
        for point in sorted(self.points, key=lambda point: (point.latency_ms, -point.agreement)):
            if not found or point.agreement > found[-1].agreement:
                found.append(point)
        return tuple(found)
