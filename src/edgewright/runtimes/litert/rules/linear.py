"""Gemm, MatMul and Einsum: FULLY_CONNECTED where one side is constant, else BATCH_MATMUL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Quantization, Tensor
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import arranged, identity, moved_last
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import integer_layer

if TYPE_CHECKING:
    import onnx_ir as ir

#: XNNPACK, which runs the layer, takes no tensor of more.
_MOST_AXES = 6


@rule("Gemm")
def gemm(lowering: Lowering, node: ir.Node) -> None:
    """FULLY_CONNECTED; alpha and beta go into the constants."""
    data, second = node.inputs[0], node.inputs[1]
    assert data is not None
    assert second is not None
    attributes = node.attributes
    layer = integer_layer(lowering, node)
    if layer is not None:
        rows = layer.weight if attributes.get_int("transB", 0) else layer.weight.T
        source = lowering.ordered(lowering.raw(data), (0, 1))
        made = fully_connected(
            lowering, source, layer.stored(lowering, rows, axis=0), layer.bias, layer.act, layer.quantization
        )
        lowering.hold(layer.result, made, (0, 1))
        return
    alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    order = (1, 0) if attributes.get_int("transA", 0) else (0, 1)
    source = lowering.ordered(lowering.get(data), order)
    weight = None if lowering.is_held(second) else lowering.constant(second)
    third = node.inputs[2] if len(node.inputs) > 2 else None
    bias = None if third is None or lowering.is_held(third) else lowering.constant(third)
    if bias is not None and bias.size == 1:
        bias = np.repeat(bias.reshape(-1), lowering.sizes(node.outputs[0])[1])
    vector = (
        bias is not None and bias.shape[-1:] == (lowering.sizes(node.outputs[0])[1],) and bias.size == bias.shape[-1]
    )
    if weight is None or (third is not None and not vector):
        _general_gemm(lowering, node, source, alpha, beta)
        return
    rows = weight if attributes.get_int("transB", 0) else weight.T
    target, act = lowering.absorb(node.outputs[0])
    kernel = lowering.array(_times(rows, alpha), second.name or "weight")
    added = None if bias is None else lowering.array(_times(bias.reshape(-1), beta).astype(np.float32), _name(third))
    lowering.hold(target, fully_connected(lowering, source, kernel, added, act), (0, 1))


def _general_gemm(lowering: Lowering, node: ir.Node, source: Tensor, alpha: float, beta: float) -> None:
    second, made = node.inputs[1], node.outputs[0]
    assert second is not None
    constant = None if lowering.is_held(second) else lowering.constant(second)
    tensor = lowering.fit(second, (0, 1)) if constant is None else lowering.array(constant, second.name or "weight")
    turned = bool(node.attributes.get_int("transB", 0))
    sizes = lowering.sizes(made)
    product = lowering.op("BATCH_MATMUL", [source, tensor], sizes, adjX=False, adjY=turned)
    if alpha != 1:
        product = lowering.op("MUL", [product, lowering.number(alpha, product)], sizes)
    third = node.inputs[2] if len(node.inputs) > 2 else None
    if third is not None:
        added = lowering.fit(third, (0, 1))
        if beta != 1:
            added = lowering.op("MUL", [added, lowering.number(beta, added)], sizes_of(added))
        product = lowering.op("ADD", [product, added], sizes)
    lowering.hold(made, product, (0, 1))


@rule("MatMul")
def matmul(lowering: Lowering, node: ir.Node) -> None:
    """A layer where the second factor is a constant matrix; the Add of a constant vector after it is its bias."""
    data, second = node.inputs[0], node.inputs[1]
    assert data is not None
    assert second is not None
    constant = not lowering.is_held(second)
    if not lowering.is_held(data) or not constant or len(lowering.sizes(second)) != 2:
        _products(lowering, node)
        return
    adder = _adder(lowering, node)
    layer = integer_layer(lowering, node, adder=adder)
    held = lowering.get(data) if layer is None else lowering.raw(data)
    order = moved_last(held.order, len(held.order) - 1)
    source = lowering.ordered(held, order)
    if adder is not None:
        lowering.skip(adder)
    if layer is not None:
        kernel = layer.stored(lowering, layer.weight.T, axis=0)
        made = fully_connected(lowering, source, kernel, layer.bias, layer.act, layer.quantization)
        lowering.hold(layer.result, made, order)
        return
    weight = lowering.required(second, "weights")
    kernel = lowering.array(np.ascontiguousarray(weight.T), second.name or "weight")
    result, bias = node.outputs[0], None
    if adder is not None:
        value = next(item for item in adder.inputs if item is not None and item is not node.outputs[0])
        bias = lowering.array(lowering.required(value, "bias").reshape(-1).astype(np.float32), _name(value))
        result = adder.outputs[0]
    target, act = lowering.absorb(result)
    lowering.hold(target, fully_connected(lowering, source, kernel, bias, act), order)


def fully_connected(
    lowering: Lowering,
    source: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    act: str = "NONE",
    quantization: Quantization | None = None,
) -> Tensor:
    """FULLY_CONNECTED of the last axis of `source` with the rows of `kernel`."""
    sizes = sizes_of(source)
    if len(sizes) > _MOST_AXES:
        flat = lowering.reshaped(source, (sizes[0], math.prod(sizes[1:-1]), sizes[-1]))
        made = fully_connected(lowering, flat, kernel, bias, act, quantization)
        return lowering.reshaped(made, (*sizes[:-1], kernel.shape[0]))
    return lowering.op(
        "FULLY_CONNECTED", [source, kernel, bias], (*sizes[:-1], kernel.shape[0]),
        quantization=quantization, version=5, keepNumDims=True, fusedActivationFunction=act, weightsFormat=0,
        asymmetricQuantizeInputs=False,
    )  # fmt: skip


def _products(lowering: Lowering, node: ir.Node) -> None:
    """Matrices times matrices; a transposed factor is read as it lies."""
    made = node.outputs[0]
    sizes = lowering.sizes(made)
    factors, turned = [], []
    ranks = [len(lowering.sizes(value)) for value in node.inputs if value is not None]
    if min(ranks) < 2:
        raise Refused("LiteRT multiplies matrices, not vectors")
    for value, rank in zip(node.inputs, ranks, strict=True):
        assert value is not None
        held = lowering.get(value)
        swapped = (*range(rank - 2), rank - 1, rank - 2)
        turned.append(held.order == swapped and held.order != identity(rank))
        factors.append(held.tensor if turned[-1] else lowering.ordered(held, identity(rank)))
    if max(ranks) > 5:
        raise Refused(f"LiteRT multiplies tensors of up to 5 axes; it has {max(ranks)}")
    tensor = lowering.op("BATCH_MATMUL", factors, sizes, adjX=turned[0], adjY=turned[1])
    lowering.hold(made, tensor, identity(len(sizes)))


@rule("Einsum")
def einsum(lowering: Lowering, node: ir.Node) -> None:
    """Two operands, each letter once in each: a product of matrices between renamed axes."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, _, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not result or "." in equation or any(len(set(t)) < len(t) for t in (*terms, result)):
        raise Refused(f"`{equation}` is no product of two tensors with named axes")
    first, second = terms
    batch = [c for c in result if c in first and c in second]
    shared = [c for c in first if c in second and c not in result]
    rows = [c for c in result if c in first and c not in second]
    columns = [c for c in result if c in second and c not in first]
    if set(first) != {*batch, *shared, *rows} or set(second) != {*batch, *shared, *columns}:
        raise Refused(f"`{equation}` sums an operand by itself")
    a, b = (_in_order(lowering, value, term, letters) for value, term, letters in (
        (node.inputs[0], first, (batch, rows, shared)), (node.inputs[1], second, (batch, shared, columns)),
    ))  # fmt: skip
    sizes = (*sizes_of(a)[:-1], sizes_of(b)[-1])
    product = lowering.op("BATCH_MATMUL", [a, b], sizes, adjX=False, adjY=False)
    made = [*batch, *rows, *columns]
    order = tuple(result.index(letter) for letter in made)
    wanted = arranged(lowering.sizes(node.outputs[0]), order)
    if wanted != sizes:
        product = lowering.reshaped(product, wanted)
    lowering.hold(node.outputs[0], product, order)


