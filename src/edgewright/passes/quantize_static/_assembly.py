"""The quantized graph, made from the float one: Q and DQ at the points, integer weights and biases.

Names: the float producer keeps `x`, the integers are `x:q`, what the readers get is `x:dq`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import Names, add_initializer, drop_unused
from edgewright.passes.quantize_static._layers import Layer
from edgewright.passes.quantize_static._placement import Placement
from edgewright.passes.quantize_static._ranges import Range

if TYPE_CHECKING:
    import onnx_ir as ir

#: Largest integer bias: half of int32, the rest is for the products.
LARGEST_BIAS = 2**30


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer's weights as they will run.

    Attributes:
        levels: Integers in the node's own layout, int8.
        scales: Step of each output channel, f32[O].
        bias: Corrected bias, f32[O]; None where the layer has none.
    """

    levels: np.ndarray
    scales: np.ndarray
    bias: np.ndarray | None

    def weight(self, layer: Layer) -> np.ndarray:
        """The weights in float32, exactly as int8 kernels take them."""
        shape = [1] * self.levels.ndim
        shape[layer.axis] = -1
        exact: np.ndarray = self.levels.astype(np.float32) * self.scales.reshape(shape)
        return exact


def simulated(
    ir_model: ir.Model, placement: Placement, ranges: Mapping[str, Range], rounded: Mapping[str, Rounded]
) -> ir.Model:
    """A copy of the float graph that computes what the quantized one will: see `quantize`."""
    return simulated_values(ir_model, placement, ranges, rounded)[0]


def simulated_values(
    ir_model: ir.Model, placement: Placement, ranges: Mapping[str, Range], rounded: Mapping[str, Rounded]
) -> tuple[ir.Model, dict[str, ir.Value]]:
    """The same, and its values by the names that they have in the float graph."""
    copy = ir_model.clone()
    made = {value.name: value for node in copy.graph for value in node.outputs if value.name}
    quantize(copy, placement, ranges, rounded, integers=False)
    return copy, made


def quantize(
    ir_model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    *,
    integers: bool = True,
) -> None:
    """Quantize the float graph `ir_model` in place.

    Args:
        ir_model: The float graph.
        placement: What is quantized.
        ranges: By point; a point that shares another's range has none of its own.
        rounded: By layer; one without an entry keeps its float weights.
        integers: True for what ships, integer weights and biases behind DequantizeLinear; False for the same numbers as
            float weights, which an exact runtime evaluates as they are.
    """
    names = Names(ir_model)
    made = {value.name: value for node in ir_model.graph for value in node.outputs}
    for name, layer in placement.layers.items():
        if name in rounded:
            node = made[name].producer()
            assert node is not None
            adder = made[layer.adder].producer() if layer.adder else None
            scale = ranges[placement.owner(layer.data)].scale if integers else None
            set_weights(node, adder, layer, rounded[name], names, scale)
    readers = {id(made[name].producer()) for name in placement.layers} if placement.own_inputs else None
    made |= {value.name: value for value in ir_model.graph.inputs}
    for point in placement.points:
        held = ranges[placement.owner(point)]
        # ONNX Runtime 1.32 takes int8 for uint8 where it moves a Reshape between Q and DQ, before MatMul and Add.
        _quantize(ir_model.graph, made[point], held if integers else held.unsigned(), names, readers)


def integer_bias(bias: np.ndarray, scales: np.ndarray, data_scale: float) -> np.ndarray:
    """The bias in steps of the product, int32[O]."""
    steps = np.rint(bias.astype(np.float64) / (scales.astype(np.float64) * data_scale))
    assert np.abs(steps).max(initial=0) <= LARGEST_BIAS * 1.5, "weight_scales keeps the bias within int32"
    return steps.astype(np.int32)


