"""Which constants of a graph are learnt: weights, biases, parameters of norms, slopes; and integers that stand for them.

A constant is learnt where it enters a layer as its weight, directly or through nodes that read constants only (a reshape,
a dequantization, a weight that the graph computes). So is a vector that is added or multiplied on the way to a layer, or
added to what a MatMul makes. Limits, sizes, scales of quantization, tables of anchors and masks stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgewright.graph.dataflow import Names, add_initializer, constant_tensor, is_standard
from edgewright.learn.operators.table import key_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: Inputs of layers that hold what is learnt.
SLOTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2, 3),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "edgewright.LearntSigns": (1,),
}
#: Of nodes that read constants only, those of whose inputs all are weights; of the others the first is.
_ALL_INPUTS = ("Add", "Concat", "Div", "Mul", "Sub")


@dataclass
class Roles:
    """What is learnt, by name of the initializer, in graph order.

    Attributes:
        floats: Float constants.
        integers: Integers behind a DequantizeLinear, with one of the nodes that read them: learnt as floats.
        statistics: Running means and variances of batch norms; never learnt by gradients, also where layers read them as well.
        halves: Constants of 16-bit floats that would be learnt if they were wider.
    """

    floats: dict[str, None] = field(default_factory=dict)
    integers: dict[str, ir.Node] = field(default_factory=dict)
    statistics: dict[str, None] = field(default_factory=dict)
    halves: list[str] = field(default_factory=list)


def roles(ir_model: ir.Model) -> Roles:
    """The roles of the main graph's initializers; the graph is not changed."""
    found = Roles()
    derived = _derived(ir_model.graph)
    ahead = _before_layers(ir_model.graph)
    for node in ir_model.graph:
        for index in SLOTS.get(key_of(node), ()):
            if index < len(node.inputs):
                _learn(node.inputs[index], found, derived, direct=True)
        if is_standard(node, "BatchNormalization"):
            found.statistics.update({value.name or "": None for value in node.inputs[3:5] if _is_own(value)})
        if is_standard(node, "Add", "Mul"):
            for own, other in (node.inputs, node.inputs[::-1]):
                if _shifts(own, other, derived) and (_made_by_matmul(other, node) or node.outputs[0] in ahead):
                    _learn(own, found, derived, direct=True)
    for name in found.statistics:
        found.floats.pop(name, None)
    return found


def own_statistics(ir_model: ir.Model) -> None:
    """Give running statistics that something else reads as well a copy of their own, in place.

    Exporters write equal constants once: zeros may be the mean of one norm and the bias of another.
    """
    names = Names(ir_model)
    for node in ir_model.graph:
        for index in (3, 4) if is_standard(node, "BatchNormalization") else ():
            value = node.inputs[index]
            if value is not None and _is_own(value) and (len(value.uses()) > 1 or value.is_graph_output()):
                assert value.const_value is not None
                own = add_initializer(ir_model.graph, names.fresh(value.name or ""), value.const_value.numpy())
                node.replace_input_with(index, own)


def _derived(graph: ir.Graph) -> set[ir.Value]:
    """Values that are made of constants alone."""
    found: set[ir.Value] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if inputs and all(constant_tensor(value) is not None or value in found for value in inputs):
            found.update(node.outputs)
    return found


def _before_layers(graph: ir.Graph) -> set[ir.Value]:
    """Values that a layer with weights reads, at once or later."""
    found: set[ir.Value] = set()
    for node in reversed(list(graph)):
        if is_standard(node, *SLOTS) or any(value in found for value in node.outputs):
            found.update(value for value in node.inputs if value is not None)
    return found


def _learn(value: ir.Value | None, found: Roles, derived: set[ir.Value], *, direct: bool) -> None:
    if value is None:
        return
    if _is_own(value) and _is_float(value) and (direct or _size(value) > 1):
        found.floats[value.name or ""] = None
        return
    if _is_own(value) and _is_half(value) and (value.name or "") not in found.halves:
        found.halves.append(value.name or "")
    node = value.producer()
    if value not in derived or node is None:
        return
    if is_standard(node, "DequantizeLinear") and _is_own(node.inputs[0]) and not _is_float(node.inputs[0]):
        integers = node.inputs[0]
        if integers is not None and all(_same_reading(use.node, node) for use in integers.uses()):
            found.integers[integers.name or ""] = node
        return
    for source in node.inputs if is_standard(node, *_ALL_INPUTS) else node.inputs[:1]:
        _learn(source, found, derived, direct=direct and not is_standard(node, *_ALL_INPUTS))


def _same_reading(one: ir.Node, other: ir.Node) -> bool:
    """True where both nodes dequantize with the same constants, so that the integers mean one thing."""
    same = is_standard(one, "DequantizeLinear") and one.inputs[1:] == other.inputs[1:]
    return same and dict(one.attributes) == dict(other.attributes)


def _shifts(own: ir.Value | None, other: ir.Value | None, derived: set[ir.Value]) -> bool:
    """True for a constant vector that meets what the network computes; what meets its input is preprocessing."""
    if own is None or other is None or other in derived or constant_tensor(other) is not None:
        return False
    if other.is_graph_input():
        return False
    if own in derived:
        producer = own.producer()
        return producer is not None and is_standard(producer, "DequantizeLinear")
    tensor = constant_tensor(own)
    return tensor is not None and sum(1 for size in tensor.shape.numpy() if size != 1) == 1


def _made_by_matmul(value: ir.Value | None, node: ir.Node) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and is_standard(producer, "MatMul") and node.op_type == "Add"


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _is_float(value: ir.Value | None) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype.name in ("FLOAT", "DOUBLE")


def _is_half(value: ir.Value | None) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype.name in ("FLOAT16", "BFLOAT16")


def _size(value: ir.Value) -> int:
    tensor = constant_tensor(value)
    return 0 if tensor is None else int(tensor.size)
