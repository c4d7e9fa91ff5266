"""Layers that join several blobs: BinaryOp, Eltwise, Concat.

Source: Tencent/ncnn, src/layer/binaryop.cpp, eltwise.cpp and concat.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import Layer, Sizes

if TYPE_CHECKING:
    import onnx_ir as ir

#: BinaryOp's type -> operator, and whether its operands change places.
_BINARY = {
    0: ("Add", False), 1: ("Sub", False), 2: ("Mul", False), 3: ("Div", False), 4: ("Max", False), 5: ("Min", False),
    6: ("Pow", False), 7: ("Sub", True), 8: ("Div", True), 9: ("Pow", True),
}  # fmt: skip
_ELTWISE = {0: "Mul", 1: "Add", 2: "Max"}


def binary(layer: Layer) -> ir.Value:
    """BinaryOp: two blobs, or a blob and a number.

    Raises:
        EdgewrightError: E204 for an operation that is not known, E215 where the sizes do not go together.
    """
    kind, graph = layer.integer(0, 0), layer.graph
    if kind not in _BINARY:
        raise layer.unsupported(f"operation {kind}")
    op_type, swapped = _BINARY[kind]
    scalar, number = layer.flag(1), layer.number(2, 0.0)
    if scalar:
        operands = [layer.x, graph.scalar(number)]
        shape = layer.shaped(*layer.sizes)
    else:
        if len(layer.inputs) != 2:
            raise layer.refuse(f"it reads {len(layer.inputs)} blobs, but needs 2")
        operands = list(_aligned(layer, *layer.inputs))
        shape = layer.shaped(*_broadcast(layer, *(layer.sizes_of(operand) for operand in operands)))
    return graph.node(op_type, *(reversed(operands) if swapped else operands), shape=shape)


def _aligned(layer: Layer, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Both with as many sizes; ncnn puts those of the smaller at the outer end, unless only the inner one fits."""
    ranks = len(layer.sizes_of(a)), len(layer.sizes_of(b))
    if ranks[0] < ranks[1]:
        return layer.reshape(a, *_widened(layer.sizes_of(a), layer.sizes_of(b))), b
    if ranks[1] < ranks[0]:
        return a, layer.reshape(b, *_widened(layer.sizes_of(b), layer.sizes_of(a)))
    return a, b


def _widened(small: Sizes, large: Sizes) -> Sizes:
    ones = (1,) * (len(large) - len(small))
    if len(small) == 1 and small[0] != large[0]:
        return (*ones, *small)
    return (*small, *ones)


def _broadcast(layer: Layer, a: Sizes, b: Sizes) -> Sizes:
    """Sizes of the result.

    Raises:
        EdgewrightError: E215 where they do not go together.
    """
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        sizes = " and ".join(" x ".join(str(size) for size in sizes) for sizes in (a, b))
        raise layer.refuse(f"its inputs of {sizes} do not go together")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))


def eltwise(layer: Layer) -> ir.Value:
    """Eltwise: product, sum with coefficients, or maximum of blobs of one size.

    Raises:
        EdgewrightError: E204 for an operation that is not known, E215 where the sizes differ.
    """
    kind, coefficients, graph = layer.integer(0, 0), layer.numbers(1), layer.graph
    if kind not in _ELTWISE:
        raise layer.unsupported(f"operation {kind}")
    if len({layer.sizes_of(value) for value in layer.inputs}) > 1:
        raise layer.refuse("its inputs differ in size")
    values = list(layer.inputs)
    if kind == 1 and coefficients:
        if len(coefficients) != len(values):
            raise layer.refuse(f"it has {len(coefficients)} coefficients for {len(values)} inputs")
        values = [graph.node("Mul", x, graph.scalar(c)) for x, c in zip(values, coefficients, strict=True)]
    y = values[0]
    for value in values[1:]:
        y = graph.node(_ELTWISE[kind], y, value, shape=layer.shaped(*layer.sizes))
    if kind != 2 and not coefficients and all(value in layer.network.positive for value in layer.inputs):
        layer.network.positive.add(y)
    return y


def concat(layer: Layer) -> ir.Value:
    """Concat.

    Raises:
        EdgewrightError: E215 where other axes differ.
    """
    axis = layer.axis(0, 0, len(layer.sizes))
    sizes = [layer.sizes_of(value) for value in layer.inputs]
    others = {(len(size), size[:axis], size[axis + 1 :]) for size in sizes}
    if len(others) > 1:
        raise layer.refuse(f"its inputs differ in more than axis {axis}")
    shape = list(sizes[0])
    shape[axis] = sum(size[axis] for size in sizes)
    if len(layer.inputs) == 1:
        return layer.x
    output = layer.shaped(*shape)
    y = layer.graph.node("Concat", *_one_batch(layer, output[0]), shape=output, axis=axis + 1)
    if all(value in layer.network.positive for value in layer.inputs):
        layer.network.positive.add(y)
    return y


def _one_batch(layer: Layer, batch: int | str) -> Sequence[ir.Value]:
    """The inputs, constants repeated for each sample of the batch."""
    graph = layer.graph
    fed = next((value for value in layer.inputs if graph.shape(value)[0] == batch), layer.x)
    values = []
    for value in layer.inputs:
        if graph.shape(value)[0] == batch:
            values.append(value)
            continue
        samples = graph.typed(graph.node("Shape", fed, shape=(1,), start=0, end=1), np.int64)
        rank = len(layer.sizes_of(value)) + 1
        sizes = graph.node("Concat", samples, graph.ints(*layer.sizes_of(value)), shape=(rank,), axis=0)
        shape = (batch, *layer.sizes_of(value))
        values.append(graph.node("Expand", value, graph.typed(sizes, np.int64), shape=shape))
    return values
