"""Cutting a graph between tensors."""

from __future__ import annotations

import numpy as np
import pytest

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import extract

HEADER = '<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>'
CHAIN = f"""{HEADER} g (float[N,2] x, float[N,2] z) => (float[N,2] y)
<float[2] w = {{1.0, 2.0}}, float[2] v = {{3.0, 4.0}}, float[2] unused = {{0.0, 0.0}}>
{{ a = Add(x, w) b = Mul(a, v) c = Add(b, z) y = Relu(c) }}"""
SPLIT = f"""{HEADER} g (float[2] x) => (float[1] y) {{ p, q = Split<axis = 0, num_outputs = 2>(x) a = Neg(p) y = Add(a, q) }}"""
BRANCH = f"""{HEADER} g (float[2] x, bool flag) => (float[2] y) <float[2] w = {{1.0, 2.0}}, float[2] v = {{5.0, 6.0}}> {{
  a = Neg(x) b = Abs(x)
  c = If(flag) <then_branch = t () => (float[2] u) {{ u = Mul(a, w) }}, else_branch = e () => (float[2] q) {{ q = Add(b, a) }}>
  y = Relu(c)
}}"""
FUNCTION = f"""{HEADER} g (float[2] x) => (float[2] y) {{ a = Neg(x) y = edgewright.Twice(a) }}
<domain: "edgewright", opset_import: ["" : 21]> Twice (i) => (o) {{ o = Add(i, i) }}"""


def graph(text: str):  # type: ignore[no-untyped-def]
    import onnx
    import onnx_ir as ir
    from onnx import parser

    return ir.from_proto(onnx.shape_inference.infer_shapes(parser.parse_model(text)))


def evaluate(model, **inputs) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    import onnx_ir as ir
    from onnx import checker
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(model)
    checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto).run(None, {name: np.array(value, np.float32) for name, value in inputs.items()})


def refused(text: str, cut: Cut) -> str:
    with pytest.raises(EdgewrightError) as caught:
        extract(graph(text), cut)
    assert caught.value.code == "E231"
    return caught.value.message


def test_keeps_what_is_needed_and_nothing_else() -> None:
    part = extract(graph(CHAIN), Cut(("a",), ("b",)))
    assert [value.name for value in part.graph.inputs] == ["a"]
    assert [node.op_type for node in part.graph] == ["Mul"]
    assert list(part.graph.initializers) == ["v"]
    assert str(part.graph.inputs[0].shape) == "[N,2]"
    np.testing.assert_array_equal(evaluate(part, a=[[1, 1]])[0], [[3, 4]])


def test_leaves_the_original_as_it_was() -> None:
    import onnx_ir as ir

    model = graph(CHAIN)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    extract(model, Cut(("a", "z"), ("y",)))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_shares_weights() -> None:
    model = graph(CHAIN)
    part = extract(model, Cut(("a",), ("b",)))
    assert part.graph.initializers["v"].const_value is model.graph.initializers["v"].const_value


def test_without_inputs_all_graph_inputs_stay() -> None:
    part = extract(graph(CHAIN), Cut(None, ("a",)))
    assert [value.name for value in part.graph.inputs] == ["x", "z"]
    np.testing.assert_array_equal(evaluate(part, x=[[1, 1]], z=[[0, 0]])[0], [[2, 3]])


def test_graph_inputs_may_be_listed() -> None:
    part = extract(graph(CHAIN), Cut(("b", "z"), ("y",)))
    np.testing.assert_array_equal(evaluate(part, b=[[1, -9]], z=[[1, 1]])[0], [[2, 0]])


def test_missing_inputs_are_listed() -> None:
    assert "`x`, `z` must be given too" in refused(CHAIN, Cut(("v",), ("y",)))
    assert "`z` must be given too" in refused(CHAIN, Cut(("b",), ("y",)))
    assert "`x` must be given too" in refused(CHAIN, Cut(("z",), ("y",)))


