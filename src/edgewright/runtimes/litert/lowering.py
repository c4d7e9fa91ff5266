"""Lowering: the ONNX graph, node by node, as operators of LiteRT.

Each ONNX value is held by one tensor of the file, in some order of its axes (`layouts`). An order is chosen where a
kernel asks for it (convolutions want channels last) and handed on as it is by everything else, so transposes are
written only where two such wishes meet. A value behind a DequantizeLinear stays held by its integers until somebody
needs floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Problem
from edgewright.formats.tflite.writing import Network, Quantization, Tensor
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.graph.naming import shown
from edgewright.runtimes.litert.drafting import DTYPES, Draft, Held, parameters, shapes, sizes_of, stored
from edgewright.runtimes.litert.layouts import (
    NHWC,
    Order,
    Sizes,
    arranged,
    count,
    identity,
)
from edgewright.runtimes.litert.preparing import Prepared
from edgewright.runtimes.litert.registering import RULES, Refused

if TYPE_CHECKING:
    import onnx_ir as ir


class Lowering(Draft):
    """The graph and what has been written of it.

    Attributes:
        prepared: The graph.
        problems: Nodes that could not be written.
    """

    def __init__(self, prepared: Prepared, *, integer_inputs: bool = False, integer_outputs: bool = False) -> None:
        graph = prepared.ir.graph
        values = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
        super().__init__(frozenset(value.name for value in values if value.name))
        self.prepared = prepared
        self._integer_inputs, self._integer_outputs = integer_inputs, integer_outputs
        self.problems: list[Problem] = []
        self._held: dict[ir.Value, Held] = {}
        self._done: set[ir.Node] = set()
        self._broken: set[ir.Value] = set()
        self._restored: dict[ir.Value, np.ndarray] = {}

    # --- the whole graph

    def run(self) -> None:
        """Write every node; those that cannot be become `problems`."""
        graph = self.prepared.ir.graph
        for value in graph.inputs:
            if value.is_initializer():
                continue
            try:
                self._open(value)
            except Refused as reason:
                self._broken.add(value)
                self.problems.append(Problem(value.name or "", "input", str(reason)))
        for node in graph:
            if node not in self._done:
                self._lower(node)
        for value in graph.outputs:
            if value not in self._held and value not in self._broken:
                self._output_of_constant(value)
            if value in self._held:
                self._hand_out(value)

    def network(self) -> Network:
        """The file: what its outputs need, and no more."""
        inputs = [self._held[value].tensor for value in self.prepared.ir.graph.inputs if not value.is_initializer()]
        outputs = list(dict.fromkeys(self.raw(value).tensor for value in self.prepared.ir.graph.outputs))
        needed, kept = set(outputs), []
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                kept.append(operator)
                needed.update(tensor for tensor in operator.inputs if tensor is not None)
        return Network(inputs, outputs, kept[::-1])

    def held(self) -> dict[str, Held]:
        """How each value of the graph that was written is held, by its name."""
        return {value.name: held for value, held in self._held.items() if value.name}

    def inner(self, graph: ir.Graph) -> bool:
        """Write the nodes of a branch; False where some cannot be."""
        for node in graph:
            if node not in self._done:
                self._lower(node)
        return not any(value in self._broken for value in graph.outputs)

    def give_up(self, node: ir.Node) -> None:
        """What `node` makes is not there, for a reason that was told already."""
        self._broken.update(node.outputs)

    def _lower(self, node: ir.Node) -> None:
        if any(value in self._broken for value in node.inputs if value is not None):
            self._broken.update(node.outputs)  # one problem is told once, where it begins
            return
        start = len(self.operators)
        self._done.add(node)
        try:
            function = RULES.get(node.op_type) if is_standard(node, node.op_type) else None
            if function is None:
                raise Refused("LiteRT has no operator for it, nor is it made of others here")
            for value in node.outputs:
                if value.name and value.uses() and value.dtype is not None:
                    self.dtype(value)
            function(self, node)
        except Refused as reason:
            del self.operators[start:]
            self._broken.update(node.outputs)
            self.problems.append(Problem(node.name or shown(node), node.op_type, str(reason)))

    def _open(self, value: ir.Value) -> None:
        """A graph input lies in the file as its first readers want it: channels last before convolutions."""
        sizes = self.sizes(value)
        order = NHWC if len(sizes) == 4 and _meets_image_layer(value) else identity(len(sizes))
        tensor = Tensor(value.name or "", self.dtype(value), *shapes(arranged(sizes, order)))
        if self._integer_inputs and tensor.dtype == "float32":
            tensor.quantization = _only_quantization(value)
            tensor.dtype = "float32" if tensor.quantization is None else "int8"
        self._held[value] = Held(tensor, order)

    def _output_of_constant(self, value: ir.Value) -> None:
        array = self.constant(value)
        if array is None:
            return
        tensor = Tensor(value.name or "", self.dtype(value), array.shape, data=stored(array))
        self._held[value] = Held(tensor, identity(array.ndim))

    def _hand_out(self, value: ir.Value) -> None:
        """The file's own outputs are floats where the graph's are, under the graph's name."""
        tensor = self._held[value].tensor
        if self._integer_outputs and tensor.dtype == "int8" and tensor.name not in self._ends():
            tensor.name = value.name or tensor.name
            return
        held = self.get(value)
        if held.tensor is not self._held[value].tensor:
            held.tensor.name = value.name or held.tensor.name
            self._held[value] = held

    def _ends(self) -> set[str]:
        """Names that tensors at the graph's ends have to keep."""
        graph = self.prepared.ir.graph
        return {value.name for value in (*graph.inputs, *graph.outputs) if value.name}

    # --- what is known of values

    def sizes(self, value: ir.Value) -> Sizes:
        """Sizes in ONNX's order.

        Raises:
            Refused: Where they are not known.
        """
        found = self.prepared.sizes.get(value.name or "")
        if found is None:
            raise Refused(f"the size of `{value.name}` is not known before it runs, or grows out of proportion")
        return found

    def dtype(self, value: ir.Value) -> str:
        """Type in the file.

        Raises:
            Refused: For one that LiteRT has no kernels for.
        """
        name = value.dtype.numpy().name if value.dtype is not None else "float32"
        if name not in DTYPES:
            raise Refused(f"`{value.name}` is {name}")
        return DTYPES[name]

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """The array of a constant, None for anything else; weights stored in integers count as their floats.

        Raises:
            Refused: For one that differs from batch to batch.
        """
        node = None if value is None else value.producer()
        ahead = node is not None and node not in self._done and is_standard(node, "DequantizeLinear")
        if node is not None and ahead and constant_array(node.inputs[0]) is not None:
            self._lower(node)  # it stands later in the graph than who looks at it
        if value is not None and value in self._restored:
            return self._restored[value]
        array = constant_array(value)
        if array is not None and value is not None and value.name in self.prepared.varying:
            raise Refused(f"`{value.name}` depends on the batch")
        return array

    def anyhow(self, value: ir.Value) -> np.ndarray | None:
        """The array of a constant for batch 1, also of one that differs from batch to batch."""
        return constant_array(value)

    def restore(self, value: ir.Value, floats: np.ndarray) -> None:
        """`value` is a constant that the file stores in integers for nobody: layers in floats read these."""
        self._restored[value] = floats

    def required(self, value: ir.Value | None, what: str) -> np.ndarray:
        """The same, where nothing but a constant will do."""
        array = self.constant(value)
        if array is None:
            raise Refused(f"its {what} must be constant")
        return array

    def is_held(self, value: ir.Value | None) -> bool:
        """True for what the network computes."""
        return value is not None and value in self._held

    def raw(self, value: ir.Value) -> Held:
        """How `value` is held, maybe by integers that stand for floats."""
        if value not in self._held:
            array = self.constant(value)
            if array is None:
                raise Refused(f"`{value.name}` is not made in this graph")
            return Held(self.array(array, value.name or "constant"), identity(array.ndim))
        return self._held[value]

    def get(self, value: ir.Value) -> Held:
        """How `value` is held, as floats where it is float."""
        held = self.raw(value)
        if held.tensor.quantization is None or value.dtype is None or not value.dtype.is_floating_point():
            return held
        return Held(self.dequantized(held.tensor), held.order)

    # --- how values are held

    def hold(self, value: ir.Value, tensor: Tensor, order: Order) -> None:
        """`value` is held by `tensor`; a tensor that nothing has named yet takes its name."""
        assert len(order) == len(tensor.shape), (value.name, order, tensor.shape)
        if value.name and tensor.name not in self.taken and self.operators:
            made = self.operators[-1].outputs
            if tensor in made and tensor.data is None:
                tensor.name = value.name
        self._held[value] = Held(tensor, order)
        node = value.producer()
        rounded = node.inputs[0] if node is not None and is_standard(node, "QuantizeLinear") else None
        if rounded is not None and rounded not in self._held:
            self._held[rounded] = Held(tensor, order)  # a layer in integers: what it makes is there in steps alone

    # --- orders

    def fit(self, value: ir.Value, order: Order) -> Tensor:
        """`value` as an operand that broadcasts against a tensor in `order`, of that or a lower rank."""
        rank = len(order)
        array = None if self.is_held(value) else self.constant(value)
        if array is not None:
            full = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(order)
            leading = 0
            while leading < rank - 1 and full.shape[leading] == 1:
                leading += 1
            return self.array(full.reshape(full.shape[leading:] or (1,)), value.name or "constant")
        held = self.get(value)
        missing = rank - len(held.order)
        tensor = self.ordered(held, tuple(axis - missing for axis in order if axis >= missing))
        if not missing or set(order[:missing]) == set(range(missing)):
            return tensor
        sizes = iter(sizes_of(tensor))
        return self.reshaped(tensor, [1 if axis < missing else next(sizes) for axis in order])

    def common_order(self, values: Sequence[ir.Value], rank: int) -> Order:
        """The order in which values meet at least cost: that of the largest one that has the full rank."""
        best: tuple[tuple[int, bool], Order] | None = None
        for value in values:
            if not self.is_held(value):
                continue
            held = self._held[value]
            if len(held.order) == rank:
                score = (count(held.sizes), held.order != identity(rank))
                if best is None or score > best[0]:
                    best = (score, held.order)
        return identity(rank) if best is None else best[1]

    # --- fusing

    def absorb(self, value: ir.Value) -> tuple[ir.Value, str]:
        """The activation that alone reads `value`, where kernels clamp to its range: what it makes, and its name."""
        reader = sole_consumer(value)
        if reader is None or reader.graph is not self.prepared.ir.graph:
            return value, "NONE"
        kind = clamp(reader, self) if reader.inputs[0] is value else None
        if kind is None or kind not in ("RELU", "RELU6", "RELU_N1_TO_1"):
            return value, "NONE"
        self.skip(reader)
        return reader.outputs[0], kind

    def skip(self, node: ir.Node) -> None:
        """`node` is part of what was written already."""
        self._done.add(node)


