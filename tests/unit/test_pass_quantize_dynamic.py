"""passes/quantize_dynamic: what is fused, what stays in float and why, and how near the results are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.onnx_files import with_weights

from edgewright import session
from edgewright.compress import compress
from edgewright.contracts import QuantFormat
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.load import load
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.model import Model
from edgewright.original import limits
from edgewright.passes import quantize_dynamic
from edgewright.passes.quantize_dynamic import Config
from edgewright.target import Target, weight_bits

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
Tolerance = dict[str, dict[str, float]]
#: What this machine's kernels multiply without saturation.
HOST_BITS = weight_bits(Target("onnxruntime"))[0]
Arrays = dict[str, np.ndarray]


def parse(body: str, **weights: np.ndarray) -> ir.Model:
    """The graph, where each `weights` stands for an input of that name: constants too large for text."""
    return with_weights(f"{HEAD} {body}", weights)


def quantize(model: ir.Model, bits: int = HOST_BITS, **config: Any) -> dict[str, Any]:
    context = SimpleNamespace(quant_format=QuantFormat(weight_bits=bits, reason="a test"), samples=None)
    config = {"min_weights": 1, **config}
    stats = quantize_dynamic.apply(model, Config(**config), context)  # type: ignore[arg-type]
    onnx.checker.check_model(ir.to_proto(model), full_check=False)
    return stats


def run(model: ir.Model, feeds: Arrays, saved: Path | None = None) -> Arrays:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if saved:
        options.optimized_model_filepath = str(saved)
    opened = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in opened.get_outputs()], opened.run(None, feeds), strict=True))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def kinds(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


def reasons(stats: dict[str, Any]) -> set[str]:
    return set(stats["float"])


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[-1]))).astype(np.float32)


# --- products ---------------------------------------------------------------------------------------------------------

PRODUCTS = {
    "MatMul": ("float[2,5,24] x, float[24,16] w", "y = MatMul(x, w)", "float[2,5,16] y"),
    "MatMul of a matrix and a bias": (
        "float[5,24] x, float[24,16] w, float[16] b",
        "p = MatMul(x, w)  y = Add(p, b)",
        "float[5,16] y",
    ),
    "Gemm": ("float[5,24] x, float[24,16] w, float[16] b", "y = Gemm(x, w, b)", "float[5,16] y"),
    "Gemm transposed": ("float[5,24] x, float[16,24] w, float[16] b", "y = Gemm<transB = 1>(x, w, b)", "float[5,16] y"),
    "Gemm with a bias in two axes": ("float[5,24] x, float[24,16] w, float[1,16] b", "y = Gemm(x, w, b)", "float[5,16] y"),
    "Gemm with one number as bias": ("float[5,24] x, float[24,16] w, float[1] b", "y = Gemm(x, w, b)", "float[5,16] y"),
    "Gemm scaled": (
        "float[5,24] x, float[16,24] w, float[16] b",
        "y = Gemm<transB = 1, alpha = 0.5, beta = 3.0>(x, w, b)",
        "float[5,16] y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bits", sorted({7, HOST_BITS}))
@pytest.mark.parametrize("case", PRODUCTS)
def test_a_product_is_one_fused_operator(
    case: str, bits: int, rng: np.random.Generator, tolerance: Tolerance, tmp_path: Path
) -> None:
    given, body, made = PRODUCTS[case]
    names = [part.split()[-1] for part in given.split(", ") if len(part.split()) == 2]
    shapes = {name: tuple(map(int, given.split(f"] {name}")[0].split("[")[-1].split(","))) for name in names}
    weights = {name: random(rng, *shape) for name, shape in shapes.items() if name != "x"}
    model = parse(f"g ({given}) => ({made}) {{ {body} }}", **weights)
    feeds = {"x": random(rng, *shapes["x"])}
    before = run(model, feeds)
    stats = quantize(model, bits)
    assert sum(stats["quantized"].values()) == 1
    assert not stats["float"]
    integers = next(v.const_value.numpy() for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8)  # type: ignore[union-attr]
    assert integers.max() <= 2 ** (bits - 1) - 1
    assert integers.min() >= -(2 ** (bits - 1))
    after = run(model, feeds, tmp_path / "optimized.onnx")
    assert operators(tmp_path / "optimized.onnx") == ["DynamicQuantizeMatMul"]
    assert list(after) == list(before)
    assert sqnr_db(before["y"], after["y"]) >= tolerance["int8"]["sqnr_db"]
    exact = session.open(Model(model), runtime="reference").run(feeds)  # integer sums are exact: rounding alone differs
    assert rel_l2(exact["y"], after["y"]) <= 10 * tolerance["float32"]["rel_l2"] or (
        np.abs(exact["y"] - after["y"]).mean() <= tolerance["int8"]["steps"] * np.abs(exact["y"]).max()
    )


def test_layers_that_read_one_tensor_quantize_it_once(rng: np.random.Generator, tmp_path: Path) -> None:
    model = parse(
        "g (float[4,24] x, float[24,16] q, float[24,16] k) => (float[4,16] a, float[4,16] b) "
        "{ a = MatMul(x, q)  b = MatMul(x, k) }",
        q=random(rng, 24, 16), k=random(rng, 24, 16),
    )  # fmt: skip
    assert quantize(model)["quantized"] == {"MatMul": 2}
    assert [node.op_type for node in model.graph].count("DynamicQuantizeLinear") == 1
    run(model, {"x": random(rng, 4, 24)}, tmp_path / "o.onnx")
    assert sorted(operators(tmp_path / "o.onnx")) == ["DynamicQuantizeLinear", *["MatMulIntegerToFloat"] * 2]


def test_layers_that_share_weights_share_the_integers(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        "g (float[4,24] x, float[4,24] z, float[24,16] w) => (float[4,16] a, float[4,16] b) "
        "{ a = MatMul(x, w)  b = MatMul(z, w) }",
        w=random(rng, 24, 16),
    )  # fmt: skip
    feeds = {"x": random(rng, 4, 24), "z": random(rng, 4, 24)}
    before = run(model, feeds)
    quantize(model)
    assert len(model.graph.initializers) == 2
    after = run(model, feeds)
    assert all(sqnr_db(before[name], after[name]) >= tolerance["int8"]["sqnr_db"] for name in before)


LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "asked for": ("y = MatMul(x, w)", {"keep": ("y",)}),
    "fewer than 1000 weights": ("y = MatMul(x, w)", {"min_weights": 1000}),
    "MatMul is not in `operators`": ("y = MatMul(x, w)", {"operators": ("Gemm",)}),
    "its weights would be below 60 dB": ("y = MatMul(x, w)", {"min_sqnr_db": 60.0}),
    "its constant is the first factor": ("t = Transpose(x)  p = MatMul(w, t)  y = Transpose(p)", {}),
    "it transposes its input": ("t = Transpose(x)  y = Gemm<transA = 1>(t, w)", {}),
    "its alpha or beta is unusual": ("y = Gemm<alpha = -1.0>(x, w)", {}),
    "others read its weights too": ("y = MatMul(x, w)  z = Relu(w)", {}),
    "its weights are computed or may be fed": ("v = Relu(w)  y = Gemm(x, v)", {}),
    "an integer Conv is slower than a float one": ("y = Conv(c, k)", {}),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_stays_in_float_and_why(reason: str, rng: np.random.Generator) -> None:
    body, config = LEFT[reason]
    second = ", float[24,24] z" if "z =" in body else ""
    model = parse(
        f"g (float[24,24] x, float[24,24] w, float[1,3,8,8] c, float[4,3,3,3] k) => (float[] y{second}) {{ {body} }}",
        w=random(rng, 24, 24), k=random(rng, 4, 3, 3, 3),
    )  # fmt: skip
    before = kinds(model)
    stats = quantize(model, **config)
    assert reasons(stats) == {reason}
    assert not stats["quantized"]
    assert kinds(model) == before


def test_weights_that_are_not_finite_or_not_float32_stay(rng: np.random.Generator) -> None:
    broken = random(rng, 24, 16)
    broken[3, 3] = np.nan
    model = parse(
        "g (float[4,24] x, float16[4,24] h, float[24,16] w, float16[24,16] v) => (float[4,16] y, float16[4,16] z) "
        "{ y = MatMul(x, w)  z = MatMul(h, v) }",
        w=broken, v=random(rng, 24, 16).astype(np.float16),
    )  # fmt: skip
    assert reasons(quantize(model)) == {"its weights hold NaN or infinity", "its weights are float16"}


def test_layers_in_subgraphs_stay(rng: np.random.Generator) -> None:
    model = parse(
        """g (bool c, float[4,24] x, float[24,24] w) => (float[4,24] y) {
            y = If (c) <then_branch = yes () => (float[4,24] a) { a = MatMul(x, w) },
                        else_branch = no () => (float[4,24] b) { b = Relu(x) }>
        }""",
        w=random(rng, 24, 24),
    )
    assert reasons(quantize(model)) == {"it is in a subgraph"}


# --- LSTM -------------------------------------------------------------------------------------------------------------


def lstm(rng: np.random.Generator, *, directions: int = 1, extra: str = "", attributes: str = "") -> ir.Model:
    size, hidden = 20, 12
    bound = hidden**-0.5
    kind = {1: "forward", 2: "bidirectional"}[directions]

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    weights = {
        "w": uniform(directions, 4 * hidden, size),
        "r": uniform(directions, 4 * hidden, hidden),
        "b": uniform(directions, 8 * hidden),
        "h": uniform(directions, 2, hidden),
        "c": uniform(directions, 2, hidden),
        "p": uniform(directions, 3 * hidden),
    }
    given = ", ".join(f"float[{','.join(map(str, array.shape))}] {name}" for name, array in weights.items())
    return parse(
        f"""g (float[9,2,{size}] x, int32[2] lengths, {given}) => (float[] y, float[] last, float[] cell) {{
            y, last, cell = LSTM<hidden_size = {hidden}, direction = "{kind}"{attributes}>(x, w, r{extra})
        }}""",
        **weights,
    )


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("extra", ["", ", b", ", b, lengths", ", b, lengths, h, c", ", , , h, c"])
def test_an_lstm_becomes_onnx_runtimes_own(
    extra: str, directions: int, rng: np.random.Generator, tolerance: Tolerance
) -> None:
    model = lstm(rng, directions=directions, extra=extra)
    feeds = {"x": rng.standard_normal((9, 2, 20)).astype(np.float32), "lengths": np.array([9, 5], np.int32)}
    before = run(model, feeds)
    stats = quantize(model)
    assert stats["quantized"] == {"LSTM": 1}
    assert kinds(model) == {"DynamicQuantizeLSTM"}
    assert not {"w", "r"} & set(model.graph.initializers)
    after = run(model, feeds)
    for name, array in before.items():
        assert after[name].shape == array.shape
        assert sqnr_db(array, after[name]) >= tolerance["int8"]["sqnr_db"]


def test_an_lstm_with_peepholes_or_batch_first_stays(rng: np.random.Generator) -> None:
    assert reasons(quantize(lstm(rng, extra=", b, , h, c, p"))) == {"it has peepholes"}
    assert reasons(quantize(lstm(rng, attributes=", layout = 1"))) == {"its layout is batch first"}


def test_gru_has_no_dynamic_form(rng: np.random.Generator) -> None:
    model = parse(
        "g (float[9,2,20] x, float[1,36,20] w, float[1,36,12] r) => (float[] y) { y = GRU<hidden_size = 12>(x, w, r) }",
        w=random(rng, 1, 36, 20), r=random(rng, 1, 36, 12),
    )  # fmt: skip
    assert reasons(quantize(model)) == {"the runtime has no dynamic form of it"}


# --- errors, and the whole way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w:scale", "w:int8"])
def test_a_broken_constant_falls_below_the_limit(name: str, rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse("g (float[8,24] x, float[24,16] w) => (float[8,16] y) { y = MatMul(x, w) }", w=random(rng, 24, 16))
    feeds = {"x": random(rng, 8, 24)}
    before = run(model, feeds)
    quantize(model)
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.roll(value.const_value.numpy(), 1, axis=-1), name=name)
    assert sqnr_db(before["y"], run(model, feeds)["y"]) < tolerance["int8"]["sqnr_db"]


def test_a_quantized_graph_is_refused(rng: np.random.Generator) -> None:
    for model in (
        lstm(rng),
        parse("g (float[4,24] x, float[24,9] w) => (float[] y) { y = MatMul(x, w) }", w=random(rng, 24, 9)),
    ):
        quantize(model)
        with pytest.raises(EdgewrightError, match="quantized graph") as caught:
            quantize(model)
        assert caught.value.code == "E212"


def test_an_unknown_name_is_answered_with_the_nearest(rng: np.random.Generator) -> None:
    model = parse("g (float[4,24] x, float[24,9] w) => (float[] score) { score = MatMul(x, w) }", w=random(rng, 24, 9))
    with pytest.raises(EdgewrightError, match="did you mean `score`") as caught:
        quantize(model, keep=("scor",))
    assert caught.value.code == "E103"


def test_the_recipe_makes_a_bundle_that_is_smaller_and_judged_as_int8(
    rng: np.random.Generator, tolerance: Tolerance, tmp_path: Path
) -> None:
    model = Model(
        parse(
            "g (float[4,160] x, float[160,160] w, float[160] b) => (float[4,160] y) { p = MatMul(x, w)  y = Add(p, b) }",
            w=random(rng, 160, 160), b=random(rng, 160),
        )
    )  # fmt: skip
    small = compress(model, "int8-dynamic")
    assert small.precision == "int8"
    assert small.lossy
    before, after = convert(model, "onnxruntime", tmp_path / "a"), convert(small, "onnxruntime", tmp_path / "b")
    sizes = [sum(size for _, size in bundle.files.values()) for bundle in (before, after)]
    assert sizes[1] < 0.4 * sizes[0]
    assert limits(after).precision == "int8"
    feeds = {"x": random(rng, 4, 160)}
    with session.open(before) as one, session.open(after) as other:
        results = [opened.run(feeds)["y"] for opened in (one, other)]
    assert sqnr_db(*results) >= tolerance["int8"]["sqnr_db"]
    read = load(small.save(tmp_path / "small.onnx"))
    assert read.precision == "int8"
    with pytest.raises(EdgewrightError, match="is for `onnxruntime`"):
        compress(model, "int8-dynamic", target=Target("openvino"))


def test_lstm_networks_read_back_and_others_know_what_they_cannot_run(rng: np.random.Generator, tmp_path: Path) -> None:
    model = lstm(rng, extra=", b")
    quantize(model)
    small = Model(model)
    assert small.precision == "int8"
    read = load(small.save(tmp_path / "lstm.onnx"))
    assert "DynamicQuantizeLSTM" in kinds(read.ir)
    with pytest.raises(EdgewrightError, match="DynamicQuantizeLSTM") as caught:
        convert(read, "reference", tmp_path / "bundle")
    assert caught.value.code == "E210"


@pytest.mark.parametrize("name", ["deit_tiny", "lstm_speaker", "mlp_mixer", "crnn"])
def test_architectures_stay_near(
    name: str, architectures: ModuleType, data: Path, tolerance: Tolerance, tmp_path: Path
) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    onnx.save(proto, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    feeds = architectures.example_inputs(proto, seed=0)
    small = compress(model, "int8-dynamic")
    before, after = run(model.ir, feeds), run(small.ir, feeds)
    for key, array in before.items():
        assert sqnr_db(array, after[key]) >= tolerance["int8"]["sqnr_db"]
    quantized = small.history[-1].stats["weights"]
    assert small.weight_bytes() < model.weight_bytes() - 2.5 * quantized