def test_superfluous_inputs_stay() -> None:
    part = extract(graph(CHAIN), Cut(("a", "z"), ("b",)))
    assert [value.name for value in part.graph.inputs] == ["a", "z"]


def test_weights_may_be_fed() -> None:
    part = extract(graph(CHAIN), Cut(("a", "v"), ("b",)))
    assert not part.graph.initializers
    np.testing.assert_array_equal(evaluate(part, a=[[1, 2]], v=[5, 6])[0], [[5, 12]])


def test_several_outputs_in_the_order_asked_and_once() -> None:
    part = extract(graph(CHAIN), Cut(None, ("c", "a", "c")))
    assert [value.name for value in part.graph.outputs] == ["c", "a"]


def test_an_output_that_is_an_input_or_a_weight() -> None:
    part = extract(graph(CHAIN), Cut(("a",), ("a", "v", "b")))
    assert [value.name for value in part.graph.outputs] == ["a", "v", "b"]


def test_one_of_two_outputs_of_a_node() -> None:
    part = extract(graph(SPLIT), Cut(("p", "x"), ("y",)))
    assert [node.op_type for node in part.graph] == ["Split", "Neg", "Add"]
    np.testing.assert_array_equal(evaluate(part, x=[1, 2], p=[10])[0], [-8])


def test_branches_keep_what_they_capture() -> None:
    part = extract(graph(BRANCH), Cut(("a", "b", "flag"), ("y",)))
    assert list(part.graph.initializers) == ["w"]
    assert [node.op_type for node in part.graph] == ["If", "Relu"]
    assert "`x` must be given too" in refused(BRANCH, Cut(("a", "flag"), ("y",)))
    assert "`flag` must be given too" in refused(BRANCH, Cut(("a", "b"), ("y",)))


def test_captured_values_are_read_from_the_new_input() -> None:
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    part = extract(graph(BRANCH), Cut(("a", "b", "flag"), ("c",)))
    run = ReferenceEvaluator(ir.to_proto(part)).run
    feeds = {"a": np.array([1, 1], np.float32), "b": np.array([7, 7], np.float32)}
    np.testing.assert_array_equal(run(None, {**feeds, "flag": np.array(True)})[0], [1, 2])
    np.testing.assert_array_equal(run(None, {**feeds, "flag": np.array(False)})[0], [8, 8])


def test_tensors_inside_a_branch_cannot_be_cut() -> None:
    assert "no tensor `u`" in refused(BRANCH, Cut(None, ("u",)))


def test_functions_stay() -> None:
    part = extract(graph(FUNCTION), Cut(("a",), ("y",)))
    assert len(part.functions) == 1
    np.testing.assert_array_equal(evaluate(part, a=[1, 2])[0], [2, 4])


def test_missing_types_are_inferred() -> None:
    import onnx_ir as ir

    model = ir.from_onnx_text(CHAIN)
    assert next(iter(model.graph)).outputs[0].type is None
    part = extract(model, Cut(("a",), ("b",)))
    assert part.graph.inputs[0].dtype == ir.DataType.FLOAT


def test_a_type_that_nobody_knows() -> None:
    import onnx_ir as ir

    text = f"{HEADER} g (float[2] x) => (float[2] y) {{ a = edgewright.Secret(x) y = Neg(a) }}"
    with pytest.raises(EdgewrightError, match="cannot be cut at `a`: its type is not known") as caught:
        extract(ir.from_onnx_text(text), Cut(("a",), ("y",)))
    assert caught.value.code == "E231"


def test_unknown_tensors_suggest_the_nearest() -> None:
    model = CHAIN.replace("c = Add(b, z) y = Relu(c)", "stem_conv = Add(b, z) y = Relu(stem_conv)")
    assert "did you mean `stem_conv`?" in refused(model, Cut(None, ("stem_con",)))
    assert "no tensor `elsewhere` to show" in refused(CHAIN, Cut(("elsewhere",), ("y",)))


def test_no_outputs() -> None:
    assert "at least one output" in refused(CHAIN, Cut(None, ()))
