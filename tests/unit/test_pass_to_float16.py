"""passes/to_float16: what turns to half precision, what stays, and that names and types of the interface do not change."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import add_initializer
from edgewright.graph.shapes import infer
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.passes import to_float16
from edgewright.passes.to_float16 import _conversion

HEAD = '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>'
Tolerance = dict[str, dict[str, float]]
HALF = ir.DataType.FLOAT16


def parse(body: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEAD} {body}")


def convert(model: ir.Model, **config: tuple[str, ...]) -> dict[str, object]:
    stats = to_float16.apply(model, to_float16.Config(**config), None)  # type: ignore[arg-type]
    infer(model)  # raises where types contradict
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return stats


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for graph in model.graphs() for node in graph]


def dtype_of(model: ir.Model, name: str) -> ir.DataType | None:
    return next(v.dtype for g in model.graphs() for node in g for v in node.outputs if v.name == name)


def reasons(stats: dict[str, object]) -> set[str]:
    return set(stats["kept"])  # type: ignore[call-overload]


def test_interface_keeps_names_and_float32(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (float[2,3] x) => (float[2,2] y, float[2,2] inner) <float[3,2] w = {1,2,3,4,5,6}, float[2] b = {0.5,-0.5}> {
            inner = Gemm(x, w, b)
            y = Relu(inner)
        }"""
    )
    feeds = {"x": rng.standard_normal((2, 3)).astype(np.float32)}
    before = run(model, feeds)
    stats = convert(model)
    after = run(model, feeds)
    assert list(after) == ["y", "inner"]
    assert all(array.dtype == np.float32 for array in after.values())
    assert all(sqnr_db(before[name], after[name]) >= tolerance["float16"]["sqnr_db"] for name in before)
    assert {value.const_value.dtype for value in model.graph.initializers.values()} == {HALF}  # type: ignore[union-attr]
    assert set(model.graph.initializers) == {"w", "b"}, "weights that all turn to float16 keep their names"
    assert (stats["float16_nodes"], stats["float32_nodes"], stats["casts"], stats["weights"]) == (2, 0, 3, 8)


def test_node_names_stay_unique(rng: np.random.Generator) -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] z) { [y] a = Relu(x)  [z] y = Neg(a)  [x] z = Abs(a) }")
    convert(model)
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert list(run(model, {"x": rng.standard_normal(2).astype(np.float32)})) == ["y", "z"]


def test_every_kind_of_value_gets_its_type() -> None:
    model = parse(
        """g (float[2,3] x, int64[2] i, bool[2,3] m) => (float[2,3] y, bool[2,3] big, int64[2] s, float[A,3] rows)
        <float zero = {0}> {
            fill = ConstantOfShape<value = float[1] {2.5}>(i)
            big = Greater(x, zero)
            s = Shape(x)
            flag = Cast<to = 1>(m)
            a = Add(x, flag)
            y = Where(m, a, x)
            rows = Gather(fill, i)
        }"""
    )
    convert(model)
    assert [dtype_of(model, name) for name in ("fill", "flag", "a", "y:fp16", "rows:fp16")] == [HALF] * 5
    assert [str(value.dtype) for value in model.graph.outputs] == ["FLOAT", "BOOL", "INT64", "FLOAT"]


KEPT = {
    "Pow: range or precision": "y = Pow(x, two)",
    "ReduceSumSquare: range or precision": "y = ReduceSumSquare(x)",
    "a constant is beyond 65504": "y = Add(x, huge)",
    "a constant would become 0": "y = Add(x, tiny)",
    "counts or squares": "s = Shape(x)  y = Cast<to = 1>(s)",
    "a sum of more than 1024 values": "y = ReduceSum<keepdims = 0>(x)",
    "no float16 form": "y = RandomNormal<shape = [2]>()",
    "operators of the domain own": "y = own.thing(x)",
    "a constant that the graph returns": "y = Constant<value_floats = [1.0, 2.0]>()",
}


@pytest.mark.parametrize("reason", KEPT)
def test_what_stays_in_float32_and_why(reason: str) -> None:
    model = parse(
        f"""g (float[64,32] x) => (float[] y)
        <float two = {{2}}, float huge = {{100000}}, float tiny = {{1e-12}}> {{ {KEPT[reason]} }}
        <opset_import: ["" : 21], domain: "own"> thing (a) => (b) {{ b = Relu(a) }}"""
    )
    before = ir.to_onnx_text(model)
    stats = to_float16.apply(model, to_float16.Config(), None)  # type: ignore[arg-type]
    assert reasons(stats) == {reason}
    assert stats["casts"] == 0
    assert kinds(model) == kinds(ir.from_onnx_text(before))


