"""Channel map: which channels of a tensor are left of the original's, as a step of the history records it.

Tensors pair by name; one that was pruned holds the original's channels `kept` along `axis`, in their order. A history
stays small because tensors that lost the same channels share one line, whose channels are the bits of one number:

    {"axis": 1, "size": 8, "kept": "f1", "tensors": ["a", "b"]}     channels 0, 4, 5, 6 and 7 of 8
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
    """The channels of one axis of a tensor that are left.

    Attributes:
        axis: The axis, 0 or more.
        indices: Channels of the original in rising order, i64[C].
    """

    axis: int
    indices: np.ndarray

    def take(self, array: np.ndarray) -> np.ndarray:
        """The part of the original's tensor that is left."""
        return np.take(array, self.indices, axis=self.axis)


def encode(kept: Mapping[str, tuple[int, int, Sequence[int]]]) -> list[dict[str, Any]]:
    """JSON-ready lines of a map tensor -> (axis, channels before, channels that are left)."""
    lines: dict[tuple[int, int, str], list[str]] = {}
    for name, (axis, size, channels) in kept.items():
        bits = sum(1 << int(channel) for channel in channels)
        lines.setdefault((axis, size, f"{bits:x}"), []).append(name)
    return [{"axis": axis, "size": size, "kept": bits, "tensors": names} for (axis, size, bits), names in lines.items()]


def decode(steps: Iterable[Mapping[str, Any]]) -> dict[str, Kept]:
    """The map from the original to the network after all steps, of their statistics in order.

    Tensors whose channels along two axes were removed are left out: no single axis pairs them.
    """
    found: dict[str, Kept] = {}
    mixed: set[str] = set()
    for stats in steps:
        for line in stats.get(KEY, ()):
            bits = int(line["kept"], 16)
            indices = np.array([channel for channel in range(line["size"]) if bits >> channel & 1], np.int64)
            for name in line["tensors"]:
                before = found.get(name)
                if before is not None and before.axis != line["axis"]:
                    mixed.add(name)
                found[name] = Kept(line["axis"], indices if before is None else before.indices[indices])
    return {name: kept for name, kept in found.items() if name not in mixed}
