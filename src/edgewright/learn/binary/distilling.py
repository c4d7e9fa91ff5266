"""Distillation of a network whose layers are becoming binary: EDE's slope follows the training."""

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
    student: ir.Model, teacher: ir.Model, options: Training, context: Context, *, ede: str, schedule: EdeSchedule
) -> dict[str, Any]:
    """As `distil`, for a student with layers of `operators`, whose t and k are the constant called `ede`.

    Raises:
        EdgewrightError: as `distil`.
    """

    def steepen(network: Network, part: float) -> None:
        network.set_constant(ede, schedule.at(min(part, 1.0)))

    return distil(student, teacher, options, context, steepen)
