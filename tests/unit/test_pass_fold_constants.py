"""passes/fold_constants: what folds, what must not, and how far a model may grow."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest

from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.passes import fold_constants

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def folded(body: str, **config: int) -> tuple[ir.Model, dict[str, object]]:
    model = ir.from_onnx_text(f"{HEAD} {body}")
    stats = fold_constants.apply(model, fold_constants.Config(**config), None)  # type: ignore[arg-type]
    return model, stats


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_shape_chain_with_static_sizes_folds() -> None:
    model, stats = folded(
        """g (float[2,3,4] x) => (float[2,12] y) {
            s = Shape(x)
            zero = Constant<value_ints = [0]>()
            n = Gather<axis = 0>(s, zero)
            rest = Constant<value_ints = [-1]>()
            t = Concat<axis = 0>(n, rest)
            y = Reshape(x, t)
        }"""
    )
    assert operators(model) == ["Reshape"]
    assert model.graph.initializers["t"].const_value.numpy().tolist() == [2, -1]  # type: ignore[union-attr]
    assert list(model.graph.initializers) == ["t"]
    assert stats["nodes_before"] == 6
    assert stats["nodes_after"] == 1


def test_static_part_of_a_symbolic_shape_folds() -> None:
    body = """g (float[N,3,4] x) => (float[A,B] y) {
        s = Shape(x)
        index = Constant<value_ints = [INDEX]>()
        c = Gather<axis = 0>(s, index)
        rest = Constant<value_ints = [-1]>()
        t = Concat<axis = 0>(rest, c)
        y = Reshape(x, t)
    }"""
    model, _ = folded(body.replace("INDEX", "2"))
    assert "Gather" not in operators(model)
    assert model.graph.initializers["t"].const_value.numpy().tolist() == [-1, 4]  # type: ignore[union-attr]
    assert str(model.graph.outputs[0].shape) == "[A,B]", "the interface stays as it was declared"
    assert "Gather" in operators(folded(body.replace("INDEX", "0"))[0]), "the batch is not known"


def test_weights_computed_in_the_graph_fold() -> None:
    model, _ = folded("g (float[2] x) => (float[2] y) <float[2] w = {1, -2}> { a = Abs(w)  b = Neg(a)  y = Add(x, b) }")
    assert operators(model) == ["Add"]
    assert model.graph.initializers["b"].const_value.numpy().tolist() == [-1, -2]  # type: ignore[union-attr]


def test_if_with_a_constant_condition_becomes_its_branch() -> None:
    model, _ = folded(
        """g (float[2] x) => (float[2] y) <bool c = {0}> {
            y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                        else_branch = e () => (float[2] q) { h = Abs(x)  q = Relu(h) }>
        }"""
    )
    assert operators(model) == ["Abs", "Relu"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_folds_inside_subgraphs() -> None:
    model, _ = folded(
        """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, -2}> {
            y = If (c) <then_branch = t () => (float[2] p) { a = Abs(w)  p = Add(x, a) },
                        else_branch = e () => (float[2] q) { q = Relu(x) }>
        }"""
    )
    assert [node.op_type for node in next(iter(model.graph.subgraphs()))] == ["Add"]


@pytest.mark.parametrize(
    "node",
    [
        "a = Bernoulli(w)",
        "a = RandomNormalLike(w)",
        "a = Dropout(w, half, yes)",
    ],
)
def test_random_numbers_are_not_constant(node: str) -> None:
    model, _ = folded(
        f"""g (float[2] x) => (float[2] y) <float[2] w = {{0.5, 0.5}}, float half = {{0.5}}, bool yes = {{1}}> {{
            {node}
            y = Add(x, a)
        }}"""
    )
    assert len(operators(model)) == 2


def test_quantization_stays() -> None:
    model, _ = folded(
        """g (float[2] x) => (float[2] y) <int8[2] w = {1, 2}, float s = {0.5}, int8 z = {0}> {
            d = DequantizeLinear(w, s, z)
            y = Add(x, d)
        }"""
    )
    assert operators(model) == ["DequantizeLinear", "Add"]


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Constant<value_strings = ['a', 'b']>()  u = Concat<axis = 0>(t, t)  k = Shape(u)",
        "b = Cast<to = 16>(w)  c = Neg(b)  k = Cast<to = 7>(c)",
        "b = Cast<to = 22>(w)  k = Cast<to = 7>(b)",
        "b = Cast<to = 17>(w)  k = Cast<to = 7>(b)",
        "b = SequenceConstruct(w, w)  c = SequenceAt(b, i)  k = Cast<to = 7>(c)",
        "b, k = TopK(w, one)",
        "b = NonZero(w)  k = Identity(b)",
        "b = own.Thing(w)  k = Cast<to = 7>(b)",
        "b = Optional(w)  c = OptionalGetElement(b)  k = Cast<to = 7>(c)",
    ],
)
def test_unusual_types_and_operators_do_no_harm(nodes: str) -> None:
    nodes = nodes.replace("'", '"')
    head = HEAD.replace("]", ', "own" : 1]')
    model = ir.from_onnx_text(
        f"""{head} g (float[2] x) => (float[2] y, int64[N] out)
        <float[2] w = {{1, 2}}, int64 i = {{0}}, int64[1] one = {{1}}> {{ {nodes}  out = Neg(k)  y = Relu(x) }}"""
    )
    fold_constants.apply(model, fold_constants.Config(), None)  # type: ignore[arg-type]
    assert [value.name for value in model.graph.outputs] == ["y", "out"]
    ir.to_proto(model)


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(EdgewrightError, match="constants cannot be folded") as caught:
        folded(
            "g (float[2,3] x) => (int64[1] y) <int64[1] i = {7}> { s = Shape(x)  a = Gather<axis = 0>(s, i)  y = Neg(a) }"
        )
    assert caught.value.code == "E212"


def test_an_initializer_that_may_be_fed_is_not_constant() -> None:
    model, _ = folded("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { a = Abs(w)  y = Add(x, a) }")
    assert operators(model) == ["Abs", "Add"]


@pytest.mark.parametrize(
    "node",
    [
        "a = Expand(one, huge)",
        "a = ConstantOfShape(huge)",
        "a = Tile(one, huge)",
        "f = Cast<to = 1>(stop)  a = Range(start, f, step)",
    ],
)
def test_huge_results_are_not_made(node: str) -> None:
    body = f"""g (float[1] x) => (float[N] y)
        <float[1] one = {{1}}, int64[1] huge = {{4000000000000}}, int64 stop = {{4000000000000}},
         float start = {{0}}, float step = {{1}}>
        {{ {node}  y = Add(x, a) }}"""
    model, stats = folded(body)
    assert operators(model)[-2:] == [node.rsplit(" = ", maxsplit=1)[-1].partition("(")[0], "Add"]
    assert stats["left_too_large"] == 1


def test_growth_is_bounded_by_the_option() -> None:
    body = (
        "g (float[1] x) => (float[N] y) <float[1] one = {1}, int64[1] n = {1000}> { a = Expand(one, n)  y = Add(x, a) }"
    )
    assert operators(folded(body)[0]) == ["Add"]
    assert operators(folded(body, max_growth_bytes=1000)[0]) == ["Expand", "Add"]
    transposed = "g (float[2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}> { a = Transpose(w)  y = Add(x, a) }"
    assert operators(folded(transposed, max_growth_bytes=0)[0]) == ["Add"], "the original goes, so nothing grows"
    with pytest.raises(EdgewrightError, match="max_growth_bytes"):
        build(fold_constants.Config, {"max_growth_bytes": "-1"}, where="fold_constants")


def test_returned_constants_keep_their_names() -> None:
    model, _ = folded(
        """g (float[2,3] x) => (int64[2] s, float[2] k, float[2,3] y) <float[2] w = {1, -2}> {
            s = Shape(x)
            k = Abs(w)
            y = Relu(x)
        }"""
    )
    assert [value.name for value in model.graph.outputs] == ["s", "k", "y"]
    assert all(value.producer() is not None for value in model.graph.outputs)


def test_nothing_is_logged_or_warned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model, _ = folded("g (float[2] x) => (float[2] y) <float[2] w = {0, -2}> { a = Log(w)  y = Add(x, a) }")
    assert caplog.records == []
    assert np.isnan(model.graph.initializers["a"].const_value.numpy()[1])  # type: ignore[union-attr]


def test_twice_is_once() -> None:
    body = """g (float[2,3] x) => (float[6] y) {
        s = Size(x)
        k = Constant<value_ints = [1]>()
        t = Reshape(s, k)
        y = Reshape(x, t)
    }"""
    model, _ = folded(body)
    before = ir.to_onnx_text(model)
    stats = fold_constants.apply(model, fold_constants.Config(), None)  # type: ignore[arg-type]
    assert ir.to_onnx_text(model) == before
    assert stats["nodes_before"] == stats["nodes_after"]
