"""Thinned tensors: every n-th value of the memory, as frameworks' outputs are kept where they would be too large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Thinning:
    """The part of a tensor that is looked at.

    Attributes:
        stride: Every so many values, in the order of the memory; 1 for all.
        places: Index in the whole tensor's memory of each value, i64[1, C, values] where every channel has some (the
            surplus is left out, so that channels have equally many), else i64[values]; None for the whole tensor.
    """

    stride: int = 1
    places: np.ndarray | None = None

    def of(self, whole: np.ndarray) -> np.ndarray:
        """What is looked at of a tensor."""
        return whole if self.places is None else whole.reshape(-1)[self.places]

    def of_stored(self, stored: np.ndarray) -> np.ndarray:
        """The same of the values that were kept, f32[values]."""
        return stored if self.places is None else stored.reshape(-1)[self.places // self.stride]

    def scattered(self, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of `shape` with `seen` at its places and 0 elsewhere."""
        if self.places is None:
            return seen
        whole = np.zeros(shape, seen.dtype)
        whole.reshape(-1)[self.places] = seen
        return whole

    def index(self, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
        """Where in the whole tensor, of `shape`, the value at `index` of what is looked at lies."""
        if self.places is None or not index:
            return index
        return tuple(int(i) for i in np.unravel_index(int(self.places[index]), shape))


WHOLE = Thinning()


def by(stride: int, shape: tuple[int, ...]) -> Thinning:
    """Every `stride`-th value of a tensor of `shape`."""
    places = np.arange(0, int(np.prod(shape)), stride)
    if len(shape) < 2 or shape[0] != 1:
        return Thinning(stride, places)
    channels = places // int(np.prod(shape[2:]))
    counts = np.bincount(channels, minlength=shape[1])
    if not counts.min():
        return Thinning(stride, places)
    firsts = np.cumsum(counts) - counts  # places rise, so that those of a channel follow each other
    return Thinning(stride, places[firsts[:, None] + np.arange(counts.min())][None])


def strides(kept: int, size: int) -> range:
    """Every stride that leaves `kept` of `size` values."""
    if kept < 2:
        return range(size, size + 1) if kept else range(0)
    # ceil(size / stride) == kept
    return range(-(-size // kept), (size - 1) // (kept - 1) + 1)
