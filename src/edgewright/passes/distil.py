"""Distil: train the network to say what the original says, on samples without labels.

The original is the network before the recipe's first lossy step; what learns is what the steps before have made of it,
pruned or quantized. Quantized weights are trained as what they are (`learn/integers.py`), so that the file holds exactly
what was judged. Samples of the role calibrate train, those of the role select say which weights are kept: those it began
with, where nothing is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.shapes import infer
from edgewright.learn.options import Training as Config

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EXTRA", "LOSSY", "NEEDS_SAMPLES", "Config", "apply"]

EXTRA: str | None = "train"
LOSSY = True
NEEDS_SAMPLES = True


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Train in place; returns the curve of training and what the select samples said before and after.

    Raises:
        EdgewrightError: E103 for an option, E212 for a graph that cannot be trained, E301 without calibrate samples, E305
            for labels, E501 where training meets values that are no numbers, E502 for a saved training that is another.
    """
    from edgewright.learn.distilling import distil

    lift_constants(ir_model)
    infer(ir_model)
    teacher = (ir_model if context.original is None else context.original).clone()
    infer(teacher)
    return distil(ir_model, teacher, config, context)
