"""Execution: an ONNX graph as a plan of steps, run one after the other; a tensor is dropped after its last use.

A `Block` is a graph, a branch or loop body, or the body of a model-local function. Blocks see the tensors around them.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Problem
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import dependencies
from edgewright.runtimes.reference.operators import OPERATORS, Array, Operator

if TYPE_CHECKING:
    import onnx_ir as ir

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        name: The node's name, or its first output's.
        op_type: Its operator.
        action: The operator, or the body of a function.
        inputs: Names of tensors; None for an optional input left out.
        outputs: Names of tensors; None for an output nobody reads.
        attributes: Values of its attributes.
        blocks: Its graph attributes.
        frees: Tensors that nobody reads afterwards.
    """

    name: str
    op_type: str
    action: Operator | Block
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    blocks: Mapping[str, Block]
    frees: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Steps with their inputs, constants and outputs; `empties` are outputs stacked zero times, for loops."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    steps: tuple[Step, ...]
    empties: tuple[Array, ...] = field(default=(), repr=False)

    def run(self, inputs: Mapping[str, Any], around: Mapping[str, Any]) -> list[Any]:
        """The outputs, in their order, given the block's own inputs and the tensors of the surrounding block.

        Raises:
            EdgewrightError: E232 when a node cannot be evaluated.
        """
        scope: MutableMapping[str, Any] = collections.ChainMap(dict(inputs), dict(self.constants), _readonly(around))
        for step in self.steps:
            for name, value in zip(step.outputs, _evaluate(step, scope), strict=False):
                if name is not None:
                    scope[name] = value
            for name in step.frees:
                scope.pop(name, None)
        return [_read(scope, name, "the block's outputs") for name in self.outputs]


def _readonly(around: Mapping[str, Any]) -> MutableMapping[str, Any]:
    return around  # type: ignore[return-value]  # ChainMap writes to its first map only


@dataclass(frozen=True)
class BoundBlock:
    """A branch or body together with the tensors around it: what control-flow operators call."""

    block: Block
    scope: Mapping[str, Any]

    @property
    def output_count(self) -> int:
        """Number of outputs."""
        return len(self.block.outputs)

    def __call__(self, *inputs: Any) -> list[Any]:
        """The body's outputs."""
        if len(inputs) != len(self.block.inputs):
            raise ValueError(f"a subgraph takes {len(self.block.inputs)} inputs, but is given {len(inputs)}")
        return self.block.run(dict(zip(self.block.inputs, inputs, strict=True)), self.scope)

    def empty(self, index: int) -> Array:
        """No slices of output `index`, stacked."""
        return self.block.empties[index]


def _read(scope: Mapping[str, Any], name: str, reader: str) -> Any:
    try:
        return scope[name]
    except KeyError:
        raise EdgewrightError("E203", f"{reader} needs tensor `{name}` before it is made") from None


def _evaluate(step: Step, scope: Mapping[str, Any]) -> list[Any]:
    inputs = [None if name is None else _read(scope, name, f"node `{step.name}`") for name in step.inputs]
    try:
        if isinstance(step.action, Block):
            names = step.action.inputs
            if len(inputs) > len(names):
                raise ValueError(f"the function takes {len(names)} inputs, but is given {len(inputs)}")
            padded = [*inputs, *[None] * (len(names) - len(inputs))]
            results = step.action.run(dict(zip(names, padded, strict=True)), {})
        else:
            extra: dict[str, Any] = {name: BoundBlock(block, scope) for name, block in step.blocks.items()}
            if step.action.counts_outputs:
                extra["output_count"] = len(step.outputs)
            found = step.action.function(*inputs, **step.attributes, **extra)
            results = list(found) if isinstance(found, tuple) else [found]
        wanted = max((i + 1 for i, name in enumerate(step.outputs) if name is not None), default=0)
        if len(results) < wanted:
            raise ValueError(f"{len(results)} outputs were made, but the node declares {wanted}")
    except EdgewrightError:
        raise
    except Exception as problem:
        raise _failure(step, inputs, problem) from problem
    return [frozen(value) for value in results]


def frozen(value: Any) -> Any:
    """The value as an array that nobody can write to by mistake; sequences and None as they are."""
    if value is None or isinstance(value, list):
        return value
    array = np.asarray(value).view()
    array.flags.writeable = False
    return array


def _failure(step: Step, inputs: Sequence[Any], problem: Exception) -> EdgewrightError:
    reason = str(problem) if isinstance(problem, ValueError) else f"{type(problem).__name__}: {problem}"
    shown = ", ".join(_describe(value) for value in inputs) or "none"
    return EdgewrightError(
        "E232", f"node `{step.name}` (`{step.op_type}`) failed: {reason}", details=(f"its inputs: {shown}",)
    )


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}{list(value.shape)}"
    return "absent" if value is None else type(value).__name__


# --- planning --------------------------------------------------------------------------------------------------------


