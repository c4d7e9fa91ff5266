"""Which layers stay in float: those that cost the answers most, and no more than the select samples ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context, QuantFormat, Sample, SampleSource
from edgewright.metrics import rel_l2
from edgewright.model import Arrays
from edgewright.passes.quantize_static._assembly import Rounded, simulated
from edgewright.passes.quantize_static._layers import Layer
from edgewright.passes.quantize_static._placement import Placement, place
from edgewright.passes.quantize_static._ranges import Range

if TYPE_CHECKING:
    import onnx_ir as ir

#: Samples on which single layers are compared, and on which a set of layers is judged.
_PROBES, _JUDGES = 6, 100
_OUTPUT_BYTES = 128 * 2**20


@dataclass
class Search:
    """The fewest layers in float with which the select samples agree.

    Attributes:
        samples: How many samples judged.
        steps: Sets that were tried: how many layers stayed in float, and how far the samples agreed.
        sensitivity: By layer, the lowest SQNR in dB of an output when only this layer is quantized.
    """

    ir_model: ir.Model
    layers: Mapping[str, Layer]
    ranges: Mapping[str, Range]
    rounded: Mapping[str, Rounded]
    form: QuantFormat
    context: Context
    samples: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)
    sensitivity: dict[str, float] = field(default_factory=dict)

    def keep(self, source: SampleSource, most: int) -> tuple[str, ...]:
        """Layers to keep in float, at most `most`; none where the samples agree without, or do not even so."""
        samples, expected = self._original(source)
        self.samples = len(samples)
        self._measure(samples[:_PROBES], expected)
        order = sorted(self.layers, key=lambda name: self.sensitivity[name])
        aim = self.context.min_agreement
        low, high, count = 0, None, 0
        while True:  # doubling, then halving the gap
            reached = self._agreement(order[:count], samples, expected) >= aim
            if reached:
                high = count
            else:
                low = count
            if count == 0 and reached:
                return ()
            if high is None:
                if count >= most:
                    return ()
                count = min(max(2 * count, 1), most)
            elif high - low <= 1:
                return tuple(order[:high])
            else:
                count = (low + high) // 2

    def to_json(self, kept: Sequence[str]) -> dict[str, Any] | None:
        """For the statistics of the pass; None where nothing was tried."""
        if not self.steps:
            return None
        steps = [{"kept": count, "agreement": agreement} for count, agreement in self.steps]
        after = dict(self.steps).get(len(kept), math.nan)
        return {
            "samples": self.samples,
            "required": self.context.min_agreement,
            "agreement_before": self.steps[0][1],
            "agreement_after": after,
            "steps": steps,
        }

    def placement(self, kept: Sequence[str]) -> Placement:
        """Where the graph is quantized when `kept` stay in float."""
        return place(self.ir_model, {name: layer for name, layer in self.layers.items() if name not in kept}, self.form)

    def _original(self, source: SampleSource) -> tuple[list[Sample], list[Arrays]]:
        """Select samples and the float network's outputs for them, as many as fit into memory twice."""
        samples: list[Sample] = []
        expected: list[Arrays] = []
        room = _OUTPUT_BYTES
        for sample in source:
            outputs = self.context.run(self.ir_model, sample.arrays)
            room -= sum(array.nbytes for array in (*outputs.values(), *sample.arrays.values()))
            if len(samples) >= _PROBES and (room < 0 or len(samples) == _JUDGES):
                break
            samples.append(sample)
            expected.append(outputs)
        return samples, expected

    def _agreement(self, kept: Sequence[str], samples: Sequence[Sample], expected: Sequence[Arrays]) -> float:
        placement = self.placement(kept)
        graph = simulated(self.ir_model, placement, self.ranges, self._rounded(placement))
        got = []
        for number, sample in enumerate(samples):
            self.context.progress.update(f"compare with {len(kept)} layers in float", number, len(samples))
            got.append(self.context.run(graph, sample.arrays))
        agreement = self.context.agreement(expected, got)
        self.steps.append((len(kept), agreement))
        return agreement

    def _measure(self, samples: Sequence[Sample], expected: Sequence[Arrays]) -> None:
        """Fill `sensitivity`."""
        for number, (name, layer) in enumerate(self.layers.items()):
            self.context.progress.update("sensitivity of layers", number, len(self.layers))
            placement = place(self.ir_model, {name: layer}, self.form)
            graph = simulated(self.ir_model, placement, self.ranges, self._rounded(placement))
            worst = 0.0
            for sample, right in zip(samples, expected, strict=False):
                got = self.context.run(graph, sample.arrays)
                worst = max([worst, *(rel_l2(right[key], got[key]) for key in right if right[key].dtype.kind == "f")])
            self.sensitivity[name] = -20 * math.log10(max(worst, 1e-12))

    def _rounded(self, placement: Placement) -> dict[str, Rounded]:
        return {name: self.rounded[name] for name in placement.layers}
