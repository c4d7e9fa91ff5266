"""Placement: which tensors are quantized so that the layers around them run in int8.

A runtime either wants everything that an int8 operator reads and makes quantized, or lets a layer hand on float to
whatever follows (`QuantFormat.float_outputs`). Everything below follows from the format; no runtime is named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgewright.contracts import QuantFormat
from edgewright.graph.dataflow import constant_tensor, is_standard
from edgewright.passes.quantize_static._layers import Layer, absorbed

if TYPE_CHECKING:
    import onnx_ir as ir

#: They hand on values as they are, so what they make has the range of what they read.
_SAME_RANGE = (
    *("Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    *("DepthToSpace", "SpaceToDepth", "Expand", "Gather"),
)


@dataclass(frozen=True)
class Placement:
    """Where a graph is quantized.

    Attributes:
        layers: Layers that run in int8.
        points: Names of the tensors that are quantized, in graph order.
        same: Tensors, points or not, that have the range of another one, by name.
        own_inputs: True where only the layers read what is quantized, and everything else the float tensor.
    """

    layers: Mapping[str, Layer]
    points: tuple[str, ...]
    same: Mapping[str, str] = field(default_factory=dict)
    own_inputs: bool = False

    def owner(self, point: str) -> str:
        """The tensor whose range `point` has."""
        while point in self.same:
            point = self.same[point]
        return point


def place(ir_model: ir.Model, layers: Mapping[str, Layer], form: QuantFormat) -> Placement:
    """The tensors that must be quantized for `layers` to run in int8."""
    nodes = list(ir_model.graph)
    values = {value.name: value for value in ir_model.graph.inputs}
    values |= {value.name: value for node in nodes for value in node.outputs}
    read = {layer.data for layer in layers.values()}
    wanted = _wanted(nodes, read, form)
    points = set(read)
    same: dict[str, str] = {}
    if _open(form):
        _pull_up(nodes, points, form)
    for node in nodes:
        layer = layers.get(node.outputs[0].name or "")
        if layer is not None:
            made = _name(absorbed(values[layer.result]))
            if layer.op not in form.float_outputs or made in wanted:
                points.add(made)
        elif node.op_type in form.operators and is_standard(node, node.op_type):
            _operator(node, points, wanted, same, form)
    order = [name for name in values if name in points]
    return Placement(layers, tuple(order), same, form.own_inputs)


def _open(form: QuantFormat) -> bool:
    """True for a runtime whose layers may all hand on float: only what layers read is quantized."""
    return set(form.layers) <= set(form.float_outputs)


def _operator(
    node: ir.Node, points: set[str], wanted: Collection[str], same: dict[str, str], form: QuantFormat
) -> None:
    """Quantize what an int8 operator makes, where all that it reads is quantized and something int8 reads its result."""
    read = [value for value in data_inputs(node) if constant_tensor(value) is None]
    keeps = is_standard(node, *_SAME_RANGE)
    if not read or len(read) < len(data_inputs(node)) or any(_name(value) not in points for value in read):
        return
    if _open(form):  # the dequantization moves on to the layer that follows
        if keeps:
            points.difference_update(_name(output) for output in node.outputs)
            same.update({_name(output): _name(read[0]) for output in node.outputs})
        return
    for output in node.outputs:
        made = output if keeps else absorbed(output)
        if _name(made) not in wanted:
            continue
        points.add(_name(made))
        if keeps:
            same[_name(made)] = _name(read[0])


def _pull_up(nodes: list[ir.Node], points: set[str], form: QuantFormat) -> None:
    """Quantize before operators that hand values on, not after them: they then move bytes, not floats."""
    for node in reversed(nodes):
        if not is_standard(node, *_SAME_RANGE) or node.op_type not in form.operators:
            continue
        read = [_name(output) for output in node.outputs if output.uses()]
        if read and all(name in points for name in read):
            points.update(_name(value) for value in data_inputs(node) if constant_tensor(value) is None)


def _wanted(nodes: list[ir.Node], read: set[str], form: QuantFormat) -> set[str]:
    """Tensors that int8 operators read, directly or through operators that run in int8 themselves."""
    wanted = set(read)
    for node in reversed(nodes):
        if node.op_type not in form.operators or not is_standard(node, node.op_type):
            continue
        if any(_name(output) in wanted or _name(absorbed(output)) in wanted for output in node.outputs):
            wanted.update(_name(value) for value in data_inputs(node))
    return wanted


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of an operator that are data, not sizes, axes or indices."""
    count = len(node.inputs) if is_standard(node, "Add", "Concat", "Mul", "Sum") else 1
    return [value for value in node.inputs[:count] if value is not None]


def _name(value: ir.Value) -> str:
    name: str | None = value.name
    assert name is not None
    return name
