"""What verify keeps of the samples it has run: results, labels and the worst errors, never the outputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewright.records import TensorError


@dataclass
class Distances:
    """How far one output is from the original's, sample by sample, and how large it is there (L2 norms)."""

    apart: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def note(self, sample_id: str, error: TensorError, reference: np.ndarray, other: np.ndarray | None) -> None:
        """Add one sample, of which `error` is the whole comparison."""
        size = apart = error.rel_l2
        if reference.dtype.kind in "biuf" and other is not None and math.isfinite(error.max_abs):
            finite = np.isfinite(reference)
            x, y = (np.asarray(array[finite], np.float64) for array in (reference, other))
            size, apart = float(np.linalg.norm(x)), float(np.linalg.norm(y - x))
        self.apart.append(apart)
        self.size.append(size)
        self.ids.append(sample_id)

    @property
    def worst(self) -> tuple[float, str]:
        """The largest distance and its sample, each against the larger of its own size and the output's usual one.

        A mask that marks nothing in a photo is 1e-7 everywhere, and half of that is rounding: what counts is how large
        the output is where it says something. The usual size is the root of the mean square over the samples.
        """
        sizes, apart = np.asarray(self.size), np.asarray(self.apart)
        with np.errstate(all="ignore"):
            usual = math.sqrt(float(np.mean(np.square(sizes))))
            found = np.where(apart == 0, 0.0, apart / np.maximum(sizes, usual))
        found = np.where(np.isnan(found), math.inf, found)
        index = int(np.argmax(found))
        return float(found[index]), self.ids[index]


@dataclass
class Seen:
    """What is kept of all samples: results, labels and the worst errors.

    `decided` are the outputs of the bundle that hold classes in place of the original's scores, as `original.decided`.
    """

    decided: Mapping[str, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    errors: dict[str, TensorError] = field(default_factory=dict)
    distances: dict[str, Distances] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)  # samples for which the original itself is not finite
    count: int = 0

    @property
    def comparable(self) -> bool:
        """False where an output is missing or of another shape: such a bundle has no results."""
        return not any(error.problem for error in self.errors.values())

    @functools.cached_property
    def by_source(self) -> list[np.ndarray]:
        """Indices of the samples of each source. What comes from one source is alike, so sources are what counts:
        64 crops of one photo say hardly more than the photo."""
        found: dict[str, list[int]] = {}
        for index, group in enumerate(self.groups):
            found.setdefault(group, []).append(index)
        return [np.array(indices) for indices in found.values()]

    @property
    def size(self) -> str:
        """How much was seen, in words: "300 samples", or "192 samples of 3 sources"."""
        text = f"{self.count} sample" if self.count == 1 else f"{self.count} samples"
        sources = len(self.by_source)
        return text if not sources or sources == self.count else f"{text} of {sources} source" + "s" * (sources != 1)