def test_a_long_sum_is_told_from_a_short_one() -> None:
    model = parse("g (float[64,32] x) => (float[64] y) <int64[1] axis = {1}> { y = ReduceSum<keepdims = 0>(x, axis) }")
    assert convert(model)["float32_nodes"] == 0


def test_squares_stay_in_float32_until_they_are_tamed(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (float[4,8] x) => (float[4,8] y)
        <float two = {2}, float eps = {1e-12}, int64[1] axis = {1}, float[8] w = {1,2,3,4,5,6,7,8}> {
            sq = Pow(x, two)
            mean = ReduceMean(sq, axis)
            safe = Add(mean, eps)
            root = Sqrt(safe)
            norm = Div(x, root)
            y = Mul(norm, w)
        }"""
    )
    feeds = {"x": (rng.standard_normal((4, 8)) * 1000).astype(np.float32)}
    before = run(model, feeds)
    convert(model)
    types = [dtype_of(model, name) for name in ("sq", "mean", "safe", "root", "norm")]
    assert types == [ir.DataType.FLOAT] * 4 + [HALF]
    assert sqnr_db(before["y"], run(model, feeds)["y"]) >= tolerance["float16"]["sqnr_db"]


def test_work_is_done_in_float16_whatever_comes_in() -> None:
    model = parse(
        """g (int32[1,3,4,4] x) => (float[1,2,4,4] y) <float[2,3,1,1] w = {1,2,3,4,5,6}> {
            pixels = Cast<to = 1>(x)
            y = Conv(pixels, w)
        }"""
    )
    stats = convert(model)
    assert reasons(stats) == {"counts or squares"}
    assert dtype_of(model, "y:fp16") == HALF


def test_huge_masks_are_saturated_not_infinite(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (float[2,4] x, bool[2,4] m) => (float[2,4] y) <float low = {-3e38}> {
            s = Where(m, x, low)
            y = Softmax<axis = 1>(s)
        }"""
    )
    feeds = {"x": rng.standard_normal((2, 4)).astype(np.float32), "m": np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)}
    before = run(model, feeds)
    convert(model)
    after = run(model, feeds)
    assert np.isfinite(after["y"]).all(), "a row that is masked whole must not become NaN"
    assert sqnr_db(before["y"], after["y"]) >= tolerance["float16"]["sqnr_db"]


def test_resize_keeps_its_scales_in_float32(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (float[1,2,4,4] x) => (float[1,2,A,B] y) <float[4] scales = {1, 1, 2.5, 2.5}> {
            h = Relu(x)
            y = Resize<mode = "linear">(h, , scales)
        }"""
    )
    feeds = {"x": rng.standard_normal((1, 2, 4, 4)).astype(np.float32)}
    before = run(model, feeds)
    convert(model)
    assert model.graph.initializers["scales"].dtype == ir.DataType.FLOAT
    assert sqnr_db(before["y"], run(model, feeds)["y"]) >= tolerance["float16"]["sqnr_db"]


def test_a_constant_that_both_sides_read_exists_twice() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> {
            y = Add(x, w)
            z = Pow(x, w)
        }"""
    )
    convert(model)
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {
        "w": ir.DataType.FLOAT,
        "w:fp16": HALF,
    }


def test_keep_takes_names_of_nodes_and_tensors_and_operators() -> None:
    body = "g (float[2] x) => (float[2] y) { [first] a = Relu(x)  [second] b = Neg(a)  [third] y = Abs(b) }"
    for config in ({"keep": ("second",)}, {"keep": ("b",)}, {"keep_operators": ("Neg",)}):
        model = parse(body)
        stats = convert(model, **config)  # type: ignore[arg-type]
        assert (dtype_of(model, "a"), dtype_of(model, "b")) == (HALF, ir.DataType.FLOAT)
        assert stats["float32_nodes"] == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"keep": ("secnd",)}, "did you mean `second`"),
        ({"keep": ("",)}, "is not a node or tensor"),
        ({"keep_operators": ("Sofmax",)}, "did you mean `Softmax`"),
    ],
)
def test_unknown_names_to_keep_are_refused(config: dict[str, tuple[str, ...]], message: str) -> None:
    model = parse("g (float[2] x) => (float[2] y) { [second] y = Relu(x) }")
    with pytest.raises(EdgewrightError, match=message) as caught:
        convert(model, **config)
    assert caught.value.code == "E103"


