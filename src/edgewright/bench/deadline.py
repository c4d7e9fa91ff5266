"""Deadline: how much of a budget in minutes is spent."""

from __future__ import annotations

import time


class Deadline:
    """A budget that runs from the moment it is made.

    Attributes:
        minutes: The budget.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self._start) / 60

    @property
    def left(self) -> float:
        """Minutes that are left, at least 0."""
        return max(self.minutes - self.spent, 0.0)

    def eta(self, done: int, total: int) -> float:
        """Minutes until `total` things are done, by the pace so far; no more than what is left."""
        return min(self.spent / done * (total - done), self.left) if done else self.left
