"""Fold constants: what does not depend on the input is computed once, here.

onnxscript's optimizer does the folding, onnx's reference operators the arithmetic. Shape chains fold where sizes are
static, an If with a constant condition becomes its branch, and Constant nodes become initializers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_tensor, drop_unused, is_standard, lift_constants, sole_consumer
from edgewright.graph.shapes import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = False

#: Random, so not constant. onnxscript leaves the others of this family alone, but not these.
_RANDOM = ("Bernoulli", "Dropout")
#: They say how a network is quantized; folded away, the runtimes could not run it in int8.
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
#: Slow in numpy or of several minds about rounding, and never worth it.
_HEAVY = ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Resize", "Upsample", "GridSample", "RoiAlign", "DFT", "STFT",
          "NonMaxSuppression", "MaxUnpool", "DeformConv", "ConvInteger", "QLinearConv", "AffineGrid")  # fmt: skip
#: Their output's size follows from values, not from the sizes of their inputs.
_UNBOUNDED = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot", "EyeLike", "Col2Im", "CenterCropPad")
_METADATA = "pkg.onnxscript.optimizer.folded_from"


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
                "E103", f"`fold_constants.max_growth_bytes` is {self.max_growth_bytes}, but must not be negative"
            )


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Fold constants in place; returns node counts, weight bytes, and how many nodes stayed because of their size.

    Raises:
        EdgewrightError: E212 when the folding library cannot work on the graph.
    """
    from onnxscript.optimizer import fold_constants

    nodes, size_bytes = _count(ir_model), _weight_bytes(ir_model)
    too_large: set[str] = set()

    def should_fold(node: ir.Node) -> bool:
        if is_standard(node, *_RANDOM, *_QUANTIZATION, *_HEAVY) or node.outputs[0].is_graph_output():
            return False
        if _growth_bytes(node) > config.max_growth_bytes:
            too_large.add(node.outputs[0].name or "")
            return False
        return True

    lifted = lift_constants(ir_model)
    with _quiet():
        try:
            fold_constants(
                ir_model,
                onnx_shape_inference=True,
                input_size_limit=2**62,  # `should_fold` bounds the growth instead
                output_size_limit=2**62,
                should_fold=should_fold,
            )
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
            raise EdgewrightError(
                "E212", f"constants cannot be folded: {problem}", details=(repr(problem.__cause__),)
            ) from problem
    lifted += lift_constants(ir_model)
    _clean(ir_model)
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
    if shape is None and not is_standard(node, *_UNBOUNDED):
        made: float = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    else:
        made = math.inf if shape is None else math.prod(shape) * item
    freed = sum(
        tensor.nbytes
        for value, tensor in zip(node.inputs, tensors, strict=True)
        if value is not None and tensor is not None and sole_consumer(value) is node
    )
    return made - freed


def _clean(ir_model: ir.Model) -> None:
    for graph in ir_model.graphs():
        for value in (*graph.initializers.values(), *(value for node in graph for value in node.outputs)):
            value.metadata_props.pop(_METADATA, None)
        for value in tuple(graph.initializers.values()):
            drop_unused(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from logging each node that it leaves alone, and numpy from warning of 0 / 0 in constants."""
    logger = logging.getLogger("onnxscript.optimizer")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _count(ir_model: ir.Model) -> int:
    return sum(1 for graph in ir_model.graphs() for _ in graph)


def _weight_bytes(ir_model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in ir_model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
