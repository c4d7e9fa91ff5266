"""Constant folding by onnxscript's optimizer, with onnx's reference operators for the arithmetic.

Owns the call and what must never be folded; how much a model may grow is the caller's to say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import drop_unused, is_standard, lift_constants

if TYPE_CHECKING:
    import onnx_ir as ir

#: Random, so not constant. onnxscript leaves the others of this family alone, but not these.
_RANDOM = ("Bernoulli", "Dropout")
#: They say how a network is quantized; folded away, the runtimes could not run it in int8.
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
#: Slow in numpy or of several minds about rounding, and never worth it.
_HEAVY = (
    *("AffineGrid", "Conv", "ConvInteger", "ConvTranspose", "DFT", "DeformConv", "GRU", "GridSample", "LSTM"),
    *("MaxUnpool", "NonMaxSuppression", "QLinearConv", "RNN", "Resize", "RoiAlign", "STFT", "Upsample"),
)
_METADATA = "pkg.onnxscript.optimizer.folded_from"
_UNLIMITED = 2**62


def fold(ir_model: ir.Model, may_fold: Callable[[ir.Node], bool]) -> int:
    """Fold what is constant, in place, and turn Constant nodes into initializers; returns how many of these.

    Args:
        ir_model: Types and shapes need not be known, but help: they are inferred on the way.
        may_fold: Asked for each node whose inputs are constant, before it is computed.

    Raises:
        EdgewrightError: E212 when the library cannot work on the graph.
    """
    import onnx_ir as ir
    from onnxscript.optimizer import fold_constants

    def should_fold(node: ir.Node) -> bool:
        never = is_standard(node, *_RANDOM, *_QUANTIZATION, *_HEAVY) or node.outputs[0].is_graph_output()
        text = any(value is not None and value.dtype == ir.DataType.STRING for value in (*node.inputs, *node.outputs))
        return not never and not text and may_fold(node)

    lifted = lift_constants(ir_model)
    declared = [(value.type, value.shape) for value in ir_model.graph.outputs]
    with _quiet():
        try:
            fold_constants(
                ir_model,
                onnx_shape_inference=True,
                input_size_limit=_UNLIMITED,
                output_size_limit=_UNLIMITED,
                should_fold=should_fold,
            )
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
            details = (str(problem.__cause__),) if problem.__cause__ else ()
            raise EdgewrightError("E212", f"constants cannot be folded: {problem}", details=details) from problem
    for value, (kind, shape) in zip(ir_model.graph.outputs, declared, strict=True):
        value.type, value.shape = kind or value.type, shape if shape is not None else value.shape
    lifted += lift_constants(ir_model)
    for graph in ir_model.graphs():
        for value in (*graph.initializers.values(), *(value for node in graph for value in node.outputs)):
            value.metadata_props.pop(_METADATA, None)
        for value in tuple(graph.initializers.values()):
            drop_unused(value)
    return lifted


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
