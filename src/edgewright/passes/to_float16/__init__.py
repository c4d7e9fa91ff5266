"""To float16: weights and arithmetic in half precision; graph inputs and outputs keep float32 and their names.

Nodes that lose their meaning in float16 stay in float32, with a Cast where they meet the others: operators without a
float16 form, `Config.keep_operators`, nodes with a constant that float16 cannot hold, and counts and squares until
something tames them. Subgraphs keep float32 at their borders and turn to float16 inside. What the activations of real
inputs do is not known here: `verify` judges it.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.shapes import infer
from edgewright.passes.to_float16._choice import KEEP, choose, names_of
from edgewright.passes.to_float16._conversion import Conversion

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = False
ROUGH: dict[str, object] = {}

_SHOWN = 20  # names per reason in the statistics


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of nodes, or of tensors that they make, to leave in float32.
        keep_operators: Operators to leave in float32.
    """

    keep: tuple[str, ...] = ()
    keep_operators: tuple[str, ...] = KEEP


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Convert in place; returns node counts, reasons of what stays, Casts added, and what weights lost.

    Raises:
        EdgewrightError: E212 for a graph that is quantized already, E103 for an unknown name in `keep` or
            `keep_operators`.
    """
    _refuse_quantized(ir_model)
    _check(config, ir_model)
    infer(ir_model)
    lift_constants(ir_model)
    kept = choose(ir_model, keep=config.keep, operators=config.keep_operators)
    conversion = Conversion(ir_model, kept)
    conversion.run()
    reasons: dict[str, list[str]] = defaultdict(list)
    for node, reason in kept.items():
        reasons[reason].append(names_of(node)[0])
    return {
        "float16_nodes": len(conversion.half),
        "float32_nodes": len(kept),
        "kept": {reason: {"count": len(names), "nodes": names[:_SHOWN]} for reason, names in sorted(reasons.items())},
        "casts": conversion.casts,
        "weights": conversion.weights,
        "weights_to_zero": conversion.to_zero,
        "weights_subnormal": conversion.subnormal,
    }


def _refuse_quantized(ir_model: ir.Model) -> None:
    for graph in ir_model.graphs():
        for node in graph:
            if "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
                raise EdgewrightError(
                    "E212",
                    f"`to_float16` cannot work on a quantized graph: `{names_of(node)[0]}` is {node.op_type}",
                    hint="start from the float network: edgewright compress MODEL --recipe fp16 --out FILE",
                )


def _check(config: Config, ir_model: ir.Model) -> None:
    from onnx import defs

    nodes = {name for graph in ir_model.graphs() for node in graph for name in names_of(node)}
    operators = {schema.name for schema in defs.get_all_schemas()}
    operators |= {node.op_type for graph in ir_model.graphs() for node in graph}
    for option, given, known in (("keep", config.keep, nodes), ("keep_operators", config.keep_operators, operators)):
        for name in given:
            if name not in known:
                what = "a node or tensor" if option == "keep" else "an operator"
                near = difflib.get_close_matches(name, known, n=1)
                tail = f"; did you mean `{near[0]}`?" if near else ""
                raise EdgewrightError(
                    "E103", f"option `to_float16.{option}`: `{name}` is not {what} that is known{tail}"
                )
