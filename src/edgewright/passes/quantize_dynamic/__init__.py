"""Quantize at run time: weights in int8 by output channel, what linear and recurrent layers read in uint8 as it comes.

MatMul and Gemm become standard operators that ONNX Runtime fuses (DynamicQuantizeLinear, MatMulInteger); an LSTM becomes
ONNX Runtime's own DynamicQuantizeLSTM, which OpenVINO computes in float and other runtimes refuse by name. No samples are
needed, since ranges are those of each input; where there are some, the layers that cost the agreement stay in float.
Convolutions stay in float.

The file needs no calibration and cannot clip, but one outlier in an activation coarsens its whole tensor.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgewright.contracts import Context
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.naming import by_reason, names_of, require_float, require_known
from edgewright.graph.selection import take_back_fewest
from edgewright.graph.shapes import infer
from edgewright.passes.quantize_dynamic._layers import Layer, find
from edgewright.passes.quantize_dynamic._writing import Writer

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = False
ROUGH = {"select": False}


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of nodes, or of tensors that they make, to leave in float.
        operators: Operators to quantize.
        min_weights: Fewest weights of a layer that is worth it: quantizing what it reads costs time too. On ONNX Runtime
            1.32 (x86 with VNNI) products of 64 rows gained from about 8,000 weights on, LSTMs from about 40,000.
        min_sqnr_db: Layers whose weights would lose more than this, in dB, stay in float.
        select: Leave in float what the select samples need, where there are some.
    """

    keep: tuple[str, ...] = ()
    operators: tuple[Literal["Gemm", "LSTM", "MatMul"], ...] = ("Gemm", "LSTM", "MatMul")
    min_weights: int = 16384
    min_sqnr_db: float = 30.0
    select: bool = True


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Quantize in place; returns what was quantized, layer by layer, what stays in float and why, and the agreement.

    Raises:
        EdgewrightError: E212 for a graph that is quantized already, E103 for an unknown name in `keep`, E211 where the
            target runs no int8.
    """
    require_float(ir_model, step="quantize_dynamic", recipe="int8-dynamic")
    known = {name for graph in ir_model.graphs() for node in graph for name in names_of(node)}
    require_known(config.keep, known, option="quantize_dynamic.keep", what="a node or tensor")
    form = context.quant_format
    lift_constants(ir_model)
    infer(ir_model, keep_known=True)
    layers, left = find(
        ir_model,
        operators=config.operators,
        keep=config.keep,
        least=config.min_weights,
        bits=form.weight_bits,
        floor=config.min_sqnr_db,
    )
    kept: Mapping[str, float] = {}
    stats: dict[str, Any] = {}
    if config.select:
        by_name = {layer.name: layer for layer in layers}
        found = take_back_fewest(
            ir_model, tuple(by_name), lambda names: _copy(ir_model, [by_name[name] for name in names]), context
        )
        kept = found.taken_back
        stats = {"agreement": found.agreement, "select_samples": found.samples}
    left |= dict.fromkeys(kept, "the select samples need it")
    chosen = [layer for layer in layers if layer.name not in kept]
    described, operators = [_described(layer) for layer in chosen], Counter(layer.node.op_type for layer in chosen)
    writer = Writer(ir_model)
    for layer in chosen:
        writer.write(layer.node, layer.weights)
    return {
        "quantized": dict(sorted(operators.items())),
        "weight_bits": form.weight_bits,
        "weights": sum(narrowed.integers.size for layer in chosen for narrowed in layer.weights.values()),
        "layers": described,
        "float": by_reason(left),
        **stats,
        "format": form.reason,
    }


def _copy(ir_model: ir.Model, layers: Sequence[Layer]) -> ir.Model:
    """A copy of the graph with these layers quantized."""
    copy = ir_model.clone()
    twins = dict(zip(ir_model.graph, copy.graph, strict=True))
    writer = Writer(copy)
    for layer in layers:
        writer.write(twins[layer.node], layer.weights)
    return copy


def _described(layer: Layer) -> dict[str, Any]:
    weights = layer.weights.values()
    return {
        "name": layer.name,
        "operator": layer.node.op_type,
        "weights": sum(narrowed.integers.size for narrowed in weights),
        "weight_sqnr_db": round(layer.sqnr_db, 2) if math.isfinite(layer.sqnr_db) else None,  # None: nothing is lost
    }
