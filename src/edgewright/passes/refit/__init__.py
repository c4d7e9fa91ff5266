"""Refit: layers learn in closed form to make of a compressed network's own activations what the original made.

Layer after layer, each on what the refitted layers before it now hand on: the least-squares weights and bias toward
the outputs that the original has there (its channels that are left). Where a shortcut is added to what a layer makes,
the layer makes up for the shortcut's error as well, so errors do not build up along a residual trunk. No labels, no
gradients. Where weights cannot be learnt the bias keeps each channel's mean; batch norms that are left get their
statistics moved by as much as those of their inputs moved.
Source: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", section 3.1, for one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.naming import require_float, require_known
from edgewright.graph.shapes import infer
from edgewright.passes.refit._sweep import Sweep

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = True


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of layers that stay as they are.
        max_samples: Calibrate samples that are learnt from, evenly spaced, 2 or more.
        max_vectors: Places of a layer's output that are looked at, over all samples, 1 or more.
        sweeps: How often all layers are gone through, 1 or more.
    """

    keep: tuple[str, ...] = ()
    max_samples: int = 256
    max_vectors: int = 2**17
    sweeps: int = 1


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Refit in place; returns for each layer its squared error on held-out samples, before and after.

    Raises:
        EdgewrightError: E103 for an option, E212 for a quantized graph, activations that are NaN or infinite, or where
            no step before this one changed the network, E301 without calibrate samples, E302 with one alone.
    """
    for option, given, least in (
        ("max_samples", config.max_samples, 2),
        ("max_vectors", config.max_vectors, 1),
        ("sweeps", config.sweeps, 1),
    ):
        if given < least:
            raise EdgewrightError("E103", f"option `refit.{option}` is {given}, but must be at least {least}")
    require_float(ir_model, step="refit", recipe="prune")
    if context.original is None:
        raise EdgewrightError(
            "E212",
            "`refit` learns from the network before a lossy step, and no step of this recipe before it is lossy",
            hint="edgewright compress MODEL --recipe prune --samples FOLDER --out FILE",
        )
    known = {value.name for node in ir_model.graph for value in node.outputs if value.name}
    require_known(config.keep, known, option="refit.keep", what="a tensor")
    lift_constants(ir_model)
    infer(ir_model)
    original = context.original.clone()
    lift_constants(original)
    infer(original)
    reports: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for number in range(config.sweeps):
        sweep = Sweep(ir_model, original, config.max_samples, config.max_vectors, frozenset(config.keep), context)
        reports = sweep.run(f"refit {number + 1} of {config.sweeps}")
        skipped = sweep.skipped
    return {"samples": sweep.samples, "layers": reports, "left_alone": skipped}
