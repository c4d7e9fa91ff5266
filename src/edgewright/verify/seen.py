"""What verify keeps of the samples it has run: results, labels and the worst errors, never the outputs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewright.records import TensorError


@dataclass
class Seen:
    """What is kept of all samples: results, labels and the worst errors."""

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    errors: dict[str, TensorError] = field(default_factory=dict)
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
