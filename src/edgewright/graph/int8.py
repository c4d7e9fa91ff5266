"""Products of int8 weights: which could saturate in 16 bits, and the same integers as unsigned weights, which cannot.

x86 CPUs without VNNI multiply uint8 by int8 and add pairs of products in 16 bits (`vpmaddubsw`). 255 x 64 twice fits, 255 x
65 twice does not: what is larger is cut off, silently. Weights of 7 bits are safe, and so are 8 bits where the two weights
of a pair are at most 128 together; `neighbours` says which these are. So are unsigned weights, for which runtimes widen first
(slower, and why nobody ships them).

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, PMADDUBSW. Which operators do so was measured on ONNX
Runtime 1.32 and OpenVINO 2026.4 (`benchmarks/saturation.py`): not depthwise convolutions, not ConvInteger, not integer
operators on int8 activations; but layers between DequantizeLinear also on int8 activations, which both shift to uint8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused, is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

#: Two products of 255 and this fit in 16 bits with sign; of this plus one they do not.
LARGEST_SAFE_WEIGHT = 64
#: The same for the two weights of a pair together.
LARGEST_SAFE_PAIR = 128
#: The largest integer of symmetric weights.
_LARGEST = 127
#: Inputs that kernels load together, and add in pairs.
_ADJACENT = 4
#: What lies between int8 and uint8: q - z is the same for q + 128 and z + 128.
_SHIFT = 128


@dataclass(frozen=True, eq=False)
class Room:
    """The integers that weights may be.

    Attributes:
        largest: Largest absolute value, 63 or 127.
        numbers: Inputs of one number may meet in a pair, whose weights are at most 128 together, i64[K]; None where
            pairs are of no concern.
    """

    largest: int
    numbers: np.ndarray | None = None

    def least_step(self, rows: np.ndarray) -> np.ndarray:
        """The step of each output channel for which nothing is cut off, f64[G, O]."""
        sizes = np.abs(rows).astype(np.float64)
        step: np.ndarray = np.max(sizes, axis=2) / self.largest
        if self.numbers is None:
            return step
        pairs: np.ndarray = largest_pairs(sizes, self.numbers).max(axis=2) / LARGEST_SAFE_PAIR
        widest: np.ndarray = np.maximum(step, pairs)
        return widest

    def held(self, levels: np.ndarray) -> np.ndarray:
        """Integers, as floats, cut off where there is no room for them: as little as may be from both of a pair."""
        cut: np.ndarray = np.clip(levels, -self.largest, self.largest)
        if self.numbers is None:
            return cut
        sizes = by_number(np.abs(cut), self.numbers)
        if sizes.shape[-1] == 1:
            return cut
        second = np.partition(sizes, -2, axis=-1)[..., -2:-1]
        first = np.minimum(
            sizes.max(axis=-1, keepdims=True), np.maximum(LARGEST_SAFE_WEIGHT, LARGEST_SAFE_PAIR - second)
        )
        # The one largest gets its own limit, the others what it leaves; of two that are equal, each gets a half.
        alone = sizes > second
        limits = np.where(alone, first, np.minimum(LARGEST_SAFE_PAIR - first, first))
        order = np.argsort(self.numbers, kind="stable")
        flat = np.empty_like(cut)
        there = by_number(np.ones(len(self.numbers), bool), self.numbers)
        flat[..., order] = limits[..., there]
        np.clip(cut, -flat, flat, out=cut)
        return cut


@dataclass(frozen=True)
class _Operands:
    """Inputs of a node that hold weights: where they stand; `activation` None where the node itself makes uint8."""

    activation: int | None
    weight: int
    scale: int | None
    zero_point: int


#: Operators that multiply integers. MatMul and Conv do so where runtimes fuse them with the DequantizeLinear before them.
_INTEGER_LAYERS = {
    "MatMulInteger": (_Operands(0, 1, None, 3),),
    "QLinearConv": (_Operands(0, 3, 4, 5),),
    "QLinearMatMul": (_Operands(0, 3, 4, 5),),
    # ONNX Runtime's own. Source: its docs/ContribOperators.md
    "DynamicQuantizeMatMul": (_Operands(None, 1, 2, 3),),
    "DynamicQuantizeLSTM": (_Operands(None, 1, 8, 9), _Operands(None, 2, 10, 11)),
    "MatMulIntegerToFloat": (_Operands(0, 1, 3, 5),),
    "QAttention": (_Operands(0, 1, 4, 7),),
    "QGemm": (_Operands(0, 3, 4, 5),),
}
_FUSED_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_STORED = _Operands(None, 0, 1, 2)  # of DequantizeLinear


def saturating_layers(ir_model: ir.Model) -> tuple[str, ...]:
    """First outputs of the layers whose sums of two products may leave 16 bits, by the weights that they have.

    QDQ, QLinear and integer operators count, in subgraphs too. Weights that meet float activations do not.
    """
    return tuple(
        node.outputs[0].name or ""
        for graph in ir_model.graphs()
        for node in graph
        if any(_reaches_far(weight, _layout(node)) for weight in _weights(node))
    )


def neighbours(shape: Sequence[int], *, convolution: bool, groups: int = 1) -> np.ndarray | None:
    """Which products of a layer's inputs are added in pairs: those with one number, i64[K]; None where that is not known.

    Kernels load four neighbouring input channels at a time, at one place of the window. Where channels are odd in number,
    some kernels go on to the next place instead. Measured on the runtimes and operators above (`benchmarks/saturation.py`).

    Args:
        shape: Of the weights: [O, C / groups, *kernel] of a convolution, [K, O] or [O, K] otherwise.
        convolution: True for a convolution; K is then C / groups x places of the window.
        groups: Of the convolution: one input channel is depthwise only where there are several groups.
    """
    if not convolution:
        return np.arange(shape[0]) // _ADJACENT
    channels, places = shape[1], math.prod(shape[2:])
    if channels == 1 and groups > 1:  # depthwise: sums are made in 32 bits
        return np.arange(places)
    if channels % 2 and places > 1:
        return None
    numbers: np.ndarray = (np.arange(channels) // _ADJACENT)[:, None] * places + np.arange(places)
    return numbers.reshape(-1)


def room_of(node: ir.Node) -> Room | None:
    """The integers that the weights of a QDQ layer may be so that its products stay within 16 bits.

    None where the layer has no such sums, or where its weights go beyond already: they are not for kernels that saturate.
    """
    weights = tuple(_weights(node)) if is_standard(node, *_FUSED_LAYERS) else ()
    array = constant_array(weights[0]) if weights else None
    if array is None or array.dtype != np.int8 or _reaches_far(weights[0], _layout(node)):
        return None
    layout = _layout(node)
    if layout is None or array.ndim < 2:
        return Room(LARGEST_SAFE_WEIGHT)
    convolution, transposed = layout
    shape = array.shape if convolution else (array.shape[1:] if transposed else array.shape[-2:])
    numbers = neighbours(shape, convolution=convolution)
    return Room(LARGEST_SAFE_WEIGHT) if numbers is None else Room(_LARGEST, numbers)


def with_unsigned_weights(ir_model: ir.Model) -> ir.Model:
    """A copy that multiplies the same integers as uint8 weights: each int8 weight and its zero point plus 128."""
    copy = ir_model.clone()
    names = Names(copy)
    for graph in tuple(copy.graphs()):
        for node in tuple(graph):
            for holder, operands in _holders(node):
                _make_unsigned(holder, operands, names)
    return copy


def _weights(node: ir.Node) -> Iterator[ir.Value]:
    """What the node may multiply with activations in pairs."""
    if _is_depthwise(node):
        return
    if is_standard(node, *_FUSED_LAYERS):
        first, second = _dequantize(node.inputs[0]), _dequantize(node.inputs[1])
        if first is not None and second is not None and second.inputs[0] is not None:
            yield second.inputs[0]
        return
    for operands in _integer_operands(node):
        weight = node.inputs[operands.weight]
        activation = None if operands.activation is None else node.inputs[operands.activation]
        if weight is not None and _type_of(activation) != "int8":
            yield weight


def _holders(node: ir.Node) -> Iterator[tuple[ir.Node, _Operands]]:
    """The nodes that read the weights of a layer as integers, with the place of these inputs."""
    if is_standard(node, *_FUSED_LAYERS):
        holder = _dequantize(node.inputs[1])
        if holder is not None:
            yield holder, _STORED
        return
    for operands in _integer_operands(node):
        yield node, operands


def _integer_operands(node: ir.Node) -> tuple[_Operands, ...]:
    if node.domain not in ("", "ai.onnx", "com.microsoft"):
        return ()
    found = _INTEGER_LAYERS.get(node.op_type, ())
    return tuple(operands for operands in found if operands.weight < len(node.inputs))


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and is_standard(producer, "DequantizeLinear") else None


def _is_depthwise(node: ir.Node) -> bool:
    """True for a convolution with one input channel for each output channel, which has no pairs to add."""
    group = node.attributes.get("group")
    if group is None or group.as_int() == 1:
        return False
    weight = node.inputs[3 if node.op_type == "QLinearConv" else 1]
    shape = None if weight is None else weight.shape
    if shape is None:
        holder = _dequantize(weight)
        shape = holder.inputs[0].shape if holder is not None and holder.inputs[0] is not None else None
    return shape is not None and len(shape) > 1 and shape[1] == 1


def _type_of(value: ir.Value | None) -> str:
    return "" if value is None or value.dtype is None else value.dtype.name.lower()


def _layout(node: ir.Node) -> tuple[bool, bool] | None:
    """Of a layer whose pairs are known: is it a convolution, are its weights [O, ...] instead of [..., O]; else None."""
    if not is_standard(node, "Conv", "Gemm", "MatMul"):
        return None
    convolution = node.op_type == "Conv"
    return convolution, convolution or bool(node.attributes.get_int("transB", 0))


def _reaches_far(weight: ir.Value, layout: tuple[bool, bool] | None) -> bool:
    """True for int8 weights whose products may saturate; int8 that is not constant may be anything."""
    array = constant_array(weight)
    if array is None:
        return _type_of(weight) == "int8"
    if array.dtype != np.int8 or not array.size:
        return False
    sizes = np.abs(array.astype(np.int16))
    if int(sizes.max()) <= LARGEST_SAFE_WEIGHT:
        return False
    if layout is None or array.ndim < 2:
        return True
    convolution, transposed = layout
    rows = sizes.reshape(len(sizes), -1) if transposed else np.moveaxis(sizes, -2, -1).reshape(-1, sizes.shape[-2])
    numbers = neighbours(array.shape if convolution else rows.shape[::-1], convolution=convolution)
    return numbers is None or bool((largest_pairs(rows, numbers) > LARGEST_SAFE_PAIR).any())


def largest_pairs(sizes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The two largest of `sizes` [..., K] among the inputs of each number, added: [..., numbers]."""
    grid = by_number(sizes, numbers)
    if grid.shape[-1] == 1:
        result: np.ndarray = grid[..., 0]
        return result
    two: np.ndarray = np.partition(grid, -2, axis=-1)[..., -2:].sum(axis=-1)
    return two


