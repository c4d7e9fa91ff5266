"""The graph as it is planned: functions inlined but for edgewright's own, constants folded, every size a number.

Where the batch is open the plan is for one sample, and the runner takes the samples one after the other. That is right only
where samples do not meet: the graph is also instantiated for another batch, and every tensor must grow along its first axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Problem
from edgewright.graph.dataflow import constant_tensor, lift_constants
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer, static_shape
from edgewright.ops import DOMAIN
from edgewright.ops.functions import OPERATORS

if TYPE_CHECKING:
    import onnx_ir as ir

#: The other batch: a factor that no size has by chance.
_OTHER = 7
_LARGEST_FOLDED = 2**24


@dataclass(frozen=True)
class Prepared:
    """A graph of fixed sizes.

    Attributes:
        graph: The graph.
        fixed: True where it could be made; else the graph is as it was.
        open_batch: True where it stands for one sample of an open batch.
        problems: What cannot be planned whatever the operators are.
    """

    graph: ir.Graph
    fixed: bool
    open_batch: bool
    problems: tuple[Problem, ...]


def prepare(ir_model: ir.Model) -> Prepared:
    """A prepared copy of `ir_model`."""
    inputs = [value for value in ir_model.graph.inputs if not value.is_initializer()]
    problems = tuple(problem for value in inputs for problem in _input_problems(value))
    open_batch = any(_open(value) for value in inputs)
    if problems:
        return Prepared(ir_model.graph, False, open_batch, problems)
    model = _instantiated(ir_model, 1)
    if open_batch:
        problems = _meetings(model.graph, _instantiated(ir_model, _OTHER).graph)
    return Prepared(model.graph, True, open_batch, problems)


def _open(value: ir.Value) -> bool:
    return value.shape is not None and any(not isinstance(size, int) for size in value.shape)


def _input_problems(value: ir.Value) -> list[Problem]:
    if value.dtype is None or value.dtype.name != "FLOAT":
        return [
            Problem(
                value.name or "",
                "Input",
                f"it is {value.dtype.name.lower() if value.dtype else 'of no type'}, not float32",
            )
        ]
    if value.shape is None or any(not isinstance(size, int) for size in list(value.shape)[1:]):
        shape = "unknown" if value.shape is None else str(value.shape)
        return [
            Problem(
                value.name or "", "Input", f"more than its batch is open: {shape}; --set onnx.sizes=NAME=1x3x224x224"
            )
        ]
    return []


def is_own(node: ir.Node) -> bool:
    """True for the operators that edgewright has kernels for; another function may share the domain."""
    return node.domain == DOMAIN and node.op_type in OPERATORS


def _instantiated(ir_model: ir.Model, batch: int) -> ir.Model:
    """A copy for this batch with nothing left to compute that is known."""
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    copy = ir_model.clone()
    for key in [key for key in copy.functions if key[0] == DOMAIN and key[1] in OPERATORS]:
        del copy.functions[key]
    if copy.functions:
        copy = InlinePass()(copy).model
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([size if isinstance(size, int) else batch for size in value.shape])
    for value in copy.graph.outputs:
        if static_shape(value) is None:
            value.shape = None  # what is declared there would stay
    lift_constants(copy)
    infer(copy)
    for node in copy.graph:
        if node.op_type == "CastLike" and node.inputs[1] is not None and node.inputs[1].dtype is not None:
            kind = int(node.inputs[1].dtype)
            node.op_type = "Cast"
            node.resize_inputs(1)
            node.attributes["to"] = ir.AttrInt64("to", kind)
    if _foldable(copy.graph):
        fold(copy, _may_fold)
        infer(copy)
    return copy


def _foldable(graph: ir.Graph) -> bool:
    return any(
        node.op_type in ("Shape", "Size", "ConstantOfShape", "Range")
        or (node.inputs and all(value is None or constant_tensor(value) is not None for value in node.inputs))
        for node in graph
        if node.op_type not in ("DequantizeLinear", "If", "Loop", "Scan")
    )


def _may_fold(node: ir.Node) -> bool:
    shapes = [static_shape(value) for value in node.outputs]
    return not is_own(node) and all(
        shape is None or np.prod(shape, dtype=np.int64) <= _LARGEST_FOLDED for shape in shapes
    )


def _meetings(one: ir.Graph, more: ir.Graph) -> tuple[Problem, ...]:
    """Nodes of which what they make does not grow with the batch along its first axis, and nowhere else."""
    others = {value.name: static_shape(value) for node in more for value in node.outputs}
    problems = []
    for node in one:
        for value in node.outputs:
            shape, grown = static_shape(value), others.get(value.name)
            if shape is None or grown is None:
                continue  # inference knows nothing of it
            if not shape or grown != (shape[0] * _OTHER, *shape[1:]):
                problems.append(
                    Problem(node.name or value.name or "", node.op_type, "it mixes samples of an open batch")
                )
                break
    return tuple(problems)
