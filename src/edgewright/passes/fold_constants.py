"""Fold constants: what does not depend on the input is computed once, here.

Shape chains fold where sizes are static, an If with a constant condition becomes its branch, and Constant nodes become
initializers. Nothing is folded that would make the model much larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_tensor, is_standard, sole_consumer
from edgewright.graph.folding import fold
from edgewright.graph.shapes import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = False

#: Their output's size follows from values, not from the sizes of their inputs.
_UNBOUNDED = ("CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Tile")


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        max_growth_bytes: A folded tensor may be this much larger than the constants that it makes superfluous.
    """

    max_growth_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        if self.max_growth_bytes < 0:
            raise EdgewrightError(
                "E103", f"option `fold_constants.max_growth_bytes` is {self.max_growth_bytes}, but must not be negative"
            )


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Fold constants in place; returns node counts, weight bytes, and how many nodes stayed because of their size.

    Raises:
        EdgewrightError: E212 when the folding library cannot work on the graph.
    """
    nodes, size_bytes = _count(ir_model), _weight_bytes(ir_model)
    too_large: set[str | None] = set()

    def may_fold(node: ir.Node) -> bool:
        fits = _growth_bytes(node) <= config.max_growth_bytes
        if not fits:
            too_large.add(node.outputs[0].name)
        return fits

    lifted = fold(ir_model, may_fold)
    return {
        "nodes_before": nodes,
        "nodes_after": _count(ir_model),
        "constants_lifted": lifted,
        "weight_bytes_before": size_bytes,
        "weight_bytes_after": _weight_bytes(ir_model),
        "left_too_large": len(too_large),
    }


def _growth_bytes(node: ir.Node) -> float:
    """Bytes that the folded output adds to the model, less the constants that only this node reads."""
    output = node.outputs[0]
    shape = static_shape(output)
    item = output.dtype.itemsize if output.dtype is not None else 8
    tensors = [constant_tensor(value) for value in node.inputs]
    if shape is not None:
        made: float = math.prod(shape) * item
    elif is_standard(node, *_UNBOUNDED):
        made = math.inf
    else:
        made = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    freed = sum(
        tensor.nbytes
        for value, tensor in zip(node.inputs, tensors, strict=True)
        if value is not None and tensor is not None and sole_consumer(value) is node
    )
    return float(made - freed)


def _count(ir_model: ir.Model) -> int:
    return sum(1 for graph in ir_model.graphs() for _ in graph)


def _weight_bytes(ir_model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in ir_model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
