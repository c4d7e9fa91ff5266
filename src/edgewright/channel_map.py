"""Channel map: which positions of a tensor are left of the original's, as a step of the history records it.

Tensors pair by name; one that was pruned holds the original's channels `kept` along `axis`, in their order. A history
stays small because tensors that lost the same channels share one line, whose channels are the bits of one number:

    {"axis": 1, "size": 8, "kept": "f1", "tensors": ["a", "b"]}     channels 0, 4, 5, 6 and 7 of 8

One that lost positions along several axes is in a line for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Where a step's statistics hold its channel map.
KEY = "channel_map"


@dataclass(frozen=True, eq=False)
class Kept:
    """The positions of a tensor that are left.

    Attributes:
        places: By axis, 0 or more, those of the original in rising order, i64[C]. Axes that lost none are not in it.
    """

    places: Mapping[int, np.ndarray]

    def take(self, array: np.ndarray) -> np.ndarray:
        """The part of the original's tensor that is left."""
        for axis, indices in self.places.items():
            array = np.take(array, indices, axis=axis)
        return array

    def sizes(self, shape: Sequence[Any]) -> list[Any]:
        """What is left of the original's sizes."""
        return [len(self.places[axis]) if axis in self.places else size for axis, size in enumerate(shape)]


def encode(kept: Mapping[str, Mapping[int, tuple[int, Sequence[int]]]]) -> list[dict[str, Any]]:
    """JSON-ready lines of a map tensor -> axis -> (channels before, channels that are left)."""
    lines: dict[tuple[int, int, str], list[str]] = {}
    for name, axes in kept.items():
        for axis, (size, channels) in axes.items():
            bits = sum(1 << int(channel) for channel in channels)
            lines.setdefault((axis, size, f"{bits:x}"), []).append(name)
    return [{"axis": axis, "size": size, "kept": bits, "tensors": names} for (axis, size, bits), names in lines.items()]


def decode(steps: Iterable[Mapping[str, Any]]) -> dict[str, Kept]:
    """The map from the original to the network after all steps, of their statistics in order."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for stats in steps:
        for line in stats.get(KEY, ()):
            bits = int(line["kept"], 16)
            indices = np.array([channel for channel in range(line["size"]) if bits >> channel & 1], np.int64)
            for name in line["tensors"]:
                axes = found.setdefault(name, {})
                before = axes.get(line["axis"])
                axes[line["axis"]] = indices if before is None else before[indices]
    return {name: Kept(axes) for name, axes in found.items()}
