"""Grids: positions of one axis that a Reshape has laid over several, as long as nothing asks along which of them they go.

A channel shuffle, or queries, keys and values in one projection, split an axis only to put its positions elsewhere. Until an
operator works along one of the new axes no position is tied to another. Where channels then go that leave no such grid,
what the moves gave is taken from the source by its places instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """Where a value's positions are in an earlier one.

    Attributes:
        source: Name of the earlier value.
        axis: Its axis whose positions were moved.
        places: Indices along that axis, i64 with one axis for each of the value's that they are laid over, in order.
        layout: For each axis of the value the source's that it is, or -1 for the next of `places`.
    """

    source: str
    axis: int
    places: np.ndarray
    layout: tuple[int, ...]

    @property
    def laid(self) -> list[int]:
        """Axes of the value that the positions are laid over."""
        return [axis for axis, origin in enumerate(self.layout) if origin < 0]

    @property
    def long(self) -> list[int]:
        """Those of more than one position."""
        return [axis for axis, size in zip(self.laid, self.places.shape, strict=True) if size > 1]

    def transposed(self, order: Sequence[int]) -> Grid:
        """The value's axes in another order."""
        laid = self.laid
        places = self.places.transpose([laid.index(axis) for axis in order if axis in laid])
        return replace(self, places=places, layout=tuple(self.layout[axis] for axis in order))

    def taken(self, axis: int, chosen: np.ndarray) -> Grid | None:
        """Some indices along one of the laid axes, which a single number drops; None for another axis."""
        laid = self.laid
        if axis not in laid:
            return None
        layout = self.layout if chosen.ndim else self.layout[:axis] + self.layout[axis + 1 :]
        return replace(self, places=self.places.take(chosen, laid.index(axis)), layout=layout)

    def squeezed(self, axes: Sequence[int]) -> Grid:
        """Without axes of one position."""
        laid = self.laid
        places = self.places.squeeze(tuple(laid.index(axis) for axis in axes if axis in laid))
        return replace(self, places=places, layout=tuple(o for axis, o in enumerate(self.layout) if axis not in axes))

    def unsqueezed(self, axes: Sequence[int]) -> Grid:
        """With new axes of one position, which count as laid."""
        origins = iter(self.layout)
        rank = len(self.layout) + len(axes)
        layout = tuple(-1 if axis in axes else next(origins) for axis in range(rank))
        laid = [axis for axis, origin in enumerate(layout) if origin < 0]
        places = np.expand_dims(self.places, tuple(laid.index(axis) for axis in axes))
        return replace(self, places=places, layout=layout)

    def reshaped(self, before: Sizes, after: Sizes) -> Grid | None:
        """The laid axes divided otherwise, the others as they were; None for anything else."""
        layout: list[int] = []
        sizes: list[int] = []
        for old, new in blocks(before, after):
            if any(self.layout[axis] < 0 for axis in old):
                mixed = [axis for axis in old if self.layout[axis] >= 0 and before[axis] > 1]
                if mixed or math.prod(before[axis] for axis in old) != math.prod(after[axis] for axis in new):
                    return None
                layout += [-1] * len(new)
                sizes += [after[axis] for axis in new]
            elif len(old) == len(new) == 1:
                layout.append(self.layout[old[0]])
            else:
                return None
        return replace(self, places=self.places.reshape(sizes), layout=tuple(layout)) if sizes else None

    def fits(self, shape: Sizes, source: Sizes) -> bool:
        """True where the value has this shape if the source has that one."""
        laid = iter(self.places.shape)
        sizes = tuple(next(laid) if origin < 0 else source[origin] for origin in self.layout)
        return sizes == shape

    def target(self, source: Sizes, other: Sizes | None, laid: Sizes) -> list[int] | None:
        """Sizes that lay a source, reduced to `laid` positions, out: the source's axes in order, `laid` for its own.

        0 copies a size and -1 is the one that is left over; None where more than one would be.
        """
        sizes: list[int] = []
        for axis, size in enumerate(source):
            if axis == self.axis:
                sizes += laid
            elif axis in self.layout:
                known = other is None or other[axis] == size
                sizes.append(0 if axis == len(sizes) else size if known else -1)
        return sizes if sizes.count(-1) <= 1 else None

    def order(self, rank: int) -> list[int]:
        """Where each axis of the value is among those of `target`, for a source of `rank` axes."""
        laid = [("laid", number) for number in range(self.places.ndim)]
        axes: list[tuple[str, int]] = []
        for axis in range(rank):
            axes += laid if axis == self.axis else [("own", axis)] if axis in self.layout else []
        following = iter(laid)
        return [axes.index(next(following) if origin < 0 else ("own", origin)) for origin in self.layout]


def whole(source: str, axis: int, shape: Sizes) -> Grid:
    """The grid of a value itself."""
    return Grid(source, axis, np.arange(shape[axis]), tuple(-1 if own == axis else own for own in range(len(shape))))


def blocks(before: Sizes, after: Sizes) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of axes with equal numbers of positions; axes of one position at the end join the last run."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        old, new = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left *= before[i]
                old.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            else:
                break
        found.append((old, new))
    if found:
        found[-1][0].extend(range(i, len(before)))
        found[-1][1].extend(range(j, len(after)))
    return found
