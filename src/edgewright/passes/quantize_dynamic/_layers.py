"""Layers whose product may be computed in integers, and their weights as integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.integers import Narrowed, by_axes
from edgewright.graph.naming import names_of, shown
from edgewright.metrics import sqnr_db

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators with weights that this pass looks at; those not in its `operators` are named in the statistics.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN")
#: Why operators have no dynamic form here. ConvInteger took 4 to 15 times as long as a float Conv on ONNX Runtime 1.32
#: (x86 with VNNI, five shapes): it unfolds the image and no fusion follows it.
_NO_FORM = {
    "Conv": "an integer Conv is slower than a float one",
    "ConvTranspose": "it has no form with integers",
    "GRU": "the runtime has no dynamic form of it",
    "RNN": "the runtime has no dynamic form of it",
}
#: int32 holds the sum of this many products of a full uint8 and a full int8.
_LONGEST_SUM = (2**31 - 1) // (255 * 128)


@dataclass(frozen=True, eq=False)
class Layer:
    """A node that may be quantized.

    Attributes:
        name: The first tensor it makes.
        node: The node in its graph.
        weights: Positions of its weights among its inputs, and these as integers, laid out for the new node:
            [K, N] for a product, [D, K, 4 H] for an LSTM.
        sqnr_db: That of the worst of its weights.
    """

    name: str
    node: ir.Node
    weights: dict[int, Narrowed]
    sqnr_db: float


def find(
    ir_model: ir.Model, *, operators: tuple[str, ...], keep: tuple[str, ...], least: int, bits: int, floor: float
) -> tuple[list[Layer], dict[str, str]]:
    """Layers to quantize, in graph order, and why others with weights stay in float, by the tensor they make.

    Args:
        ir_model: The float graph, constants lifted.
        operators: Operators to quantize.
        keep: Names of nodes or tensors to leave alone.
        least: Fewest weights of a layer that is worth it.
        bits: Bits of a weight.
        floor: Lowest SQNR of weights in dB.
    """
    layers, left = [], {}
    rounded: dict[tuple[ir.Value, bool], Narrowed] = {}
    for graph in ir_model.graphs():
        for node in graph:
            if not is_standard(node, *WEIGHTED) or _both_computed(node):
                continue
            reason = "it is in a subgraph" if graph is not ir_model.graph else None
            reason = reason or ("asked for" if set(keep).intersection(names_of(node)) else None)
            reason = reason or _unable(node, operators) or _unfit(node, operators, least)
            if reason is None:
                layer = _layer(node, bits, rounded)
                reason = None if layer.sqnr_db >= floor else f"its weights would be below {floor:g} dB"
            if reason is None:
                layers.append(layer)
            else:
                left[shown(node)] = reason
    return layers, left


def positions(node: ir.Node) -> tuple[int, ...]:
    """Positions of the weights among a node's inputs."""
    return (1, 2) if node.op_type == "LSTM" else (1,)


def _both_computed(node: ir.Node) -> bool:
    """True for a product of two activations, which is no layer with weights."""
    return node.op_type == "MatMul" and all(constant_array(value) is None for value in node.inputs)


def _unable(node: ir.Node, operators: tuple[str, ...]) -> str | None:
    if node.op_type in _NO_FORM:
        return _NO_FORM[node.op_type]
    if node.op_type not in operators:
        return f"{node.op_type} is not in `operators`"
    if node.op_type == "LSTM":
        return _unable_lstm(node)
    if constant_array(node.inputs[0]) is not None:
        return "its constant is the first factor"
    if node.op_type == "Gemm":
        return _unable_gemm(node)
    return None


def _unable_gemm(node: ir.Node) -> str | None:
    if node.attributes.get_int("transA", 0):
        return "it transposes its input"
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if alpha <= 0 or (has_bias and beta != 1 and constant_array(node.inputs[2]) is None):
        return "its alpha or beta is unusual"
    return None


def _unable_lstm(node: ir.Node) -> str | None:
    if node.attributes.get_int("layout", 0):
        return "its layout is batch first"
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        return "it has peepholes"
    return None


def _unfit(node: ir.Node, operators: tuple[str, ...], least: int) -> str | None:
    """Why the weights do not suit; None where they do."""
    values = [node.inputs[index] for index in positions(node)]
    arrays = [constant_array(value) for value in values]
    if any(array is None for array in arrays):
        return "its weights are computed or may be fed"
    known = [array for array in arrays if array is not None]
    if any(array.dtype != np.float32 for array in known):
        return f"its weights are {known[0].dtype}"
    if any(array.ndim != (3 if node.op_type == "LSTM" else 2) for array in known):
        return f"its weights have {known[0].ndim} axes"
    if sum(array.size for array in known) < max(least, 1):
        return f"fewer than {least} weights"
    if not all(np.isfinite(array).all() for array in known):
        return "its weights hold NaN or infinity"
    if any(array.shape[-1 if _layout(node)[0] else 0] > _LONGEST_SUM for array in known):
        return "its sums may leave int32"
    if any(not _is_alike(use.node, use.idx, node, operators) for value in values if value for use in value.uses()):
        return "others read its weights too"
    return None


def _is_alike(reader: ir.Node, index: int, node: ir.Node, operators: tuple[str, ...]) -> bool:
    """True where another reader of the weights takes them as `node` does, so that the integers serve both."""
    same = reader.op_type == node.op_type and reader.graph is node.graph and index in positions(reader)
    return same and _layout(reader) == _layout(node) and _unable(reader, operators) is None


def _layout(node: ir.Node) -> tuple[bool, float]:
    """(weights are stored as [N, K], factor of the product)."""
    if node.op_type != "Gemm":
        return node.op_type == "LSTM", 1.0
    return bool(node.attributes.get_int("transB", 0)), node.attributes.get_float("alpha", 1.0)


def _layer(node: ir.Node, bits: int, rounded: dict[tuple[ir.Value, bool], Narrowed]) -> Layer:
    weights: dict[int, Narrowed] = {}
    worst = math.inf
    transposed, _ = _layout(node)
    for index in positions(node):
        value = node.inputs[index]
        array = constant_array(value)
        assert value is not None
        assert array is not None
        turned = np.swapaxes(array, -1, -2) if transposed else array
        if (value, transposed) not in rounded:
            rounded[value, transposed] = by_axes(turned, (0, 2) if turned.ndim == 3 else (1,), bits)
        weights[index] = rounded[value, transposed]
        worst = min(worst, sqnr_db(turned, weights[index].restored()))
    return Layer(shown(node), node, weights, worst)