def _quantize(
    graph: ir.Graph, value: ir.Value, held: Range, names: Names, readers: Collection[int] | None = None
) -> None:
    """Put Q and DQ after `value`; every node that read it reads the result, or those of `readers`, by id."""
    import onnx_ir as ir

    assert value.name is not None
    uses = tuple(use for use in value.uses() if readers is None or id(use.node) in readers)
    scale = add_initializer(graph, names.fresh(f"{value.name}:scale"), np.array(held.scale, np.float32))
    zero = add_initializer(graph, names.fresh(f"{value.name}:zero"), np.array(held.zero_point, held.dtype))
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=names.fresh_node(f"{value.name}/quantize"))
    steps = quantize.outputs[0]
    steps.name, steps.type, steps.shape = names.fresh(f"{value.name}:q"), ir.TensorType(zero.dtype), value.shape
    dequantize = _dequantize([steps, scale, zero], f"{value.name}:dq", names)
    dequantize.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, index in uses:
        node.replace_input_with(index, dequantize.outputs[0])
    if value.is_graph_output() and not uses:
        _hand_out(graph, value, dequantize.outputs[0], names)


def _hand_out(graph: ir.Graph, value: ir.Value, result: ir.Value, names: Names) -> None:
    """Let `result` be the graph's output under the name that `value` had."""
    name, shape, kind = value.name, value.shape, value.type
    assert name is not None
    value.name = names.fresh(f"{name}:float")
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    producer = result.producer()
    quantize = producer.inputs[0].producer() if producer is not None and producer.inputs[0] is not None else None
    assert quantize is not None
    quantize.replace_input_with(0, value)
    result.name, result.shape, result.type = name, shape, kind


def _dequantize(inputs: list[ir.Value], wanted: str, names: Names, axis: int | None = None) -> ir.Node:
    import onnx_ir as ir

    attributes = {} if axis is None else {"axis": axis}
    node = ir.node("DequantizeLinear", inputs, attributes, name=names.fresh_node(f"{wanted}/dequantize"))
    output = node.outputs[0]
    output.name, output.type = names.fresh(wanted), ir.TensorType(ir.DataType.FLOAT)
    return node


def set_weights(
    node: ir.Node, adder: ir.Node | None, layer: Layer, rounded: Rounded, names: Names, data_scale: float | None
) -> None:
    """Give the layer its rounded weights and corrected bias; as integers where `data_scale` says how its input is."""
    graph = node.graph
    assert graph is not None
    old = node.inputs[1]
    assert old is not None
    if data_scale is None:
        node.replace_input_with(1, add_initializer(graph, names.fresh(f"{old.name}:rounded"), rounded.weight(layer)))
    else:
        parts = (rounded.levels, rounded.scales, np.zeros(len(rounded.scales), np.int8))
        node.replace_input_with(1, _constant(node, old.name or "", parts, layer.axis, names))
    drop_unused(old)
    if rounded.bias is not None:
        _set_bias(node, adder, layer, rounded, names, data_scale)


def _set_bias(
    node: ir.Node, adder: ir.Node | None, layer: Layer, rounded: Rounded, names: Names, data_scale: float | None
) -> None:
    graph = node.graph
    assert graph is not None
    assert rounded.bias is not None
    if layer.op == "MatMul":
        if adder is None:
            return
        second = adder.inputs[1]
        holder, index = (
            adder,
            1 if second is not None and second.is_initializer() else 0,
        )  # the product may be quantized
    else:
        holder, index = node, 2
    old = holder.inputs[index] if index < len(holder.inputs) else None
    stem = (old.name if old is not None else None) or f"{layer.name}:bias"
    if data_scale is None:
        new = add_initializer(graph, names.fresh(f"{stem}:corrected"), rounded.bias)
    else:
        scales = (rounded.scales * np.float32(data_scale)).astype(np.float32)
        steps = integer_bias(rounded.bias, scales, 1.0)
        new = _constant(holder, stem, (steps, scales, np.zeros(len(scales), np.int32)), 0, names)
    if len(holder.inputs) <= index:
        holder.resize_inputs(index + 1)
    holder.replace_input_with(index, new)
    drop_unused(old)


def _constant(
    node: ir.Node, stem: str, parts: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int, names: Names
) -> ir.Value:
    """A constant of integers, scales and zero points behind a DequantizeLinear in front of `node`."""
    graph = node.graph
    assert graph is not None
    levels, scale, zero = (
        add_initializer(graph, names.fresh(f"{stem}:{suffix}"), array)
        for suffix, array in zip(("q", "scale", "zero"), parts, strict=True)
    )
    dequantize = _dequantize([levels, scale, zero], f"{stem}:dq", names, axis)
    dequantize.outputs[0].shape = levels.shape
    graph.insert_before(node, dequantize)
    return dequantize.outputs[0]
