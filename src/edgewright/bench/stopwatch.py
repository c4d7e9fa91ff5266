"""Stopwatch: time ratios of networks and bundles, measured side by side in short rounds on the runtime that counts.

    watch = Stopwatch(Target("onnxruntime"), samples)
    watch.ratios(model, {"pruned": small})["pruned"].value      # 0.8: it takes four fifths of the time

Ratios need less than milliseconds: what disturbs the machine for long disturbs all of a round alike and cancels. What
disturbs it for a moment only lengthens runs, so the fastest run of each round stands for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright import registry
from edgewright.bench import bench, statistics
from edgewright.bench.plan import BenchPlan
from edgewright.bundle import Bundle
from edgewright.contracts import Role, Sample, SampleSource, TimeRatio
from edgewright.convert import convert
from edgewright.model import Model
from edgewright.records import BenchResult
from edgewright.target import Target, host_features

#: Networks that are measured at once, beside the one that they are compared with: each is a process.
_AT_ONCE = 6
#: Seconds of timed runs of each network, and inputs in rotation.
_SECONDS, _INPUTS = 1.5, 4
#: As sharp as seconds allow: the interval of a ratio decides, not that of a median.
_HALF_WIDTH = 0.001


@dataclass(frozen=True)
class Posing:
    """Samples that may be read while compressing, in the role that `bench` reads."""

    source: SampleSource

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.source)

    @property
    def groups(self) -> tuple[str, ...]:
        """Group hashes, each once."""
        return self.source.groups

    def role(self, *roles: Role) -> Posing:
        """Itself, whatever is asked for."""
        return self

    def spread(self, most: int) -> Posing:
        """At most so many of them, evenly spaced."""
        return Posing(self.source.spread(most))


class Stopwatch:
    """`contracts.Stopwatch` for one target: converts with the shipping options and measures in worker processes.

    Attributes:
        target: Runtime and CPU.
        label: What is measured, where and how.
    """

    def __init__(
        self,
        target: Target,
        samples: SampleSource | None,
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        seconds: float = _SECONDS,
        seed: int = 0,
    ) -> None:
        self.target, self._options = target, dict(options or {})
        usable = None if samples is None else samples.role("calibrate", "select")
        self._samples = Posing(usable) if usable is not None and len(usable) else None
        self._plan = BenchPlan(
            threads=(threads,), max_seconds=seconds, half_width=_HALF_WIDTH, rough_half_width=_HALF_WIDTH, seed=seed,
            max_samples=_INPUTS, pre_post=False,
        )  # fmt: skip
        version = registry.get("runtimes", target.runtime).version()
        self.label = f"{target.runtime} {version} {target.cpu} {threads} {sorted(self._options.items())} {seconds} s"

    @staticmethod
    def can_measure(target: Target) -> bool:
        """True where this machine has what the target's CPU promises."""
        return target.cpu == "host" or set(target.features) <= set(host_features())

    def ratios(self, model: Model, variants: Mapping[str, Model]) -> dict[str, TimeRatio]:
        """Time of each variant over that of `model`, with 95 % intervals over common rounds.

        Raises:
            EdgewrightError: E210 where the runtime cannot run a network, E401 for a worker that died.
        """
        found: dict[str, TimeRatio] = {}
        names = list(variants)
        with tempfile.TemporaryDirectory(prefix="edgewright-times-") as folder:
            base = self._convert(model, Path(folder) / "base")
            for start in range(0, len(names), _AT_ONCE):
                chunk = names[start : start + _AT_ONCE]
                made = {
                    name: self._convert(variants[name], Path(folder) / str(start + number))
                    for number, name in enumerate(chunk)
                }
                found |= self.compare(base, made)[0]
        return found

    def compare(self, base: Bundle, bundles: Mapping[str, Bundle]) -> tuple[dict[str, TimeRatio], list[BenchResult]]:
        """The same for bundles, and what was measured: `base` first, then `bundles` in their order."""
        results = self.measure([base, *bundles.values()])
        lows = [[[ms] for ms in result.telemetry["during"]["round_lows_ms"]] for result in results]
        ratios = [statistics.paired_ratio(rounds, lows[0]) for rounds in lows[1:]]
        return {name: TimeRatio(*ratio) for name, ratio in zip(bundles, ratios, strict=True)}, results

    def measure(self, bundles: Sequence[Bundle]) -> list[BenchResult]:
        """Measurements side by side, which leave no evidence in the bundles."""
        return list(bench(bundles, self._samples, self._plan, keep=False))

    def _convert(self, model: Model, folder: Path) -> Bundle:
        return convert(model, self.target, folder, options=self._options)