def by_number(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`values` [..., K] as [..., numbers, most of one number], zeros where there are fewer."""
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    grid: np.ndarray = np.zeros((*values.shape[:-1], len(counts), counts.max()), values.dtype)
    grid[..., numbers[order], np.arange(len(numbers)) - starts[numbers[order]]] = values[..., order]
    return grid


def _make_unsigned(holder: ir.Node, operands: _Operands, names: Names) -> None:
    weights = constant_array(holder.inputs[operands.weight])
    zero_point = _zero_point(holder, operands)
    if weights is None or weights.dtype != np.int8 or zero_point is None:
        return
    if len(holder.inputs) <= operands.zero_point:
        holder.resize_inputs(operands.zero_point + 1)
    for index, array in ((operands.weight, weights), (operands.zero_point, zero_point)):
        old, graph = holder.inputs[index], holder.graph
        assert graph is not None
        wanted = names.fresh(f"{old.name if old is not None else holder.outputs[0].name}:unsigned")
        holder.replace_input_with(
            index, add_initializer(graph, wanted, (array.astype(np.int16) + _SHIFT).astype(np.uint8))
        )
        drop_unused(old)


def _zero_point(holder: ir.Node, operands: _Operands) -> np.ndarray | None:
    """The constant zero point of the weights, zeros in the shape of the scales where it is left out; else None."""
    given = holder.inputs[operands.zero_point] if operands.zero_point < len(holder.inputs) else None
    if given is not None:
        return constant_array(given)
    scale = None if operands.scale is None else holder.inputs[operands.scale]
    if scale is None:
        return np.zeros((), np.int8)
    array = constant_array(scale)
    return None if array is None else np.zeros(array.shape, np.int8)
