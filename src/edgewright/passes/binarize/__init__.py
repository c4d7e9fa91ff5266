"""Binarize: the layers of a float network become binary ones, trained to say what the original says, without labels.

The first and the last layer stay float. Every other one compares what it reads with a threshold for each channel, multiplies
signs by Libra-PB's weights, and is followed by a batch norm and, where sizes allow, by a shortcut around it; the Relu after
it learns a slope. Thresholds and norms begin with the statistics of the original on the calibrate samples, weights with the
original's; then all are distilled with EDE (IR-Net), activations binary from the start, weights later. What comes out is
the form that `lower_binary` knows.

Sources: Qin et al. 2020, "Forward and Backward Information Retention"; Liu et al. 2018, "Bi-Real Net", section 3.1; Martinez
et al. 2020, "Real-to-Binary Convolutions", section 4.2; Liu et al. 2020, "ReActNet", section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.naming import by_reason, require_float, shown
from edgewright.graph.shapes import infer
from edgewright.learn.options import Training
from edgewright.passes.binarize._choice import chosen
from edgewright.passes.binarize._graph import insert, settle
from edgewright.passes.binarize._statistics import measured

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = "train"
LOSSY = True
NEEDS_SAMPLES = True


@dataclass(frozen=True)
class Config(Training):
    """How to train, as for `distil`, and which layers.

    Attributes:
        float_layers: Names of layers, or of the tensors that they make, that stay float.
        least_products: Layers with fewer products in a dot product stay float, 1 or more.
        shortcuts: Lead what a layer reads around it, where that has the size of what it makes.
        prelu: Let each Relu behind a binary layer learn a slope for negative values.
        float_part: Part of the training in which weights are still float and activations binary, 0 or more, below 1.
        ede_least: EDE's t at first, above 0.
        ede_most: EDE's t at the end.
    """

    NAME: ClassVar[str] = "binarize"

    minutes: float = 60.0
    batch: int = 32
    rate: float = 2e-3
    batch_statistics: bool = True
    optimizer: Literal["adamw", "sgd"] = "adamw"
    decay: float = 0.0
    float_layers: tuple[str, ...] = ()
    least_products: int = 64
    shortcuts: bool = True
    prelu: bool = False
    float_part: float = 0.0
    ede_least: float = 0.1
    ede_most: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_products < 1 or not 0 < self.ede_least <= self.ede_most:
            raise EdgewrightError(
                "E103",
                f"option `binarize.least_products` is {self.least_products}, EDE goes from {self.ede_least} to "
                f"{self.ede_most}; at least 1, and above 0 and not falling",
            )
        if not 0 <= self.float_part < 1:
            raise EdgewrightError(
                "E103", f"option `binarize.float_part` is {self.float_part}, but must be at least 0 and below 1"
            )
        if not self.batch_statistics:
            raise EdgewrightError(
                "E103", "option `binarize.batch_statistics` must be true: new batch norms learn theirs"
            )


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Train in place; returns which layers are binary, which are not and why, and what `distil` returns.

    Raises:
        EdgewrightError: E103 for an option, E212 for a graph that is quantized, has no layer that could be binary, or
            cannot be trained, E301 without calibrate samples, E305, E501 and E502 as for `distil`.
    """
    from edgewright.learn.binary.distilling import distil_binary
    from edgewright.learn.binary.schedule import EdeSchedule

    require_float(ir_model, step="binarize", recipe="binary")
    lift_constants(ir_model)
    infer(ir_model)
    teacher = (ir_model if context.original is None else context.original).clone()
    infer(teacher)
    layers, left = chosen(ir_model, config.least_products, config.float_layers)
    if not layers:
        listed = "; ".join(sorted(set(left.values()))) or "it has no layers with weights"
        raise EdgewrightError("E212", f"no layer of the network can be binary: {listed}")
    statistics = measured(ir_model, layers, context, shortcuts=config.shortcuts)
    names = [shown(layer) for layer in layers]
    stage = insert(ir_model, layers, statistics, prelu=config.prelu)
    infer(ir_model)
    schedule = EdeSchedule(config.ede_least, config.ede_most)
    stats = distil_binary(
        ir_model, teacher, config, context, stage=stage, schedule=schedule, float_part=config.float_part
    )
    settle(ir_model, stage)
    return {"binary": names, "float": by_reason(left), **stats}
