"""The reference as a runtime: bundles, cuts, taps, bounded memory, and errors that name the node."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewright import session
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.runtimes import reference

HEADER = '<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>'
CHAIN = (
    HEADER
    + """ g (float[2,3] x, float[2,3] z) => (float[2,3] y, float[2,3] w) <float[3] bias = {1.0, 2.0, 3.0}> {
    a = Add(x, bias) b = Relu(a) p, q = Split<axis=0, num_outputs=2>(b) c = Concat<axis=0>(q, p) y = Mul(c, z) w = Neg(b) }"""
)
X, Z = np.float32([[1, -2, 3], [-4, 5, -6]]), np.full((2, 3), 2, np.float32)


def make(text: str) -> Model:
    return Model(ir.from_proto(onnx.parser.parse_model(text)))


def opened(text: str, folder: Path, cut: Cut | None = None) -> Any:
    make(text).save(folder / "model.onnx")
    return reference.open(SimpleNamespace(path=folder), threads=1, cut=cut)  # type: ignore[arg-type]


def test_bundle_runs_and_says_how(tmp_path: Path) -> None:
    bundle = convert(make(CHAIN), "reference", tmp_path / "out")
    assert bundle.runtime_version == f"numpy {np.__version__}"
    assert set(bundle.tensor_names) == {"x", "z", "a", "b", "p", "q", "c", "y", "w"}
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0].replace('"model.onnx"', repr(str(bundle.file("model.onnx"))))
    names = {"x": X, "z": Z}
    for name in names:
        code = code.replace(f'"{name}": ...', f'"{name}": {name}')
    exec(code, scope := dict(names))
    with session.open(bundle) as run:
        results = run.run({"x": X, "z": Z})
        inner = run.run({"x": X, "z": Z}, ["b", "q", "bias"])
    for got, want in zip(results.values(), scope["outputs"], strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(inner["b"], np.maximum(X + np.float32([1, 2, 3]), 0))
    np.testing.assert_array_equal(inner["q"], inner["b"][1:])


class TestCut:
    def test_given_tensors_replace_their_makers(self, tmp_path: Path) -> None:
        given = {"b": Z, "z": X}
        results = opened(CHAIN, tmp_path, Cut(("b", "z"), ("y", "w"))).run(given)
        np.testing.assert_array_equal(results["y"], Z * X)
        np.testing.assert_array_equal(results["w"], -Z)

    def test_one_of_two_outputs_of_a_node(self, tmp_path: Path) -> None:
        fed = np.full((1, 3), 9, np.float32)
        results = opened(CHAIN, tmp_path, Cut(("b", "p"), ("c", "q"))).run({"b": X, "p": fed})
        np.testing.assert_array_equal(results["c"], np.concatenate([X[1:], fed]))

    def test_shows_weights_and_what_it_was_given(self, tmp_path: Path) -> None:
        results = opened(CHAIN, tmp_path, Cut(("b",), ("bias", "b"))).run({"b": X})
        np.testing.assert_array_equal(results["bias"], np.float32([1, 2, 3]))
        np.testing.assert_array_equal(results["b"], X)

    def test_a_weight_can_be_given(self, tmp_path: Path) -> None:
        results = opened(CHAIN, tmp_path, Cut(("x", "bias"), ("a",))).run({"x": X, "bias": np.zeros(3, np.float32)})
        np.testing.assert_array_equal(results["a"], X)

    @pytest.mark.parametrize(("inputs", "outputs"), [(("b",), ("y",)), (("b",), ("x",))])
    def test_refuses_what_its_inputs_do_not_determine(
        self, inputs: tuple[str, ...], outputs: tuple[str, ...], tmp_path: Path
    ) -> None:
        with pytest.raises(EdgewrightError, match="which the cut does not feed") as caught:
            opened(CHAIN, tmp_path, Cut(inputs, outputs))
        assert caught.value.code == "E231"

    def test_names_the_nearest_tensor(self, tmp_path: Path) -> None:
        with pytest.raises(EdgewrightError, match="did you mean `bias`") as caught:
            opened(CHAIN, tmp_path, Cut(None, ("biass",)))
        assert caught.value.code == "E231"

    def test_sees_what_subgraphs_capture(self, tmp_path: Path) -> None:
        text = (
            HEADER
            + """ g (float[2] x, bool c) => (float[2] y) { a = Neg(x) b = Abs(x) y = If(c) <
            then_branch = t () => (float[2] u) { u = Add(a, b) }, else_branch = e () => (float[2] v) { v = Sub(a, b) }> }"""
        )
        feeds = {"a": np.float32([1, 2]), "b": np.float32([5, 5]), "c": np.array(False)}
        np.testing.assert_array_equal(opened(text, tmp_path, Cut(tuple(feeds), ("y",))).run(feeds)["y"], [-4, -3])
        with pytest.raises(EdgewrightError, match="input `x`"):
            opened(text, tmp_path, Cut(("a", "c"), ("y",)))


def test_memory_stays_at_a_few_tensors(tmp_path: Path) -> None:
    chain = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(40))
    runner = opened(f"{HEADER} g (float[n] t0) => (float[n] t40) {{ {chain} }}", tmp_path)
    x = np.zeros(1_000_000, np.float32)
    tracemalloc.start()
    runner.run({"t0": x})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * x.nbytes


def test_results_are_the_callers_own_and_inputs_stay(tmp_path: Path) -> None:
    runner = opened(
        f"{HEADER} g (float[2,3] x) => (float[2,3] y, float[3,2] t) {{ y = Identity(x) t = Transpose(x) }}", tmp_path
    )
    x = X.copy()
    first = runner.run({"x": x})
    assert first["t"].flags.c_contiguous
    first["y"][:] = 0
    first["t"][:] = 0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(runner.run({"x": x})["y"], X)


def test_float16_is_stored_in_16_bits_and_summed_in_32(tmp_path: Path) -> None:
    text = f"{HEADER} g (float16[1,n] x, float16[n,1] w) => (float16[1,1] y) {{ y = MatMul(x, w) }}"
    n = 4096  # in float16 the sum of ones would stop at 2048
    feeds = {"x": np.ones((1, n), np.float16), "w": np.ones((n, 1), np.float16)}
    got = opened(text, tmp_path).run(feeds)["y"]
    assert got.dtype == np.float16
    assert got.item() == n


class TestErrors:
    def test_names_node_operator_and_shapes(self, tmp_path: Path) -> None:
        text = f"{HEADER} g (float[1,3,8,8] x, float[4,2,3,3] w) => (y) {{ y = Conv(x, w) }}"
        model = onnx.parser.parse_model(text.replace("(y)", "(float y)"))
        model.graph.node[0].name = "/stem/conv"
        onnx.save(model, tmp_path / "model.onnx")
        runner = reference.open(SimpleNamespace(path=tmp_path), threads=1)  # type: ignore[arg-type]
        feeds = {"x": np.zeros((1, 3, 8, 8), np.float32), "w": np.zeros((4, 2, 3, 3), np.float32)}
        with pytest.raises(EdgewrightError, match=r"node `/stem/conv` \(`Conv`\) failed: .*1 groups") as caught:
            runner.run(feeds)
        assert caught.value.code == "E232"
        assert "float32[1, 3, 8, 8]" in caught.value.details[0]

    @pytest.mark.parametrize(
        ("node", "feeds"),
        [
            ("Add(x, z)", {"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)}),
            ("Reshape(x, z)", {"x": np.zeros(6, np.float32), "z": np.int64([4])}),
            ("Gather(x, z)", {"x": np.zeros(6, np.float32), "z": np.int64([6])}),
            ("Concat<axis=3>(x, z)", {"x": np.zeros(2, np.float32), "z": np.zeros(2, np.float32)}),
            ("MatMul(x, z)", {"x": np.zeros((2, 3), np.float32), "z": np.zeros((2, 3), np.float32)}),
            ("Split<axis=0>(x, z)", {"x": np.zeros(6, np.float32), "z": np.int64([2, 2])}),
            ("Transpose<perm=[0,0]>(x)", {"x": np.zeros((2, 3), np.float32), "z": np.int64([1])}),
            ("MaxPool<kernel_shape=[3]>(x)", {"x": np.zeros((1, 1, 2), np.float32), "z": np.int64([1])}),
            ("Resize(x, , z)", {"x": np.zeros((1, 1, 2), np.float32), "z": np.float32([1, 1, -1])}),
            ("TopK(x, z)", {"x": np.zeros(3, np.float32), "z": np.int64([4])}),
            ("ConstantOfShape(z)", {"x": np.zeros(3, np.float32), "z": np.int64([2**50])}),
            ('Einsum<equation="ij,jk">(x, z)', {"x": np.zeros(3, np.float32), "z": np.zeros(3, np.float32)}),
        ],
    )
    def test_bad_shapes_name_the_node(self, node: str, feeds: dict[str, np.ndarray], tmp_path: Path) -> None:
        kinds = {np.dtype(np.float32): "float", np.dtype(np.int64): "int64"}
        inputs = ", ".join(f"{kinds[x.dtype]}[{','.join(map(str, x.shape))}] {name}" for name, x in feeds.items())
        runner = opened(f"{HEADER} g ({inputs}) => (float y) {{ y = {node} }}", tmp_path)
        with pytest.raises(EdgewrightError, match=r"node `y` \(`\w+`\) failed") as caught:
            runner.run(feeds)
        assert caught.value.code == "E232"

    def test_missing_input(self, tmp_path: Path) -> None:
        with pytest.raises(EdgewrightError, match="input `z` is missing") as caught:
            opened(CHAIN, tmp_path).run({"x": X})
        assert caught.value.code == "E230"

    def test_closed(self, tmp_path: Path) -> None:
        runner = opened(CHAIN, tmp_path)
        runner.close()
        with pytest.raises(EdgewrightError, match="closed"):
            runner.run({"x": X, "z": Z})

    @pytest.mark.parametrize("content", [b"", b"\x08", b"no model at all", bytes(range(256)) * 9])
    def test_broken_file(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(EdgewrightError) as caught:
            reference.open(SimpleNamespace(path=tmp_path), threads=1)  # type: ignore[arg-type]
        assert caught.value.code == "E232"

    def test_truncated_file(self, tmp_path: Path) -> None:
        content = make(CHAIN).save(tmp_path / "model.onnx").read_bytes()
        for length in range(0, len(content), 7):
            (tmp_path / "model.onnx").write_bytes(content[:length])
            with pytest.raises(EdgewrightError) as caught:  # cut between two fields, the rest is a network of its own
                reference.open(SimpleNamespace(path=tmp_path), threads=1).run({"x": X})  # type: ignore[arg-type]
            assert caught.value.code in ("E203", "E230", "E231", "E232")


class TestSupports:
    def test_finds_unknown_operators_in_subgraphs_and_functions(self) -> None:
        text = (
            HEADER
            + """ g (float[2] x, bool c) => (float[2] y) { s = edgewright.Own(x) y = If(c) <
            then_branch = t () => (float[2] u) { u = RandomNormalLike(s) }, else_branch = e () => (float[2] v) { v = Neg(s) }> }
            <domain: "edgewright", opset_import: ["" : 21, "other" : 1]> Own (x) => (y) { t = other.Thing(x) y = Abs(t) }"""
        )
        problems = reference.supports(ir.from_proto(onnx.parser.parse_model(text)))
        assert {(problem.op_type, problem.node) for problem in problems} == {("RandomNormalLike", "u"), ("Thing", "t")}

    def test_refuses_attributes_it_would_ignore(self) -> None:
        graph = ir.from_onnx_text(f"{HEADER} g (float[2] x) => (float[2] y) {{ y = Relu<consumed_inputs=[0]>(x) }}")
        (problem,) = reference.supports(graph)
        assert "consumed_inputs" in problem.reason

    def test_a_function_that_calls_itself(self, tmp_path: Path) -> None:
        text = (
            HEADER
            + """ g (float[2] x) => (float[2] y) { y = edgewright.Own(x) }
            <domain: "edgewright", opset_import: ["" : 21, "edgewright" : 1]> Own (x) => (y) { y = edgewright.Own(x) }"""
        )
        assert reference.supports(ir.from_proto(onnx.parser.parse_model(text))) == ()
        with pytest.raises(EdgewrightError, match="calls itself"):
            opened(text, tmp_path)


def test_own_operators_run_by_their_body(
    tmp_path: Path, model_from_text: Callable[..., Any], tolerance: dict[str, dict[str, float]]
) -> None:
    text = (
        HEADER
        + """ g (float[4] x) => (float[4] y) { y = edgewright.Swish<beta=2.0>(x) }
        <domain: "edgewright", opset_import: ["" : 21]> Swish <beta: float = 1.0> (x) => (y)
        { b = Constant<value_float: float = @beta>() s = Mul(x, b) g = Sigmoid(s) y = Mul(x, g) }"""
    )
    x = np.float32([-1, 0, 1, 2])
    got = opened(text, tmp_path).run({"x": x})["y"]
    limits = tolerance["float32"]
    np.testing.assert_allclose(got, x / (1 + np.exp(-2 * x)), rtol=limits["rtol"], atol=limits["atol"])
