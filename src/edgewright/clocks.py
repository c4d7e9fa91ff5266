"""What stands between a stopwatch, which measures whole networks, and the clock that a pass sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from edgewright.contracts import Role, Sample, SampleSource, Stopwatch, TimeRatio, evenly
from edgewright.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

#: Ranges that only have to be finite come from so many samples.
_FEW = 4


class Few:
    """Calibrate samples in memory, and none of any other role."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    @classmethod
    def of(cls, source: SampleSource) -> Few:
        """The first few calibrate samples of a source."""
        return cls(list(islice(source.role("calibrate"), _FEW)))

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    @property
    def groups(self) -> tuple[str, ...]:
        """Group hashes, each once."""
        return tuple(dict.fromkeys(sample.group for sample in self._samples))

    def role(self, *roles: Role) -> SampleSource:
        """Itself for the role calibrate, else nothing."""
        return self if "calibrate" in roles else Few(())

    def spread(self, most: int) -> Few:
        """At most so many of them, evenly spaced."""
        return Few([self._samples[at] for at in evenly(len(self), most)])


class FollowingClock:
    """`contracts.Clock`: measures networks as they are once `finish` has done what follows in the recipe."""

    def __init__(self, stopwatch: Stopwatch, finish: Callable[[ir.Model], Model], label: str) -> None:
        self.label = label
        self._stopwatch, self._finish = stopwatch, finish

    def ratios(self, ir_model: ir.Model, variants: Mapping[str, ir.Model]) -> dict[str, TimeRatio]:
        """Time of each variant over that of `ir_model`."""
        finished = {name: self._finish(variant.clone()) for name, variant in variants.items()}
        return self._stopwatch.ratios(self._finish(ir_model.clone()), finished)
