"""Matrix products: dense layers with constant weights, and products of two activations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.runtimes.ncnn.layers.quantized import FLOATS_OUT, SCALES, Quantized, quantized
from edgewright.runtimes.ncnn.network import Network, UnsupportedError, constant, given, require_constant, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir


def lower_gemm(network: Network, node: ir.Node) -> None:
    """Gemm with constant weights as InnerProduct."""
    if node.attributes.get_int("transA", 0):
        raise UnsupportedError("it transposes its input")
    integers = quantized(node)
    weight = require_constant(node.inputs[1], "weight") if integers is None else integers.levels
    weight = weight if node.attributes.get_int("transB", 0) else weight.T
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    bias = None
    if given(node, 2) is not None:
        bias = np.float32(beta) * require_constant(node.inputs[2], "bias")
        if bias.ndim > 1 and bias.shape[0] != 1:
            raise UnsupportedError("its bias differs by row")
        bias = np.broadcast_to(bias.reshape(-1), (weight.shape[0],))
    if integers is not None and alpha != 1:
        raise UnsupportedError("its alpha is not 1, and its weights are integers")
    weight = weight if integers is not None else np.float32(alpha) * weight
    _dense(network, node, node.outputs[0], weight, bias, integers)


def lower_matmul(network: Network, node: ir.Node) -> None:
    """MatMul: InnerProduct where the second factor is a constant matrix, else MatMul."""
    integers = quantized(node)
    second = integers.levels if integers is not None else constant(node.inputs[1])
    if second is not None and second.ndim == 2:
        result, bias = _bias(network, node, second.shape[1])
        _dense(network, node, result, second.T, bias, integers)
    else:
        multiply(network, node, transposed=False)


def lower_einsum(network: Network, node: ir.Node) -> None:
    """Einsum where it is a product over the last axis of the first factor and the first or last of the second."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms, _, result = equation.partition("->")
    factors = terms.split(",")
    second = constant(given(node, 1))
    if len(factors) != 2 or "." in equation or second is None or second.ndim != 2 or len(factors[1]) != 2:
        raise UnsupportedError(f"equation `{equation}` is no product by a constant matrix")
    rows, (first, last) = factors[0], factors[1]
    kept = last if rows[-1] == first else first
    if rows[-1] not in (first, last) or first == last or kept in rows or result != rows[:-1] + kept:
        raise UnsupportedError(f"equation `{equation}` is no product by a constant matrix")
    _dense(network, node, node.outputs[0], second.T if rows[-1] == first else second, None, None)


def multiply(network: Network, node: ir.Node, *, transposed: bool) -> None:
    """A product of two activations; `transposed` where the second is given as [..., N, K]."""
    first, second, made = (shape_of(value) for value in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if len(first) < 2 or len(second) < 2:
        raise UnsupportedError("it multiplies a vector")
    outer = math.prod(made[:-2])
    if any(math.prod(shape[:-2]) not in (1, outer) for shape in (first, second)):
        raise UnsupportedError(
            f"ncnn multiplies {list(first)} by {list(second)} only where all or none of the matrices repeat"
        )
    names = []
    for value, shape in zip(node.inputs[:2], (first, second), strict=True):
        assert value is not None
        count = math.prod(shape[:-2])
        names.append(network.read(value, shape[-2:] if outer == 1 else (count, *shape[-2:])))
    dims = made[-2:] if outer == 1 else (outer, *made[-2:])
    network.add("MatMul", names, node.outputs[0], {0: int(transposed)}, dims=dims)


def _dense(
    network: Network,
    node: ir.Node,
    result: ir.Value,
    weight: np.ndarray,
    bias: np.ndarray | None,
    integers: Quantized | None,
) -> None:
    """InnerProduct over the last axis; `weight` is [O, K]."""
    data = node.inputs[0]
    assert data is not None
    shape = shape_of(data)
    rows = math.prod(shape[:-1])
    activation = network.activation(result)
    params: dict[int, Param] = {0: weight.shape[0], 1: int(bias is not None), 2: weight.size}
    params |= activation.params
    if integers is not None:
        params[SCALES] = FLOATS_OUT
    weights = [Weight(weight, tagged=True) if integers is not None else network.weight(weight)]
    weights += [] if bias is None else [Weight(np.asarray(bias, np.float32))]
    weights += [] if integers is None else integers.scales()
    source = network.read(data, shape[-1:] if rows == 1 else (rows, shape[-1]))
    dims = weight.shape[:1] if rows == 1 else (rows, weight.shape[0])
    network.add("InnerProduct", (source,), activation.value, params, weights, dims=dims)


def _bias(network: Network, node: ir.Node, outputs: int) -> tuple[ir.Value, np.ndarray | None]:
    """What the Add of a constant vector, where one alone reads the product, makes of it; and the vector."""
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "Add"):
        return node.outputs[0], None
    array = constant(reader.inputs[1 if reader.inputs[0] is node.outputs[0] else 0])
    if array is None or array.shape not in ((outputs,), (1, outputs)):
        return node.outputs[0], None
    network.done.add(id(reader))
    return reader.outputs[0], array.astype(np.float32).reshape(-1)


LOWERINGS = {"Einsum": lower_einsum, "Gemm": lower_gemm, "MatMul": lower_matmul}
