"""Dataflow: what is constant, who reads a value, and rewiring that keeps names; subgraphs included.

`onnx_ir` links a value to its readers in subgraphs as well, so `value.uses()` is complete everywhere below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


class Names:
    """Names in use in a model, main graph and subgraphs: of values, which `fresh` hands out, and of nodes."""

    def __init__(self, ir_model: ir.Model) -> None:
        self._used: set[str] = set()
        self._nodes = {node.name or "" for graph in ir_model.graphs() for node in graph}
        for graph in ir_model.graphs():
            self._used.update(value.name or "" for value in graph.inputs)
            self._used.update(graph.initializers)
            self._used.update(value.name or "" for node in graph for value in node.outputs)

    def fresh(self, wanted: str) -> str:
        """A name for a value: `wanted` where it is free, else `wanted:1`, `wanted:2` and so on; taken from now on."""
        return _fresh(wanted, self._used)

    def fresh_node(self, wanted: str) -> str:
        """The same for a node: ONNX Runtime refuses a graph with two nodes of one name."""
        return _fresh(wanted, self._nodes)


def _fresh(wanted: str, used: set[str]) -> str:
    name, number = wanted, 0
    while name in used:
        number += 1
        name = f"{wanted}:{number}"
    used.add(name)
    return name


def is_standard(node: ir.Node, *op_types: str) -> bool:
    """True for a node of the standard ONNX domain whose operator is one of `op_types`."""
    return node.domain in ("", "ai.onnx") and node.op_type in op_types


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or a Constant node; None for what is computed or may be fed at run time."""
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    producer = value.producer()
    if producer is not None and is_standard(producer, "Constant"):
        return _constant_of(producer)
    return None


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The constant as an array that must not be written to; None where `constant_tensor` gives None."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, once; None where there are none or several, or where a graph returns it."""
    uses = tuple(value.uses())
    if value.is_graph_output() or len(uses) != 1:
        return None
    return uses[0].node


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Remove `node`, whose first output equals `source`; False where that would change a graph's interface.

    The name of `source` stays, unless `node` made a graph's output: then that output's name stays.
    """
    output, graph = node.outputs[0], node.graph
    assert graph is not None
    if output.is_graph_output():
        producer = source.producer()
        if (
            producer is None
            or producer.graph is not graph
            or source.is_graph_output()
            or is_standard(producer, "Constant")
        ):
            return False
        take_over(source, node)
        return True
    output.replace_all_uses_with(source)
    graph.remove(node, safe=True)
    return True


def take_over(value: ir.Value, node: ir.Node) -> None:
    """Let `value` stand for the first output of `node`, under that output's name, type and shape; `node` goes."""
    output, graph = node.outputs[0], node.graph
    assert graph is not None
    name = output.name
    value.type = output.type if output.type is not None else value.type
    value.shape = output.shape if output.shape is not None else value.shape
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new constant of `graph` called `name`."""
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_constant(node: ir.Node, index: int, array: np.ndarray, *, names: Names) -> ir.Value:
    """The constant that holds `array` and is now input `index` of `node`.

    Changed in place (a new tensor under the old name) where only this node reads the old one, else a copy, because
    other nodes share it.
    """
    import onnx_ir as ir

    old = node.inputs[index]
    assert old is not None
    assert old.name is not None
    if old.is_initializer() and sole_consumer(old) is node:
        old.const_value = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=old.name)
        old.type, old.shape = ir.TensorType(old.const_value.dtype), old.const_value.shape
        return old
    graph = old.graph if old.is_initializer() else node.graph
    assert graph is not None
    new = add_initializer(graph, names.fresh(old.name), array)
    node.replace_input_with(index, new)
    drop_unused(old)
    return new


def drop_unused(value: ir.Value | None) -> None:
    """Remove a constant that nothing reads any more; anything else is left alone."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    producer = value.producer()
    if value.is_initializer():
        assert value.graph is not None
        del value.graph.initializers[value.name]
    elif producer is not None and is_standard(producer, "Constant") and producer.graph is not None:
        producer.graph.remove(producer, safe=True)


def lift_constants(ir_model: ir.Model) -> int:
    """Turn Constant nodes into initializers of their graph, names kept; returns how many.

    Those that make a graph's output stay, and so do sparse and string ones.
    """
    import onnx_ir as ir

    lifted = 0
    for graph in tuple(ir_model.graphs()):
        for node in tuple(graph):
            tensor = _constant_of(node) if is_standard(node, "Constant") else None
            if tensor is None or node.outputs[0].is_graph_output():
                continue
            output = node.outputs[0]
            assert output.name is not None
            new = ir.Value(name=output.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
            output.replace_all_uses_with(new)
            graph.remove(node, safe=True)
            graph.register_initializer(new)
            lifted += 1
    return lifted


def _constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    import onnx_ir as ir

    if len(node.attributes) != 1:
        return None
    name, attribute = next(iter(node.attributes.items()))
    if attribute.is_ref():
        return None
    if name == "value":
        tensor: ir.TensorProtocol = attribute.as_tensor()
        return tensor
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in dtypes:
        return None
    return ir.tensor(np.array(attribute.value, dtypes[name]), name=node.outputs[0].name)
