"""How many channels each group loses, so that the network reaches its target at the least predicted error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

#: Of one axis: group -> share of the axis that its channels take; the rest belongs to no group.
Axis = Mapping[str, float]
Term = tuple[float, Sequence[Axis]]


class Cost(Protocol):
    """What the network costs at the widths of its groups."""

    def at(self, left: Mapping[str, float]) -> float:
        """The cost with these shares, 0..1, of each group's channels left; 1 where not said."""

    def of(self, group: str, left: Mapping[str, float]) -> float:
        """Of that cost the part that changes with this group: what it saves is a difference of these."""


@dataclass(frozen=True, eq=False)
class Costs:
    """What the network costs, as a sum of terms that shrink with the widths of groups.

    Attributes:
        terms: (cost, axes that it grows with).
    """

    terms: Sequence[Term]

    def at(self, left: Mapping[str, float]) -> float:
        """The cost with these shares, 0..1, of each group's channels left; 1 where not said."""
        return _sum(self.terms, left)

    def of(self, group: str, left: Mapping[str, float]) -> float:
        """Of that cost the part that changes with this group."""
        return _sum(self._terms_of.get(group, ()), left)

    @cached_property
    def _terms_of(self) -> Mapping[str, list[Term]]:
        found: dict[str, list[Term]] = {}
        for term in self.terms:
            for group in {group for axis in term[1] for group in axis}:
                found.setdefault(group, []).append(term)
        return found


def _sum(terms: Sequence[Term], left: Mapping[str, float]) -> float:
    total = 0.0
    for cost, axes in terms:
        shrunk = cost
        for axis in axes:
            shrunk *= 1 - sum(share * (1 - left.get(group, 1.0)) for group, share in axis.items())
        total += shrunk
    return total


@dataclass(frozen=True)
class Room:
    """What a group may lose.

    Attributes:
        width: Its channels.
        multiple: What is left is a multiple of this many, or all.
        least: Channels that must stay.
    """

    width: int
    multiple: int
    least: int

    @property
    def choices(self) -> tuple[int, ...]:
        """Numbers of channels that it may lose, rising, the first 0."""
        left = range(self.width // self.multiple * self.multiple, self.least - 1, -self.multiple)
        return (0, *(self.width - kept for kept in left if kept < self.width))

    def nearest(self, share: float) -> int:
        """The choice nearest to losing this share of the channels."""
        return min(self.choices, key=lambda lost: (abs(lost - share * self.width), lost))


def uniform(rooms: Mapping[str, Room], costs: Cost, target: float) -> dict[str, int]:
    """Channels lost by each group where all lose about the same share, the least that reaches the cost `target`."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        lost = {name: room.nearest(middle) for name, room in rooms.items()}
        if costs.at(shares(rooms, lost)) <= target:
            high = middle
        else:
            low = middle
    return {name: room.nearest(high) for name, room in rooms.items()}


def by_error(rooms: Mapping[str, Room], costs: Cost, target: float, errors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Channels lost by each group, always where the least error is added for what is saved.

    Args:
        rooms: What groups may lose.
        costs: What the network costs.
        target: The cost to reach.
        errors: By group, predicted error after n channels were lost, f64[n + 1], never falling.
    """
    lost = dict.fromkeys(rooms, 0)
    now = costs.at(shares(rooms, lost))
    while now > target:
        best: tuple[float, str, int] | None = None
        left = shares(rooms, lost)
        for name, room in rooms.items():
            curve, part = errors[name], costs.of(name, left)
            for choice in room.choices:
                if not lost[name] < choice < len(curve):
                    continue
                saved = part - costs.of(name, {**left, name: 1 - choice / room.width})
                if saved <= 0:
                    continue
                price = float(curve[choice] - curve[lost[name]]) / min(
                    saved, now - target
                )  # more than asked is worth nothing
                if best is None or price < best[0]:
                    best = (price, name, choice)
        if best is None:
            break
        lost[best[1]] = best[2]
        now = costs.at(shares(rooms, lost))
    return lost


def shares(rooms: Mapping[str, Room], lost: Mapping[str, int]) -> dict[str, float]:
    """Share of each group's channels that is left."""
    return {name: 1 - lost[name] / room.width for name, room in rooms.items()}
