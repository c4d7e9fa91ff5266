"""Remove dead code: nodes that nothing reads, nodes that do nothing, and constants and functions without a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.graph.dataflow import bypass, constant_array, drop_unused, is_standard
from edgewright.graph.shapes import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = False


@dataclass(frozen=True)
class Config:
    """No options."""


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Remove dead code in place; returns how many nodes went, and which operators did nothing."""
    import onnx_ir.passes.common as library

    nodes = sum(1 for graph in ir_model.graphs() for _ in graph)
    idle: Counter[str] = Counter()
    for graph in tuple(ir_model.graphs()):
        for node in tuple(graph):
            source = _unchanged(node)
            if source is not None and bypass(node, source):
                idle[node.op_type] += 1
    library.RemoveUnusedNodesPass()(ir_model)
    library.RemoveUnusedFunctionsPass()(ir_model)
    library.RemoveUnusedOpsetsPass()(ir_model)
    constants = sum(len(graph.initializers) for graph in ir_model.graphs())
    for graph in ir_model.graphs():
        for value in tuple(graph.initializers.values()):
            drop_unused(value)
    return {
        "nodes_before": nodes,
        "nodes_after": sum(1 for graph in ir_model.graphs() for _ in graph),
        "idle": dict(sorted(idle.items())),
        "constants_removed": constants - sum(len(graph.initializers) for graph in ir_model.graphs()),
    }


def _unchanged(node: ir.Node) -> ir.Value | None:
    """The input that the node's first output always equals, else None."""
    check = _IDLE.get(node.op_type)
    if check is None or not is_standard(node, node.op_type) or not node.inputs or node.inputs[0] is None:
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    return node.inputs[0] if check(node) else None


def _always(node: ir.Node) -> bool:
    return True


def _dropout(node: ir.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_array(node.inputs[2])
    return training is not None and not training.any()


def _cast(node: ir.Node) -> bool:
    source = node.inputs[0]
    assert source is not None
    return source.dtype is not None and source.dtype.value == node.attributes.get_int("to", 0)


def _pad(node: ir.Node) -> bool:
    pads = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _transpose(node: ir.Node) -> bool:
    order = node.attributes.get_ints("perm", None)
    if order is None:
        source = node.inputs[0]
        assert source is not None
        return source.shape is not None and source.shape.rank() < 2
    return list(order) == list(range(len(order)))


def _reshape(node: ir.Node) -> bool:
    source, wanted = static_shape(node.inputs[0]), constant_array(node.inputs[1])
    if source is None or wanted is None or len(wanted) != len(source):
        return False
    copies = node.attributes.get_int("allowzero", 0) == 0  # then a 0 means: the input's size
    return all(size in (-1, have) or (size == 0 and copies) for size, have in zip(wanted, source, strict=True))


def _expand(node: ir.Node) -> bool:
    source, wanted = static_shape(node.inputs[0]), constant_array(node.inputs[1])
    if source is None or wanted is None or len(wanted) > len(source):
        return False
    return all(size in (1, have) for size, have in zip(wanted, source[len(source) - len(wanted) :], strict=True))


def _flatten(node: ir.Node) -> bool:
    source = node.inputs[0]
    assert source is not None
    return source.shape is not None and source.shape.rank() == 2 and node.attributes.get_int("axis", 1) in (1, -1)


_IDLE: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Pad": _pad,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Concat": lambda node: len(node.inputs) == 1,
    "Sum": lambda node: len(node.inputs) == 1,
    "Max": lambda node: len(node.inputs) == 1,
    "Min": lambda node: len(node.inputs) == 1,
    "Mean": lambda node: len(node.inputs) == 1,
}
