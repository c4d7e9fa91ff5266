"""Distillation of a network whose layers are becoming binary: first activations, then weights; EDE's slope follows.

Two stages: Martinez et al. 2020, "Training Binary Neural Networks with Real-to-Binary Convolutions", section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.learn.binary import operators  # noqa: F401 - enters the binary layers in the table of operators
from edgewright.learn.binary.schedule import EdeSchedule
from edgewright.learn.distilling import distil
from edgewright.learn.network import Network
from edgewright.learn.options import Training

if TYPE_CHECKING:
    import onnx_ir as ir


def distil_binary(
    student: ir.Model,
    teacher: ir.Model,
    options: Training,
    context: Context,
    *,
    stage: str,
    schedule: EdeSchedule,
    float_part: float,
) -> dict[str, Any]:
    """As `distil`, for a student with layers of `operators`, whose stage is the constant called `stage`.

    Weights are float in the first `float_part` of the training. The select samples always judge binary ones.

    Raises:
        EdgewrightError: as `distil`.
    """

    def move_on(network: Network, part: float) -> None:
        network.set_constant(stage, (*schedule.at(min(part, 1.0)), float(part >= float_part)))

    return distil(student, teacher, options, context, move_on)