class Planner:
    """Turns graphs of one `onnx_ir.Model` into blocks."""

    def __init__(self, ir_model: ir.Model) -> None:
        self._functions = ir_model.functions
        self._active: list[tuple[str, str, str]] = []

    def main(self, graph: ir.Graph, inputs: Collection[str], outputs: Sequence[str]) -> Block:
        """The part of the main graph that makes `outputs` when `inputs` are given; the nodes behind these do not run.

        Raises:
            EdgewrightError: E231 when an input of the graph is needed that is not given.
        """
        wanted, kept = set(outputs), []
        for node in reversed(list(graph)):
            if any(value.name in wanted and value.name not in inputs for value in node.outputs):
                kept.append(node)
                wanted |= reads(node)
        fed = {name for name in _names(graph.inputs) if name not in graph.initializers}
        missing = sorted((wanted & fed) - set(inputs))
        if missing:
            raise EdgewrightError(
                "E231",
                f"`{outputs[0]}` cannot be shown: it needs the input `{missing[0]}`, which the cut does not feed",
            )
        block = self._block(graph, kept[::-1], tuple(sorted(wanted.intersection(inputs))), tuple(outputs), {})
        constants = {name: array for name, array in block.constants.items() if name in wanted and name not in inputs}
        # A node may make a tensor that is given besides one that is needed: what is given stays.
        steps = [
            replace(step, outputs=tuple(None if name in inputs else name for name in step.outputs))
            for step in block.steps
        ]
        return replace(block, constants=constants, steps=tuple(steps))

    def _block(
        self,
        graph: ir.Graph | ir.Function,
        nodes: Sequence[ir.Node],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        bound: Mapping[str, Any],
    ) -> Block:
        initializers = getattr(graph, "initializers", {})
        constants = {
            name: frozen(v.const_value.numpy()) for name, v in initializers.items() if v.const_value is not None
        }
        own = {*inputs, *(value.name for node in nodes for value in node.outputs)}
        frees = _last_uses(nodes, own - set(outputs))
        steps = tuple(self._step(node, frees[index], bound) for index, node in enumerate(nodes))
        return Block(inputs, outputs, constants, steps)

    def _subgraph(self, graph: ir.Graph, bound: Mapping[str, Any]) -> Block:
        block = self._block(graph, list(graph), _names(graph.inputs), _names(graph.outputs), bound)
        return replace(block, empties=tuple(map(_empty, graph.outputs)))

    def _step(self, node: ir.Node, frees: tuple[str, ...], bound: Mapping[str, Any]) -> Step:
        import onnx_ir as ir

        attributes, blocks = {}, {}
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                if attribute.ref_attr_name not in bound:
                    continue  # the caller left an optional attribute out
                attributes[name] = bound[attribute.ref_attr_name]
            elif attribute.type == ir.AttributeType.GRAPH:
                blocks[name] = self._subgraph(attribute.as_graph(), bound)
            else:
                attributes[name] = _value(attribute)
        outputs = tuple(value.name or None for value in node.outputs)
        inputs = tuple(None if value is None else value.name or None for value in node.inputs)
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        label = node.name or next(filter(None, outputs), "?")
        action = self._action(node, label, attributes)
        if isinstance(action, Block):
            attributes = {}
        return Step(label, node.op_type, action, inputs, outputs, attributes, blocks, frees)

    def _action(self, node: ir.Node, label: str, attributes: Mapping[str, Any]) -> Operator | Block:
        key = node.op_identifier()
        function = self._functions.get(key)
        if function is None:
            reason = problem_of(node)
            if reason is not None:
                raise EdgewrightError("E210", f"`reference` cannot run node `{label}` (`{node.op_type}`): {reason}")
            return OPERATORS[node.op_type]
        if key in self._active:
            raise EdgewrightError("E203", f"function `{node.op_type}` calls itself")
        defaults = {name: _value(a) for name, a in function.attributes.items() if a.value is not None}
        self._active.append(key)
        try:
            return self._block(
                function, list(function), _names(function.inputs), _names(function.outputs), {**defaults, **attributes}
            )
        finally:
            self._active.pop()


def problem_of(node: ir.Node) -> str | None:
    """Why no operator of the reference runs this node; None where one does. Functions are the caller's matter."""
    if node.domain not in _STANDARD:
        return f"domain `{node.domain}` has no definition in the model"
    found = OPERATORS.get(node.op_type)
    if found is None:
        return "the reference does not define this operator"
    unknown = sorted(set(node.attributes) - found.attributes)
    return f"attribute `{unknown[0]}` is not defined" if unknown else None


def problems(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes of the graph, its subgraphs and the functions it calls that no operator of the reference runs."""
    found, called = [], set()

    def walk(nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            function = ir_model.functions.get(node.op_identifier())
            if function is None:
                reason = problem_of(node)
                if reason is not None:
                    found.append(Problem(node.name or _first_output(node), node.op_type, reason))
            elif node.op_identifier() not in called:
                called.add(node.op_identifier())
                walk(function)
            for graph in _subgraphs(node):
                walk(graph)

    walk(ir_model.graph)
    return tuple(found)


def _first_output(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "?")


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def reads(node: ir.Node) -> set[str]:
    """Names that a node reads, those that its subgraphs take from outside (or make inside) included."""
    return {value.name for value in dependencies(node) if value.name}


def _last_uses(nodes: Sequence[ir.Node], own: set[str]) -> list[tuple[str, ...]]:
    """For each node, the names of `own` that no later node reads."""
    seen: set[str] = set()
    frees: list[tuple[str, ...]] = []
    for node in reversed(nodes):
        names = (reads(node) | {value.name for value in node.outputs if value.name}) & own
        frees.append(tuple(sorted(names - seen)))
        seen |= names
    return frees[::-1]


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)


def _value(attribute: ir.Attr) -> Any:
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.TENSOR:
        return frozen(attribute.as_tensor().numpy())
    return attribute.value


def _empty(value: ir.Value) -> Array:
    dtype = value.dtype.numpy() if value.dtype is not None else np.float32
    sizes = [max(size, 0) if isinstance(size, int) else 0 for size in value.shape or ()]
    return np.zeros([0, *sizes], dtype)