def clamp(node: ir.Node, lowering: Lowering) -> str | None:
    """The operator of LiteRT that a Relu or Clip with constant bounds is; None where there is none."""
    if is_standard(node, "Relu"):
        return "RELU"
    if not is_standard(node, "Clip"):
        return None
    bounds = [lowering.constant(value) for value in node.inputs[1:3]]
    low, high = (float(item.reshape(())) if item is not None else None for item in (*bounds, None, None)[:2])
    if len(node.inputs) > 1 and node.inputs[1] is not None and bounds[0] is None:
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bounds[1] is None:
        return None
    known = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1", (0.0, None): "RELU"}
    return known.get((low, high))  # type: ignore[arg-type]


def _only_quantization(value: ir.Value) -> Quantization | None:
    """What the int8 mean that alone are made of `value`; None where somebody reads its floats."""
    reader = sole_consumer(value)
    if reader is None or not is_standard(reader, "QuantizeLinear"):
        return None
    held, made = parameters(reader), reader.outputs[0]
    fits = made.dtype is not None and made.dtype.numpy() == np.int8
    return held if held is not None and len(held.scale) == 1 and fits else None


def _meets_image_layer(value: ir.Value) -> bool:
    """True where a layer that wants channels last reads `value`, or what element-wise operators make of it."""
    seen, stack = {value}, [value]
    while stack:
        for use in stack.pop().uses():
            if is_standard(use.node, *_IMAGE_LAYERS):
                return True
            if is_standard(use.node, *_TRANSPARENT):
                fresh = [output for output in use.node.outputs if output not in seen]
                seen.update(fresh)
                stack.extend(fresh)
    return False


_IMAGE_LAYERS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "DepthToSpace", "SpaceToDepth", "LRN")
_TRANSPARENT = (
    *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "Cast", "Pad", "Slice", "Identity", "PRelu", "LeakyRelu"),
    *("BatchNormalization", "InstanceNormalization", "QuantizeLinear", "DequantizeLinear", "Concat", "Split", "Neg"),
)
