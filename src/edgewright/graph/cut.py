"""Cutting: the part of a graph between tensors, as a network of its own.

    >>> from edgewright.contracts import Cut
    >>> fragment = extract(model.ir, Cut(("/stem/relu",), ("/head/conv",)))  # doctest: +SKIP

Owns the graph surgery only; runtimes convert what comes out of it. Only tensors of the main graph can be cut: those
inside the branches and loops of `If`, `Loop` and `Scan` exist once per branch or iteration.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir


def extract(ir_model: ir.Model, cut: Cut) -> ir.Model:
    """A new model from `cut.inputs` (None: the graph's own, all of them) to `cut.outputs`; `ir_model` is not changed.

    Names of tensors stay. Functions and opset imports are kept, and of the weights those that are needed (shared, not
    copied). A new input takes the type and shape that the graph records for the tensor; where it records no type, types
    are inferred first.

    Raises:
        EdgewrightError: E231 for a tensor that does not exist, an input whose type is not known, or inputs that are not
            enough to compute the outputs.
    """
    if not cut.outputs:
        raise EdgewrightError("E231", "a cut must name at least one output tensor")
    model = ir_model.clone()
    graph = model.graph
    values = _values(graph)
    for name in (*(cut.inputs or ()), *cut.outputs):
        if name not in values:
            raise unknown_tensor(name, values, where="graph")
    if cut.inputs is not None:
        _require_types(ir_model, [values[name] for name in cut.inputs])
        opened = _open_at(graph, {name: values[name] for name in cut.inputs})
        values |= {value.name: value for value in opened if value.name}
        graph.inputs[:] = opened
    outputs = [values[name] for name in dict.fromkeys(cut.outputs)]
    needed = _needed(graph, outputs)
    if cut.inputs is not None:
        _require_closed(needed, cut)
    graph.outputs[:] = outputs
    superfluous = [node for node in graph if id(node) not in needed]
    for node in superfluous:
        _let_go(node)
    graph.remove(superfluous, safe=True)
    for name, value in list(graph.initializers.items()):
        if id(value) not in needed:
            del graph.initializers[name]
    return model


def unknown_tensor(name: str, known: Collection[str], *, where: str) -> EdgewrightError:
    """The E231 error for a tensor that `where` does not have, with the nearest name it has."""
    near = difflib.get_close_matches(name, known, n=1)
    tail = f"; did you mean `{near[0]}`?" if near else ""
    return EdgewrightError("E231", f"{where} has no tensor `{name}` to show{tail}")


def dependencies(node: ir.Node) -> Iterator[ir.Value]:
    """Every value that `node` reads, including what its subgraphs capture from outside (and what they make inside)."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        for graph in _attribute_graphs(attribute):
            yield from graph.outputs  # a branch may hand out a captured value as it is
            for inner in graph:
                yield from dependencies(inner)


def _let_go(node: ir.Node) -> None:
    """Detach what the subgraphs of a node that goes capture: the library counts it as use of what stays."""
    for attribute in node.attributes.values():
        for graph in _attribute_graphs(attribute):
            for inner in graph:
                _let_go(inner)
                for index in range(len(inner.inputs)):
                    inner.replace_input_with(index, None)


def _attribute_graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Values of the main graph by name: inputs, weights, and every node's outputs."""
    found = {value.name: value for value in graph.inputs if value.name}
    found |= graph.initializers
    found |= {value.name: value for node in graph for value in node.outputs if value.name}
    return found


def _require_types(ir_model: ir.Model, values: list[ir.Value]) -> None:
    """Give each value a type where the graph records none, from shape inference over a copy of the whole model.

    Raises:
        EdgewrightError: E231 where inference does not find one either.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    if all(value.type is not None for value in values):
        return
    inferred = _values(ShapeInferencePass()(ir_model.clone()).model.graph)
    for value in values:
        if value.type is not None or value.name is None:
            continue
        value.type, value.shape = inferred[value.name].type, inferred[value.name].shape
        if value.type is None:
            raise EdgewrightError("E231", f"the graph cannot be cut at `{value.name}`: its type is not known")


def _open_at(graph: ir.Graph, values: dict[str, ir.Value]) -> list[ir.Value]:
    """New graph inputs in the place of `values`: everything that read them reads the inputs."""
    import onnx_ir as ir

    opened = []
    for name, value in values.items():
        if value.is_graph_input():
            graph.initializers.pop(name, None)  # an input with a default is fed like any other
            opened.append(value)
            continue
        replacement = ir.Value(name=name, type=value.type, shape=value.shape)
        value.replace_all_uses_with(replacement, replace_graph_outputs=True)
        if value.is_initializer():
            del graph.initializers[name]
        else:
            value.name = f"{name}/before_cut"  # stays only where its node has another output that is needed
        opened.append(replacement)
    return opened


def _needed(graph: ir.Graph, outputs: list[ir.Value]) -> dict[int, ir.Node | ir.Value]:
    """Nodes and values of the main graph that `outputs` depend on, by id."""
    own = {id(node) for node in graph}
    needed: dict[int, ir.Node | ir.Value] = {}
    stack = list(outputs)
    while stack:
        value = stack.pop()
        needed[id(value)] = value
        node = value.producer()
        if node is not None and id(node) in own and id(node) not in needed:
            needed[id(node)] = node
            stack.extend(dependencies(node))
    return needed


def _require_closed(needed: dict[int, ir.Node | ir.Value], cut: Cut) -> None:
    """Refuse a cut that needs a former graph input which it does not list."""
    import onnx_ir as ir

    missing = sorted(
        value.name or ""
        for value in needed.values()
        if isinstance(value, ir.Value) and _is_fed(value) and value.name not in (cut.inputs or ())
    )
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise EdgewrightError(
            "E231",
            f"the cut's {len(cut.inputs or ())} inputs do not determine its outputs: {names} must be given too",
        )


def _is_fed(value: ir.Value) -> bool:
    """True for a value that nothing in the model makes: no node, no weight, no subgraph's own input."""
    return value.producer() is None and value.const_value is None and not value.is_graph_input()
