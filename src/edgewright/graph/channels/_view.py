"""View: a copy of a network in which every size is a number, for rules that calculate with indices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard, lift_constants
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: Elements of what is folded: sizes and index tables. Weights need no numbers here.
_SMALL = 4096
#: Their results are never the same twice.
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


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
        for value in copy.graph.outputs:
            value.shape = None if static_shape(value) is None else value.shape
        infer(copy)
        self.graph = copy.graph
        self.sizes = _sizes(copy)
        self.numbers = _numbers(copy)
        self.constant = {name for name, value in copy.graph.initializers.items() if not value.is_graph_input()}
        if self._spread() or any(value.name not in self.sizes for node in copy.graph for value in node.outputs):
            self._calculate(copy)
            self._spread()

    def _calculate(self, copy: ir.Model) -> None:
        """Find out sizes and tables that hang on arithmetic with sizes."""
        folded = copy.clone()
        fold(folded, lambda node: all(math.prod(static_shape(value) or (1,)) <= _SMALL for value in node.outputs))
        for value in folded.graph.outputs:
            value.shape = None if static_shape(value) is None else value.shape
        self.sizes |= _sizes(folded)
        if any(value.name not in self.sizes for node in folded.graph for value in node.outputs):
            infer(folded, keep_known=True)
            self.sizes |= _sizes(folded)
        self.numbers |= _numbers(folded)
        self.constant |= set(self.numbers)

    def _spread(self) -> bool:
        """Mark what constants alone decide; True where a node computes something from constants or sizes."""
        found = False
        for node in self.graph:
            found |= is_standard(node, "Shape", "Size")
            if self._is_constant(node):
                self.constant.update(value.name for value in node.outputs if value.name)
                found |= not is_standard(node, "QuantizeLinear", "DequantizeLinear")
            self._guess(node)
        return found

    def _is_constant(self, node: ir.Node) -> bool:
        if is_standard(node, *_RANDOM) or any(_is_graph(attribute) for attribute in node.attributes.values()):
            return False
        inputs = [value for value in node.inputs if value is not None]
        return all(value.name in self.constant for value in inputs) and (bool(inputs) or is_standard(node, "Constant"))

    def _guess(self, node: ir.Node) -> None:
        """The size of what one of the simple operators makes where folding has removed the node."""
        if is_standard(node, "Identity", "Cast", "CastLike", "Dropout", "Relu") and node.inputs[0] is not None:
            shape = self.sizes.get(node.inputs[0].name or "")
            if shape is not None and node.outputs[0].name:
                self.sizes.setdefault(node.outputs[0].name, shape)

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


def _is_graph(attribute: ir.Attr) -> bool:
    import onnx_ir as ir

    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def has_bodies(node: ir.Node) -> bool:
    """True for control flow."""
    return any(_is_graph(attribute) for attribute in node.attributes.values())


def integers(array: np.ndarray) -> list[int]:
    """The numbers of an integer array, in order."""
    return [int(number) for number in array.reshape(-1)]
