"""Layouts: in which order a file's tensor holds the axes of an ONNX tensor.

An order lists ONNX axes by their place in the file: (0, 2, 3, 1) is NHWC. Orders belong to values, so that an ONNX
Transpose costs nothing until somebody needs another order. Sizes are ints; those that grow with the batch are `Batch`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)
#: Stands for the unknown batch in products of sizes: no size of a network has it as a factor.
_UNKNOWN = 1_000_003


class Batch(int):
    """A size that is this number for batch 1 and grows in proportion."""


Sizes = tuple[int, ...]


def identity(rank: int) -> Order:
    """The order of ONNX itself."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """N, then places, then C."""
    return (0, *range(2, rank), 1)


def is_one(size: int) -> bool:
    """True for a size that is 1 whatever the batch."""
    return size == 1 and not isinstance(size, Batch)


def arranged(sizes: Sequence[int], order: Order) -> Sizes:
    """Sizes as they lie in the file."""
    return tuple(sizes[axis] for axis in order)


def signature(sizes: Sequence[int]) -> tuple[int, ...] | None:
    """Sizes with -1 for those that grow; None where none do."""
    if not any(isinstance(size, Batch) for size in sizes):
        return None
    return tuple(-1 if isinstance(size, Batch) else size for size in sizes)


def count(sizes: Sequence[int]) -> int:
    """Elements, for batch 1."""
    return math.prod(sizes)


def essential(order: Order, sizes: Sequence[int]) -> Order:
    """The order of the axes that are longer than 1: where it is equal, the bytes are."""
    return tuple(axis for axis in order if not is_one(sizes[axis]))


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order after `axes` are gone and the others are numbered anew."""
    left = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(left.index(axis) for axis in order if axis not in axes)


def moved_last(order: Order, axis: int) -> Order:
    """The order with `axis` at the end, all others as they are."""
    return (*(other for other in order if other != axis), axis)


@dataclass(frozen=True)
class Regrouping:
    """A Reshape done in the file.

    Attributes:
        before: The order that the input must have.
        after: The order that the output then has.
    """

    before: Order
    after: Order


def regroup(sizes: Sizes, order: Order, made: Sizes) -> Regrouping:
    """How a tensor with `sizes` in `order` is reshaped to `made` with the least change of order.

    A Reshape splits and merges neighbouring axes. Where the file holds the axes that are merged side by side, its own
    axes can be split and merged as they lie.
    """
    groups = _groups(sizes, made)
    place = {axis: number for number, axis in enumerate(essential(order, sizes))}
    ranked = sorted(groups, key=lambda group: min((place[axis] for axis in group[0]), default=-1))
    merged = iter([axis for group in ranked for axis in group[0]])
    before = tuple(axis if is_one(sizes[axis]) else next(merged) for axis in order)
    long = [axis for group in ranked for axis in group[1]]
    return Regrouping(before, _with_ones(long, made))


def _groups(sizes: Sizes, made: Sizes) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of axes (of the input, of the output) that hold the same elements; axes of size 1 in none."""
    first = [axis for axis, size in enumerate(sizes) if not is_one(size)]
    second = [axis for axis, size in enumerate(made) if not is_one(size)]
    groups: list[tuple[list[int], list[int]]] = []
    while first or second:
        group: tuple[list[int], list[int]] = ([], [])
        left = right = 1
        while (left != right or not group[0]) and (first or second):
            if first and (left <= right or not second):
                group[0].append(first.pop(0))
                left *= _weight(sizes[group[0][-1]])
            else:
                group[1].append(second.pop(0))
                right *= _weight(made[group[1][-1]])
        groups.append(group)
    return groups


def _weight(size: int) -> int:
    return size * _UNKNOWN if isinstance(size, Batch) else size


def _with_ones(long: Sequence[int], sizes: Sizes) -> Order:
    """An order of all axes in which the long ones come as given; NHWC or ONNX's own where that is possible."""
    rank = len(sizes)
    for candidate in ((NHWC,) if rank == 4 else ()) + (identity(rank), channels_last(rank) if rank > 1 else ()):
        if len(candidate) == rank and essential(candidate, sizes) == tuple(long):
            return candidate
    order = list(long)
    for axis in range(rank):
        if is_one(sizes[axis]):
            order.insert(order.index(axis - 1) + 1 if axis and axis - 1 in order else 0, axis)
    return tuple(order)
