"""View: a copy of a network in which every size is a number, for rules that calculate with indices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._sizes import evaluated, node_sizes
from edgewright.graph.dataflow import bypass, constant_array, is_standard, lift_constants
from edgewright.graph.shapes import infer, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: Elements of what is folded: sizes and index tables. Weights need no numbers here.
_SMALL = 4096
#: Their results are never the same twice.
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
#: No numbers are wanted of these: what they make is random, or stands for how a network is quantized.
_LEFT = (*_RANDOM, "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


class View:
    """The nodes of a network, with sizes and index tables as numbers.

    Attributes:
        graph: The copy's main graph, without Constant nodes.
        sizes: Static shape by value name, where it is known.
        numbers: Small constants, given or computed from constants and sizes, by value name.
        constant: Names of all values that no graph input decides, however large; sizes of tensors count as given.

    Args:
        batch: What an open first axis of an input is taken to be.
        side: What any other open size is taken to be.

    Raises:
        EdgewrightError: E212 where shapes cannot be inferred.
    """

    def __init__(self, ir_model: ir.Model, *, batch: int, side: int) -> None:
        copy = ir_model.clone()
        self.open = _close(copy, batch, side)
        lift_constants(copy)
        share_constants(copy)
        for value in copy.graph.outputs:
            value.shape = None if static_shape(value) is None else value.shape
        infer(copy)
        self.graph = copy.graph
        self.sizes = _sizes(copy)
        self.numbers = _numbers(copy)
        self.constant = {name for name, value in copy.graph.initializers.items() if not value.is_graph_input()}
        for node in self.graph:
            self._follow(node)

    def _follow(self, node: ir.Node) -> None:
        """Sizes and tables that hang on arithmetic with sizes, and what constants alone decide."""
        outputs = [value for value in node.outputs if value.name]
        if not all(value.name in self.sizes for value in outputs):
            self.sizes |= node_sizes(node, self.sizes, self.numbers)
        found = self._calculate(node)
        if found is not None:
            self.numbers[outputs[0].name or ""] = found
        if found is not None or self._is_constant(node):
            self.constant.update(value.name or "" for value in outputs)

    def _calculate(self, node: ir.Node) -> np.ndarray | None:
        """The small constant that a node computes from sizes and other small constants."""
        shape = self.sizes.get(node.outputs[0].name or "") if len(node.outputs) == 1 else None
        if shape is None or math.prod(shape) > _SMALL or has_bodies(node):
            return None
        if is_standard(node, "Shape", "Size"):
            sizes = self.shape(node.inputs[0])
            if sizes is None:
                return None
            if is_standard(node, "Size"):
                return np.array(math.prod(sizes), np.int64)
            part = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes)))
            return np.array(sizes[part], np.int64)
        if is_standard(node, "CastLike"):  # the second operand only names a type
            array, kind = self.numbers.get(node.inputs[0].name or ""), node.outputs[0].dtype
            return None if array is None or kind is None else array.astype(kind.numpy())
        known = all(value is None or value.name in self.numbers for value in node.inputs)
        if not known or is_standard(node, *_LEFT) or node.domain not in ("", "ai.onnx"):
            return None
        return evaluated(node, [value and self.numbers[value.name or ""] for value in node.inputs])

    def _is_constant(self, node: ir.Node) -> bool:
        if is_standard(node, *_RANDOM) or has_bodies(node):
            return False
        inputs = [value for value in node.inputs if value is not None][: 1 if is_standard(node, "CastLike") else None]
        return all(value.name in self.constant for value in inputs) and (bool(inputs) or is_standard(node, "Constant"))

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Static shape of a value; None where unknown."""
        return None if value is None else self.sizes.get(value.name or "")

    def is_constant(self, value: ir.Value | None) -> bool:
        """True for a value that no graph input decides."""
        return value is not None and value.name in self.constant


def _close(ir_model: ir.Model, batch: int, side: int) -> bool:
    """Give open sizes of the inputs numbers; False where there were none."""
    import onnx_ir as ir

    numbers: dict[str, int] = {}
    found = False
    for value in ir_model.graph.inputs:
        if value.shape is None or value.name in ir_model.graph.initializers:
            continue
        sizes: list[int] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                sizes.append(size)
                continue
            found = True
            number = batch if axis == 0 else side
            sizes.append(number if size.value is None else numbers.setdefault(size.value, number))
        value.shape = ir.Shape(sizes)
    return found


def _sizes(ir_model: ir.Model) -> dict[str, tuple[int, ...]]:
    graph = ir_model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    found = {value.name: shape for value in values if value.name and (shape := static_shape(value)) is not None}
    return {name: tuple(int(size) for size in shape) for name, shape in found.items()}


def _numbers(ir_model: ir.Model) -> dict[str, np.ndarray]:
    """Small constants."""
    found = {}
    for name, value in ir_model.graph.initializers.items():
        array = constant_array(value) if value.const_value is not None and value.const_value.size <= _SMALL else None
        if array is not None:
            found[name] = array
    return found


def share_constants(ir_model: ir.Model) -> None:
    """Let readers of a constant's Identity, which exporters write for equal weights, read the constant, in place."""
    for node in tuple(ir_model.graph):
        source = node.inputs[0] if is_standard(node, "Identity") else None
        if source is not None and source.is_initializer() and not source.is_graph_input():
            bypass(node, source)


def _is_graph(attribute: ir.Attr) -> bool:
    import onnx_ir as ir

    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def has_bodies(node: ir.Node) -> bool:
    """True for control flow."""
    return any(_is_graph(attribute) for attribute in node.attributes.values())


def integers(array: np.ndarray) -> list[int]:
    """The numbers of an integer array, in order."""
    return [int(number) for number in array.reshape(-1)]
