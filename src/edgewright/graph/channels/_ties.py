"""Ties: which positions along tensors' axes have to be removed together, and which have to stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Role = Literal["made", "read", "along"]
Ids = np.ndarray  # i64[n], one number for each index along an axis; equal or tied numbers are one channel


@dataclass(frozen=True)
class Use:
    """A constant's axis, as one node reads it.

    Attributes:
        node: First output of the node, by name.
        index: Which of the node's inputs.
        tensor: Name of the constant.
        axis: Axis of the constant.
        ids: What its indices belong to.
        role: What the node does with the axis.
    """

    node: str
    index: int
    tensor: str
    axis: int
    ids: Ids
    role: Role


class Ties:
    """A union-find over numbers that stand for positions, with the reasons why some must stay.

    Attributes:
        labels: By tensor name and axis, the numbers of what is computed from channels that layers make.
        uses: Axes of constants that go with them, by node, input and axis.
        frozen: Numbers that must stay, each array with its reason, in the order in which they were found.
        whole: Constants that are not copied where their readers disagree: by name and axis, who reads them how.
        makers: Layers that make channels, each by its output's name, with the numbers that its weights have.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int64)
        self._count = 0
        self.labels: dict[str, dict[int, Ids]] = {}
        self.uses: dict[tuple[str, int, int], Use] = {}
        self.frozen: list[tuple[Ids, str]] = []
        self.whole: dict[tuple[str, int], list[tuple[tuple[str, int], Ids]]] = {}
        self.makers: list[tuple[str, Ids]] = []

    @property
    def count(self) -> int:
        """Numbers given so far."""
        return self._count

    def fresh(self, size: int) -> Ids:
        """New numbers, tied to nothing."""
        ids = np.arange(self._count, self._count + size)
        self._count += size
        while self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
        self._parent[ids] = ids
        return ids

    def roots(self, ids: Ids) -> Ids:
        """One number for each class of tied numbers; the same shape as `ids`."""
        found: Ids = self._parent[ids]
        while True:
            above: Ids = self._parent[found]
            if (above == found).all():
                self._parent[ids] = found
                return found
            found = above

    def tie(self, first: Ids, second: Ids) -> None:
        """Remove what is at one place of `first` only together with what is at that place of `second`."""
        assert first.shape == second.shape
        one, two = self.roots(first).ravel(), self.roots(second).ravel()
        differing = one != two
        for a, b in zip(one[differing].tolist(), two[differing].tolist(), strict=True):
            root, other = self._root(a), self._root(b)
            # The smaller number leads, so that a class is known by who made its channels first.
            low, high = (root, other) if root < other else (other, root)
            self._parent[high] = low

    def _root(self, number: int) -> int:
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = int(parent[number])
        return number

    def freeze(self, ids: Ids, reason: str) -> None:
        """These must stay."""
        if ids.size:
            self.frozen.append((np.unique(ids), reason))

    def positions(self) -> Iterator[tuple[str, int, Ids, Role, Use | None]]:
        """All that is labelled: tensor, axis, numbers, role, and for a constant the use."""
        for tensor, axes in self.labels.items():
            for axis, ids in axes.items():
                yield tensor, axis, ids, "along", None
        for use in self.uses.values():
            yield use.tensor, use.axis, use.ids, use.role, use
