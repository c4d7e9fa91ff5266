"""Cost: multiply-adds and bytes of every node, at batch 1.

Only products that are summed count as multiply-adds; normalisations, activations, pooling and resizing count 0, as the
field's tables do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgewright.graph.dataflow import constant_array, constant_tensor, is_standard
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer, static_shape
from edgewright.records import LayerCost

if TYPE_CHECKING:
    import onnx_ir as ir

Sizes = tuple[int, ...]
_SMALL = 2**20  # elements of what is folded to find sizes out; weights that are computed in the graph included


def layers(ir_model: ir.Model) -> tuple[LayerCost, ...]:
    """What each node of the main graph costs, in graph order; a symbolic batch counts as 1.

    A node with subgraphs costs what its most expensive branch, or its body times the iterations, costs.
    """
    copy = _at_batch_1(ir_model)
    _solve(copy)
    return tuple(_cost(node) for node in copy.graph if not is_standard(node, "Constant"))


def total(ir_model: ir.Model) -> tuple[int | None, int | None]:
    """Multiply-adds of one run at batch 1, and the bytes that it has to move however well it is made.

    These bytes are the weights, the graph's inputs and its outputs, each once; what layers hand on may stay in caches.
    None where a size is not known, or an operator's meaning.
    """
    copy = _at_batch_1(ir_model)
    _solve(copy)
    macs = [_cost(node).macs for node in copy.graph if not is_standard(node, "Constant")]
    graphs = (copy.graph, *copy.graph.subgraphs())
    tensors = [value.const_value for graph in graphs for value in graph.initializers.values()]
    weights = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    inputs = [value for value in copy.graph.inputs if value.name not in copy.graph.initializers]
    sizes = [_bytes(value) for value in (*inputs, *copy.graph.outputs)]
    return (
        None if None in macs else sum(number for number in macs if number is not None),
        None if None in sizes else weights + sum(size for size in sizes if size is not None),
    )


def _at_batch_1(ir_model: ir.Model) -> ir.Model:
    """A copy with the inputs' symbolic first size set to 1 and all shapes inferred from that."""
    import onnx_ir as ir

    copy = ir_model.clone()
    batches = {None}
    for value in copy.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            batches.add(value.shape[0].value)
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    named = batches - {None}
    for value in copy.graph.inputs:
        if value.shape is not None:
            sizes = [size if isinstance(size, int) or size.value not in named else 1 for size in value.shape]
            value.shape = ir.Shape(sizes)
    _infer(copy)
    return copy


def _infer(ir_model: ir.Model) -> None:
    """Inference that may say more of the graph's outputs than they declare."""
    for value in ir_model.graph.outputs:
        if static_shape(value) is None:
            value.shape = None
    infer(ir_model, keep_known=True)


def _solve(ir_model: ir.Model) -> None:
    """Fill in the sizes that hang on arithmetic with sizes: fold that in a copy, and take over what comes out."""
    unknown = [value for node in ir_model.graph for value in node.outputs if value.name and static_shape(value) is None]
    if not unknown:
        return
    folded = ir_model.clone()
    fold(folded, lambda node: static_shape(node.outputs[0]) is not None and _size_of(node) <= _SMALL)
    _infer(folded)
    values = {value.name: value for node in folded.graph for value in node.outputs}
    values |= folded.graph.initializers
    for value in unknown:
        found = values.get(value.name)
        if found is not None and found.shape is not None:
            value.shape, value.type = found.shape, found.type or value.type


def _size_of(node: ir.Node) -> int:
    return math.prod(static_shape(node.outputs[0]) or ())


def _cost(node: ir.Node) -> LayerCost:
    inputs = list(dict.fromkeys(value for value in node.inputs if value is not None))
    weights = [tensor for value in inputs if (tensor := constant_tensor(value)) is not None]
    moved = [value for value in inputs if constant_tensor(value) is None] + [v for v in node.outputs if v.name]
    sizes = [_bytes(value) for value in moved]
    shape = node.outputs[0].shape
    bodies = [_body(attribute.as_graph()) for attribute in _graph_attributes(node)]
    return LayerCost(
        name=node.outputs[0].name or "",
        node=node.name or "",
        op_type=node.op_type,
        shape=() if shape is None else tuple(size if isinstance(size, int) else size.value for size in shape),
        macs=_macs_of_subgraphs(node, [macs for macs, _ in bodies]) if bodies else _macs(node),
        parameter_bytes=sum(tensor.nbytes for tensor in weights) + sum(size for _, size in bodies),
        activation_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
    )


