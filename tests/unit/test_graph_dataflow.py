"""graph/dataflow: constants, readers, rewiring that keeps names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgewright.graph.dataflow import (
    Names,
    add_initializer,
    bypass,
    constant_array,
    drop_unused,
    lift_constants,
    replace_constant,
    sole_consumer,
    take_over,
)

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def parse(body: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEAD} {body}")


def names(model: ir.Model) -> list[str | None]:
    return [value.name for node in model.graph for value in node.outputs]


SHARED = parse(
    """g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> {
        a = Mul(x, w)
        y = Add(a, w)
        z = Relu(a)
    }"""
)


def test_constant_array_sees_initializers_and_constant_nodes_only() -> None:
    model = parse(
        """g (float[2] x, float[2] fed) => (float[2] y) <float[2] w = {1, 2}, float[2] fed = {0, 0}> {
            c = Constant<value_floats = [3.0, 4.0]>()
            i = Constant<value_int = 7>()
            a = Sum(x, w, c, fed)
            y = Relu(a)
        }"""
    )
    first, second, total = model.graph[0], model.graph[1], model.graph[2]
    values = {value.name: value for value in total.inputs if value is not None}
    assert constant_array(None) is None
    assert constant_array(values["x"]) is None
    assert constant_array(values["fed"]) is None, "it may be overridden at run time"
    assert constant_array(values["w"]).tolist() == [1, 2]  # type: ignore[union-attr]
    assert constant_array(first.outputs[0]).tolist() == [3, 4]  # type: ignore[union-attr]
    number = constant_array(second.outputs[0])
    assert number is not None
    assert number.dtype == np.int64
    assert number.shape == ()


def test_sole_consumer_counts_every_use_and_outputs() -> None:
    model = SHARED.clone()
    mul, add, relu = model.graph
    assert sole_consumer(mul.outputs[0]) is None, "two readers"
    assert sole_consumer(add.outputs[0]) is None, "the graph returns it"
    twice = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Add(a, a) }")
    assert sole_consumer(twice.graph[0].outputs[0]) is None, "read twice by one node"
    assert sole_consumer(relu.inputs[0]) is None


def test_readers_in_subgraphs_count() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
            a = Relu(x)
            y = If (c) <then_branch = t () => (float[2] p) { p = Neg(a) },
                        else_branch = e () => (float[2] q) { q = Abs(x) }>
        }"""
    )
    inner = sole_consumer(model.graph[0].outputs[0])
    assert inner is not None
    assert inner.op_type == "Neg"
    assert inner.graph is not model.graph


def test_bypass_keeps_the_name_of_a_graph_output() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Identity(a) }")
    assert bypass(model.graph[1], model.graph[1].inputs[0])
    assert names(model) == ["y"]
    assert model.graph.outputs[0] is model.graph[0].outputs[0]
    assert model.graph.outputs[0].shape == ir.Shape([2])


@pytest.mark.parametrize(
    "body",
    [
        "g (float[2] x) => (float[2] y) { y = Identity(x) }",
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Identity(w) }",
        "g (float[2] x) => (float[2] a, float[2] y) { a = Relu(x)  y = Identity(a) }",
    ],
)
def test_bypass_refuses_what_would_change_the_interface(body: str) -> None:
    model = parse(body)
    node = model.graph[len(model.graph) - 1]
    before = names(model)
    assert not bypass(node, node.inputs[0])  # type: ignore[arg-type]
    assert names(model) == before


def test_bypass_inside_a_chain_keeps_the_source_name() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  b = Identity(a)  y = Neg(b) }")
    assert bypass(model.graph[1], model.graph[1].inputs[0])  # type: ignore[arg-type]
    assert names(model) == ["a", "y"]


def test_take_over_gives_the_last_name_of_a_chain() -> None:
    model = parse("g (float[2] x) => (float[2] z) { a = Relu(x)  b = Neg(a)  z = Abs(b) }")
    take_over(model.graph[0].outputs[0], model.graph[1])
    assert names(model) == ["b", "z"]
    assert model.graph[1].inputs[0] is model.graph[0].outputs[0]


def test_replace_constant_copies_what_is_shared() -> None:
    model = SHARED.clone()
    mul, add, _ = model.graph
    book = Names(model)
    new = replace_constant(mul, 1, np.array([5, 6], np.float32), names=book)
    assert new.name == "w:1"
    assert constant_array(add.inputs[1]).tolist() == [1, 2]  # type: ignore[union-attr]
    again = replace_constant(add, 1, np.array([7, 8], np.float32), names=book)
    assert again.name == "w", "only one reader is left, so the old name is free to be changed"
    assert constant_array(SHARED.graph[0].inputs[1]).tolist() == [1, 2], "the original's memory is not touched"  # type: ignore[union-attr]


def test_fresh_names_avoid_subgraphs_too() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                        else_branch = e () => (float[2] q) { q = Abs(x) }>
        }"""
    )
    book = Names(model)
    assert [book.fresh("p"), book.fresh("p"), book.fresh("new")] == ["p:1", "p:2", "new"]


def test_lift_constants_keeps_names_and_returned_constants() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y, float[1] k) {
            c = Constant<value_floats = [3.0, 4.0]>()
            k = Constant<value_floats = [1.0]>()
            y = Add(x, c)
        }"""
    )
    assert lift_constants(model) == 1
    assert [node.op_type for node in model.graph] == ["Constant", "Add"]
    assert list(model.graph.initializers) == ["c"]


def test_drop_unused_leaves_inputs_outputs_and_what_is_read() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y, float[1] k) <float[1] k = {1}, float[2] w = {1, 2}> { y = Add(x, w) }"
    )
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *model.graph.outputs):
        drop_unused(value)
    assert set(model.graph.initializers) == {"k", "w"}
    spare = add_initializer(model.graph, "spare", np.zeros(3, np.float32))
    drop_unused(spare)
    assert set(model.graph.initializers) == {"k", "w"}