def test_a_quantized_graph_is_refused() -> None:
    model = parse("g (float[2] x) => (int8[2] y) <float s = {0.5}, int8 z = {0}> { y = QuantizeLinear(x, s, z) }")
    with pytest.raises(EdgewrightError, match="quantized") as caught:
        convert(model)
    assert caught.value.code == "E212"


def test_losses_of_weights_are_counted() -> None:
    model = parse("g (float[4] x) => (float[4] y) <float[4] w = {1, 1e-5, 1e-9, 0}> { y = Mul(x, w) }")
    stats = convert(model)
    assert (stats["weights"], stats["weights_subnormal"], stats["weights_to_zero"]) == (4, 1, 1)


def test_infinities_and_nan_in_weights_pass_through() -> None:
    model = parse("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }")
    model.graph.initializers["w"].const_value = ir.tensor(np.array([np.inf, -np.inf, np.nan], np.float32))
    assert convert(model)["float32_nodes"] == 0


CONTROL = {
    "If": """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1.5, 2}> {
        a = Mul(x, w)
        b = If (c) <then_branch = t () => (float[2] p) { h = Add(a, w)  p = Relu(h) },
                    else_branch = e () => (float[2] q) { q = Sub(x, a) }>
        y = Neg(b)
    }""",
    "Loop": """g (bool c, float[2] x) => (float[2] y, float[3,2] all) <float[2] w = {1.5, 2}, int64 n = {3}> {
        y, all = Loop (n, c, x) <body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] u) {
            on = Identity(go)
            t = Add(s, w)
            u = Mul(t, s)
        }>
    }""",
    "Scan": """g (bool c, float[2] x, float[3,2] seq) => (float[2] y, float[3,2] all) {
        y, all = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] e) => (float[2] t, float[2] u) {
            t = Add(s, e)
            u = Relu(t)
        }>(x, seq)
    }""",
}


@pytest.mark.parametrize(("name", "taken"), [("If", True), ("If", False), ("Loop", True), ("Scan", True)])
def test_control_flow_turns_to_float16_inside(
    name: str, taken: bool, rng: np.random.Generator, tolerance: Tolerance
) -> None:
    model = parse(CONTROL[name])
    feeds: dict[str, np.ndarray] = {"c": np.array(taken), "x": rng.standard_normal(2).astype(np.float32)}
    if name == "Scan":
        feeds["seq"] = rng.standard_normal((3, 2)).astype(np.float32)
    before = run(model, feeds)
    stats = convert(model)
    after = run(model, feeds)
    assert reasons(stats) == {"control flow, converted inside"}
    assert stats["float16_nodes"]
    assert all(array.dtype == before[key].dtype for key, array in after.items())
    assert all(sqnr_db(before[key], after[key]) >= tolerance["float16"]["sqnr_db"] for key in before)


def test_recurrent_layers_and_norms_convert(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (float[5,1,3] x, float[1,16,3] w, float[1,16,4] r) => (float[5,1,1,4] y) <float[4] g = {1,2,3,4}> {
            h, last = LSTM<hidden_size = 4>(x, w, r)
            y = LayerNormalization(h, g)
        }"""
    )
    for index, shape in ((1, (1, 16, 3)), (2, (1, 16, 4))):
        weight = add_initializer(model.graph, f"weight{index}", rng.standard_normal(shape).astype(np.float32) * 0.3)
        model.graph[0].replace_input_with(index, weight)
    del model.graph.inputs[1:]
    feeds = {"x": rng.standard_normal((5, 1, 3)).astype(np.float32)}
    before = run(model, feeds)
    assert convert(model)["float32_nodes"] == 0
    assert sqnr_db(before["y"], run(model, feeds)["y"]) >= tolerance["float16"]["sqnr_db"]


@pytest.mark.parametrize("name", CONTROL)
def test_twice_is_once(name: str) -> None:
    model = parse(CONTROL[name])
    convert(model)
    before = ir.to_onnx_text(model)
    stats = convert(model)
    assert ir.to_onnx_text(model) == before
    assert stats["weights"] == 0


def test_broken_conversion_is_caught(
    rng: np.random.Generator, tolerance: Tolerance, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parse("g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}> { y = MatMul(x, w) }")
    feeds = {"x": rng.standard_normal((2, 3)).astype(np.float32)}
    before = run(model, feeds)
    right = _conversion.to_half
    monkeypatch.setattr(_conversion, "to_half", lambda array: right(array) * np.float16(1.01))
    convert(model)
    after = run(model, feeds)
    assert sqnr_db(before["y"], after["y"]) < tolerance["float16"]["sqnr_db"]
    assert rel_l2(before["y"], after["y"]) > 0
