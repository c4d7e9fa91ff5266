"""A whole graph as a plan, or the nodes that cannot be part of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.contracts import Problem
from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.shapes import static_shape
from edgewright.runtimes.native.plan import Plan
from edgewright.runtimes.native.planner import Planner, Rule, UnsupportedError
from edgewright.runtimes.native.preparing import is_own, prepare
from edgewright.runtimes.native.rules import RULES

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Lowered:
    """What becomes of a graph: a plan, or problems."""

    plan: Plan | None
    problems: tuple[Problem, ...]


def lower(ir_model: ir.Model) -> Lowered:
    """The plan of a graph, or every node that has no step and every input that cannot be taken."""
    prepared = prepare(ir_model)
    unknown = [node for node in prepared.graph if _rule(node) is None] if prepared.fixed else []
    problems = [Problem(_label(node), node.op_type, "there is no kernel for this operator") for node in unknown]
    if problems or prepared.problems:
        return Lowered(None, (*prepared.problems, *problems))
    planner = Planner()
    inputs = [value for value in prepared.graph.inputs if not value.is_initializer()]
    for value in inputs:
        shape = static_shape(value)
        assert shape is not None, "`prepare` refuses open sizes"
        planner.name(value, planner.fresh(shape))
    for node in prepared.graph:
        try:
            _plan_node(planner, node)
        except UnsupportedError as problem:
            # What this node would have made is not known, so later nodes cannot be judged.
            return Lowered(None, (Problem(_label(node), node.op_type, str(problem)),))
    outputs = list(prepared.graph.outputs)
    for value in outputs:
        if value.name not in planner.values:
            return Lowered(None, (Problem(value.name or "", "Output", "it is a constant"),))
    names = [[str(value.name) for value in values] for values in (inputs, outputs)]
    return Lowered(planner.plan(*names, open_batch=prepared.open_batch), ())


def _plan_node(planner: Planner, node: ir.Node) -> None:
    if all(constant_array(value) is not None or not value.uses() for value in node.outputs) and not any(
        value.is_graph_output() for value in node.outputs
    ):
        return  # a constant, or what nobody reads
    if any(
        0 in planner.value(value).shape for value in node.inputs if value is not None and value.name in planner.values
    ):
        raise UnsupportedError("it reads a tensor without values")
    rule = _rule(node)
    assert rule is not None
    rule(planner, node)


def _rule(node: ir.Node) -> Rule | None:
    known = is_own(node) or is_standard(node, node.op_type)
    return RULES.get(node.op_type) if known else None


def _label(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)
