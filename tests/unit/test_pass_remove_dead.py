"""passes/remove_dead: what goes, and what only looks as if it could."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgewright.graph.shapes import infer
from edgewright.passes import remove_dead

HEAD = '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>'


def removed(text: str) -> tuple[ir.Model, dict[str, object]]:
    model = ir.from_onnx_text(f"{HEAD} {text}")
    infer(model)
    return model, remove_dead.apply(model, remove_dead.Config(), None)  # type: ignore[arg-type]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


CONSTANTS = """<bool off = {0}, bool on = {1}, float half = {0.5}, int64[4] none = {0,0,0,0},
    int64[4] some = {0,1,0,0}, int64[2] same = {2,3}, int64[2] copied = {0,-1}, int64[2] other = {3,2},
    int64[1] last = {3}, int64[3] more = {1,2,3}>"""
IDLE = [
    "b = Identity(a)",
    "b = Dropout(a)",
    "b = Dropout(a, half, off)",
    "b = Cast<to = 1>(a)",
    "b = Pad(a, none)",
    "b = Transpose<perm = [0, 1]>(a)",
    "b = Reshape(a, same)",
    "b = Reshape(a, copied)",
    "b = Flatten(a)",
    "b = Expand(a, same)",
    "b = Expand(a, last)",
    "b = Concat<axis = 1>(a)",
    "b = Sum(a)",
]
BUSY = [
    "b = Dropout(a, half, on)",
    "b = Cast<to = 11>(a)",
    "b = Pad(a, some)",
    "b = Transpose(a)",
    "b = Reshape(a, other)",
    "b = Reshape<allowzero = 1>(a, copied)",
    "b = Flatten<axis = 0>(a)",
    "b = Expand(a, more)",
    "b = own.Identity(a)",
    "b = Dropout(a, half, flag)",
    "b = Reshape(a, sizes)",
]


@pytest.mark.parametrize("node", IDLE)
def test_idle_nodes_go(node: str) -> None:
    model, stats = removed(f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ a = Relu(x)  {node}  y = Neg(b) }}")
    assert operators(model) == ["Relu", "Neg"]
    assert sum(stats["idle"].values()) == 1  # type: ignore[attr-defined]
    assert not model.graph.initializers


@pytest.mark.parametrize("node", BUSY)
def test_nodes_that_do_something_stay(node: str) -> None:
    model, stats = removed(
        f"g (float[2,3] x, bool flag, int64[2] sizes) => (float[] y) {CONSTANTS} {{ a = Relu(x)  {node}  y = Neg(b) }}"
    )
    assert len(operators(model)) == 3
    assert stats["idle"] == {}


def test_unknown_sizes_prove_nothing() -> None:
    model, _ = removed(f"g (float[N,3] x) => (float[A,B] y) {CONSTANTS} {{ b = Reshape(x, same)  y = Neg(b) }}")
    assert operators(model) == ["Reshape", "Neg"]


def test_a_mask_that_is_read_keeps_its_dropout() -> None:
    model, _ = removed("g (float[2] x) => (float[2] y, bool[2] m) { b, m = Dropout(x)  y = Neg(b) }")
    assert operators(model) == ["Dropout", "Neg"]


def test_unused_nodes_initializers_and_functions_go() -> None:
    model, stats = removed(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] spare = {3, 4}> {
            dead = Add(x, w)
            deader = Neg(dead)
            y = Relu(x)
        }
        <opset_import: ["" : 21], domain: "own"> f (a) => (b) { b = Neg(a) }"""
    )
    assert operators(model) == ["Relu"]
    assert not model.graph.initializers
    assert not model.functions
    assert dict(model.graph.opset_imports) == {"": 21}
    assert (stats["nodes_before"], stats["nodes_after"]) == (3, 1)


def test_functions_that_are_called_stay_with_what_they_call() -> None:
    model, _ = removed(
        """g (float[2] x) => (float[2] y) { y = own.outer(x) }
        <opset_import: ["" : 21, "own" : 1], domain: "own"> outer (a) => (b) { b = own.inner(a) }
        <opset_import: ["" : 21], domain: "own"> inner (a) => (b) { b = Neg(a) }"""
    )
    assert {key[1] for key in model.functions} == {"outer", "inner"}


def test_the_interface_stays() -> None:
    model, _ = removed(
        """g (float[2] x, float[2] unused) => (float[2] y, float[2] x2) {
            a = Relu(x)
            y = Identity(a)
            x2 = Identity(x)
        }"""
    )
    assert [value.name for value in model.graph.inputs] == ["x", "unused"]
    assert [value.name for value in model.graph.outputs] == ["y", "x2"]
    assert operators(model) == ["Relu", "Identity"], "an input cannot be an output"


def test_works_inside_subgraphs_and_sees_their_reads() -> None:
    model, _ = removed(
        """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
            a = Add(x, w)
            y = If (c) <then_branch = t () => (float[2] p) { h = Identity(a)  d = Neg(x)  p = Relu(h) },
                        else_branch = e () => (float[2] q) { q = Identity(x) }>
        }"""
    )
    first, second = model.graph.subgraphs()
    assert operators(model) == ["Add", "If"]
    assert [node.op_type for node in first] == ["Relu"]
    assert [node.op_type for node in second] == ["Identity"], "a branch must make its output itself"


def test_twice_is_once() -> None:
    model, _ = removed(
        f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ a = Relu(x)  b = Identity(a)  y = Dropout(b) }}"
    )
    before = ir.to_onnx_text(model)
    stats = remove_dead.apply(model, remove_dead.Config(), None)  # type: ignore[arg-type]
    assert ir.to_onnx_text(model) == before
    assert stats["idle"] == {}
