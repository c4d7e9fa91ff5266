"""Networks with some of the layers in int8, and which layers the select samples need in float."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgewright.contracts import Context
from edgewright.graph.selection import Selection, take_back_fewest
from edgewright.passes.quantize_static._assembly import Rounded, simulated
from edgewright.passes.quantize_static._learning import Learner
from edgewright.passes.quantize_static._placement import Placement, place
from edgewright.passes.quantize_static._ranges import Range
from edgewright.passes.quantize_static._statistics import Statistics

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class Trials:
    """Networks of one graph, each with weights and biases learnt for the very layers that it has in int8.

    What a layer learns makes up for the errors of the layers before it. With one of those back in float it would
    correct an error that is no more: the answers of PP-OCRv4's recognizer got worse so with every layer taken back.

    Attributes:
        ir_model: The float graph.
        placement: All layers that may be int8.
        ranges: By point.
        statistics: Of the float graph.
        context: For running networks and comparing their answers.
        compensate: Let rounding errors compensate each other.
        correct_bias: Shift biases so that every channel keeps its mean.
    """

    ir_model: ir.Model
    placement: Placement
    ranges: Mapping[str, Range]
    statistics: Statistics
    context: Context
    compensate: bool = True
    correct_bias: bool = True
    _learnt: dict[frozenset[str], tuple[Learner, dict[str, Rounded]]] = field(default_factory=dict)

    def select(self, *, keep_share: float) -> Selection:
        """What each layer does alone, and the fewest, up to `keep_share` of all, that the answers need in float."""
        names = tuple(self.placement.layers)
        alone = self.learnt(names)[0].alone
        found = take_back_fewest(
            self.ir_model,
            names,
            lambda some: self._network(some, self.learnt(some, trial=True)[1]),
            self.context,
            most=int(len(names) * keep_share),
            alone=lambda name: self._network((name,), alone),
            final=lambda some: self._network(some, self.learnt(some)[1]),
        )
        if not found.samples:
            self.context.progress.note(
                "no sample has the role select: no layer was kept in float for the answers' sake"
            )
        return found

    def learnt(self, names: Collection[str], *, trial: bool = False) -> tuple[Learner, dict[str, Rounded]]:
        """What the layers `names` have learnt together, all others in float; for a trial from fewer samples.

        Remembered where it is no trial: it is some bytes a weight.
        """
        key = frozenset(names)
        if key not in self._learnt:
            lesson = self.statistics.trial if trial else self.statistics.lesson
            learner = Learner(
                self.ir_model, self._placed(names), self.ranges, lesson, self.context.quant_format, self.context,
                self.compensate, self.correct_bias,
            )  # fmt: skip
            made = (learner, learner.learn())
            if trial:
                return made
            self._learnt[key] = made
        return self._learnt[key]

    def _network(self, names: Collection[str], weights: Mapping[str, Rounded]) -> ir.Model:
        placed = self._placed(names)
        return simulated(self.ir_model, placed, self.ranges, {name: weights[name] for name in placed.layers})

    def _placed(self, names: Collection[str]) -> Placement:
        return without(self.ir_model, self.placement, set(self.placement.layers) - set(names), self.context)


def without(ir_model: ir.Model, placement: Placement, kept: Collection[str], context: Context) -> Placement:
    """Where the graph is quantized when `kept` stay in float."""
    layers = {name: layer for name, layer in placement.layers.items() if name not in kept}
    return place(ir_model, layers, context.quant_format)