def _in_order(
    lowering: Lowering, value: ir.Value | None, term: str, letters: tuple[list[str], list[str], list[str]]
) -> Tensor:
    """The operand as [batch..., A, B] with the letters of each of the last two groups merged."""
    assert value is not None
    held = lowering.get(value)
    batch, first, second = letters
    tensor = lowering.ordered(held, tuple(term.index(letter) for letter in (*batch, *first, *second)))
    sizes = dict(zip(term, held.sizes, strict=True))
    merged = [_product([sizes[letter] for letter in group]) for group in (first, second)]
    wanted = (*(sizes[letter] for letter in batch), *merged)
    return tensor if wanted == sizes_of(tensor) else lowering.reshaped(tensor, wanted)


def _product(sizes: list[int]) -> int:
    if len(sizes) == 1:
        return sizes[0]
    made = int(np.prod(sizes, dtype=np.int64))
    grows = [size for size in sizes if type(size) is not int]
    return type(grows[0])(made) if grows else made


def _adder(lowering: Lowering, node: ir.Node) -> ir.Node | None:
    """The Add of a constant vector that alone reads the product."""
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "Add") or reader.graph is not node.graph:
        return None
    other = next((value for value in reader.inputs if value is not node.outputs[0]), None)
    if other is None:
        return None
    width = lowering.sizes(node.outputs[0])[-1]
    array = None if lowering.is_held(other) else lowering.constant(other)
    return reader if array is not None and array.shape == (width,) and array.dtype.kind == "f" else None


def _times(array: np.ndarray, factor: float) -> np.ndarray:
    scaled: np.ndarray = np.ascontiguousarray(array if factor == 1 else array * np.array(factor, array.dtype))
    return scaled


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or "bias"
