"""Which layers become binary: all but the first and the last, if their form and size allow it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.naming import names_of, require_known, shown

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


def chosen(ir_model: ir.Model, least: int, kept: Collection[str]) -> tuple[list[ir.Node], dict[str, str]]:
    """(layers that become binary, in graph order; the others by name, each with the reason).

    Raises:
        EdgewrightError: E103 where a name in `kept` is that of no layer.
    """
    nodes = [node for node in ir_model.graph if is_standard(node, *_LAYERS)]
    require_known(
        kept, {name for node in nodes for name in names_of(node)}, option="binarize.float_layers", what="a layer"
    )
    behind = _reached(list(ir_model.graph), nodes)
    ahead = _reaching(list(ir_model.graph), nodes)
    layers, left = [], {}
    for node in nodes:
        reason = None if not set(names_of(node)) & set(kept) else "it was asked to stay float"
        reason = reason or ("it is a first layer" if node not in behind else None)
        reason = reason or ("it is a last layer" if node not in ahead else None)
        reason = reason or _unfit(node, least)
        if reason is None:
            layers.append(node)
        else:
            left[shown(node)] = reason
    return layers, left


def _reached(graph: list[ir.Node], layers: list[ir.Node]) -> set[ir.Node]:
    """Nodes with a layer somewhere before them."""
    made: set[ir.Value] = set()
    found, known = set(), set(layers)
    for node in graph:
        if any(value in made for value in node.inputs if value is not None):
            found.add(node)
        if node in found or node in known:
            made.update(node.outputs)
    return found


def _reaching(graph: list[ir.Node], layers: list[ir.Node]) -> set[ir.Node]:
    """Nodes with a layer somewhere after them."""
    read: set[ir.Value] = set()
    found, known = set(), set(layers)
    for node in reversed(graph):
        if any(value in read for value in node.outputs):
            found.add(node)
        if node in found or node in known:
            read.update(value for value in node.inputs if value is not None)
    return found


def _unfit(node: ir.Node, least: int) -> str | None:
    """Why the layer cannot be binary, or should not."""
    array = constant_array(node.inputs[1]) if is_standard(node, "Conv", "Gemm") else None
    if array is None:
        return "it is no Conv or Gemm with constant weights"
    get, source = node.attributes, node.inputs[0]
    if array.dtype != np.float32 or source is None or source.shape is None:
        return "it is not float32, or its sizes are not known"
    if is_standard(node, "Gemm"):
        if get.get_int("transA", 0) or get.get_float("alpha", 1.0) != 1 or get.get_float("beta", 1.0) != 1:
            return "it is a Gemm with factors, or of a transposed input"
        products = array.shape[1 if get.get_int("transB", 0) else 0]
    else:
        if array.ndim != 4:
            return "its windows have not two axes"
        if get.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return "its padding depends on the size of its input"
        products = int(np.prod(array.shape[1:]))
        if array.shape[2:] == (1, 1) and max(get.get_ints("strides", (1,)) or (1,)) > 1:
            return "it is a shortcut: 1 x 1 with a stride"
    if products < least:
        return f"its dot products have fewer than {least} terms"
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_array(node.inputs[2]) is None:
        return "its bias is computed in the graph"
    return None