def _bytes(value: ir.Value) -> int | None:
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype.name == "STRING":  # texts have any length
        return None
    size_bytes: float = math.prod(shape) * value.dtype.itemsize
    return math.ceil(size_bytes)


# --- multiply-adds ----------------------------------------------------------------------------------------------------


def _macs(node: ir.Node) -> int | None:
    """Multiply-adds of one node; None where a size that decides them is unknown."""
    if not is_standard(node, node.op_type):
        return None  # an operator whose meaning is not known here
    entry = _COUNTED.get(node.op_type)
    if entry is None:
        return 0
    count, positions = entry
    shapes = [static_shape(node.inputs[i] if i < len(node.inputs) else None) for i in positions]
    output = static_shape(node.outputs[0])
    if output is None and node.op_type in ("LSTM", "GRU", "RNN"):
        output = ()  # Y may be absent, and is not needed
    if output is None or any(shape is None for shape in shapes):
        return None
    return count(node, [shape for shape in shapes if shape is not None], output)


def _conv(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int:
    return math.prod(output) * math.prod(shapes[1][1:])


def _conv_transpose(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int:
    return math.prod(shapes[0]) * math.prod(shapes[1][1:])  # each input element is spread by one filter


def _matmul(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int:
    return math.prod(output) * shapes[0][-1]


def _gemm(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int:
    return math.prod(output) * shapes[0][0 if node.attributes.get_int("transA", 0) else 1]


def _recurrent(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int:
    source, weight, recurrence = shapes  # X[T, N, I] (N first in layout 1), W[D, gates H, I], R[D, gates H, H]
    return source[0] * source[1] * (math.prod(weight) + math.prod(recurrence))


def _einsum(node: ir.Node, shapes: list[Sizes], output: Sizes) -> int | None:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) < 2:
        return 0
    shapes = [static_shape(value) or () for value in node.inputs]
    if "." in equation or len(terms) != 2 or [len(term) for term in terms] != [len(shape) for shape in shapes]:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


#: Operator -> how to count, and the positions of the inputs whose shapes that needs.
_COUNTED: dict[str, tuple[Callable[[ir.Node, list[Sizes], Sizes], int | None], Sizes]] = {
    "Conv": (_conv, (0, 1)),
    "ConvInteger": (_conv, (0, 1)),
    "QLinearConv": (_conv, (0, 3)),
    "DeformConv": (_conv, (0, 1)),
    "ConvTranspose": (_conv_transpose, (0, 1)),
    "MatMul": (_matmul, (0, 1)),
    "MatMulInteger": (_matmul, (0, 1)),
    "QLinearMatMul": (_matmul, (0, 3)),
    "Gemm": (_gemm, (0, 1)),
    "LSTM": (_recurrent, (0, 1, 2)),
    "GRU": (_recurrent, (0, 1, 2)),
    "RNN": (_recurrent, (0, 1, 2)),
    "Einsum": (_einsum, ()),
}


# --- subgraphs --------------------------------------------------------------------------------------------------------


def _graph_attributes(node: ir.Node) -> list[ir.Attr]:
    import onnx_ir as ir

    return [item for item in node.attributes.values() if item.type == ir.AttributeType.GRAPH and not item.is_ref()]


def _body(graph: ir.Graph) -> tuple[int | None, int]:
    costs = [_cost(node) for node in graph if not is_standard(node, "Constant")]
    macs = [cost.macs for cost in costs]
    known = None if None in macs else sum(number for number in macs if number is not None)
    return known, sum(cost.parameter_bytes for cost in costs)


def _macs_of_subgraphs(node: ir.Node, bodies: list[int | None]) -> int | None:
    if any(macs is None for macs in bodies):
        return None
    most = max(macs for macs in bodies if macs is not None)
    runs: int | None = 1
    if most and is_standard(node, "Loop"):
        count = constant_array(node.inputs[0])
        runs = None if count is None else int(count.reshape(-1)[0])
    elif most and is_standard(node, "Scan"):
        runs = _scan_length(node)
    return None if runs is None else most * runs


def _scan_length(node: ir.Node) -> int | None:
    scanned = node.attributes.get_int("num_scan_inputs", 1)
    axes = node.attributes.get_ints("scan_input_axes", (0,))
    shape = static_shape(node.inputs[len(node.inputs) - scanned])
    return None if shape is None else int(shape[axes[0]])
