"""passes/quantize_weights: each operator's scales, bits by tensor, and networks that run as float ones everywhere."""

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
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.graph.shapes import infer
from edgewright.load import load
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.model import Model
from edgewright.original import limits
from edgewright.passes import quantize_weights
from edgewright.passes.quantize_weights import Config
from edgewright.progress import SILENT

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
Tolerance = dict[str, dict[str, float]]
Arrays = dict[str, np.ndarray]
RUNTIMES = ("onnxruntime", "openvino")


def parse(body: str, **weights: np.ndarray) -> ir.Model:
    """The graph, where each `weights` stands for an input of that name: constants too large for text."""
    model = with_weights(f"{HEAD} {body}", weights)
    infer(model)
    return model


def quantize(model: ir.Model, context: Any = None, **config: Any) -> dict[str, Any]:
    context = context or SimpleNamespace(samples=None)
    stats = quantize_weights.apply(model, Config(**{"min_weights": 1, **config}), context)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return stats


def run(model: ir.Model, feeds: Arrays, runtime: str = "onnxruntime") -> Arrays:
    with session.open(Model(model.clone()), runtime=runtime) as opened:
        return opened.run(feeds)


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights whose size differs by a hundred from channel to channel of the first axis."""
    spread = np.exp(rng.uniform(-2, 2, (shape[0], *[1] * (len(shape) - 1))))
    return (rng.standard_normal(shape) * spread).astype(np.float32)


def dequantize(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "DequantizeLinear"]


#: case -> inputs, body, shapes of the weights, axis of the scales with 8 bits, axis of the blocks with 4 bits.
CASES: dict[str, tuple[str, str, dict[str, tuple[int, ...]], int, int]] = {
    "Conv": ("float[1,32,6,6] x", "y = Conv<pads = [1,1,1,1]>(x, w)", {"w": (8, 32, 3, 3)}, 0, 1),
    "Conv in groups": ("float[1,64,6,6] x", "y = Conv<group = 2>(x, w)", {"w": (8, 32, 1, 1)}, 0, 1),
    "ConvTranspose": ("float[1,32,6,6] x", "y = ConvTranspose(x, w)", {"w": (32, 8, 2, 2)}, 1, 0),
    "Gemm": ("float[4,64] x", "y = Gemm(x, w)", {"w": (64, 16)}, 1, 0),
    "Gemm transposed": ("float[4,64] x", "y = Gemm<transB = 1>(x, w)", {"w": (16, 64)}, 0, 1),
    "MatMul": ("float[2,4,64] x", "y = MatMul(x, w)", {"w": (64, 16)}, 1, 0),
    "MatMul in batches": ("float[2,4,64] x", "y = MatMul(x, w)", {"w": (2, 64, 16)}, 2, 1),
    "MatMul from the left": ("float[64,4] x", "y = MatMul(w, x)", {"w": (16, 64)}, 0, 1),
    "Gather": ("int64[2,3] x", "y = Gather(w, x)", {"w": (20, 32)}, 0, 1),
    "LSTM": ("float[5,2,32] x", "y = LSTM<hidden_size = 16>(x, w, r)", {"w": (1, 64, 32), "r": (1, 64, 16)}, 1, 2),
    "GRU": ("float[5,2,32] x", "y = GRU<hidden_size = 16>(x, w, r)", {"w": (1, 48, 32), "r": (1, 48, 16)}, 1, 2),
    "RNN": ("float[5,2,32] x", "y = RNN<hidden_size = 16>(x, w, r)", {"w": (1, 16, 32), "r": (1, 16, 16)}, 1, 2),
    "LSTM both ways": (
        "float[5,2,32] x",
        'y = LSTM<hidden_size = 16, direction = "bidirectional">(x, w, r)',
        {"w": (2, 64, 32), "r": (2, 64, 16)},
        2,
        2,
    ),
}  # fmt: skip


def build(case: str, rng: np.random.Generator) -> tuple[ir.Model, Arrays]:
    given, body, shapes, _, _ = CASES[case]
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    kind, _, rest = given.partition("[")
    shape = tuple(map(int, rest.split("]")[0].split(",")))
    fed = rng.integers(0, 20, shape) if kind == "int64" else rng.standard_normal(shape).astype(np.float32)
    tame = 0.1 if len(shapes) > 1 else 1.0  # large recurrent weights make any error grow
    weights = {name: random(rng, *shape) * np.float32(tame) for name, shape in shapes.items()}
    return parse(f"g ({given}, {declared}) => (float[] y) {{ {body} }}", **weights), {"x": fed}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", CASES)
def test_each_operator_on_each_runtime(case: str, bits: int, rng: np.random.Generator, tolerance: Tolerance) -> None:
    model, feeds = build(case, rng)
    _, _, shapes, axis8, axis4 = CASES[case]
    exact = run(model, feeds, "reference")
    stats = quantize(model, bits=bits, min_sqnr_db=15.0)
    assert stats["tensors"] == {"4 bits": len(shapes) * (bits == 4), "8 bits": len(shapes) * (bits == 8)}
    nodes = dequantize(model)
    assert [node.outputs[0].name for node in nodes] == list(shapes), "weights keep their names"
    assert {node.attributes.get_int("axis", 1) for node in nodes} == {axis4 if bits == 4 else axis8}
    assert all((node.attributes.get_int("block_size", 0) > 0) == (bits == 4 or "both" in case) for node in nodes)
    rounded = run(model, feeds, "reference")
    assert sqnr_db(exact["y"], rounded["y"]) >= (tolerance["int8"]["sqnr_db"] if bits == 8 else 10.0)
    for runtime in RUNTIMES:  # arithmetic is float32: they agree as float networks do
        assert rel_l2(rounded["y"], run(model, feeds, runtime)["y"]) <= tolerance["float32"]["rel_l2"]


def test_scales_by_channel_save_small_channels(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model, feeds = build("Conv", rng)
    exact = run(model, feeds)["y"]
    quantize(model)
    rounded = run(model, feeds)["y"]
    assert all(sqnr_db(exact[:, i], rounded[:, i]) >= tolerance["int8"]["sqnr_db"] for i in range(exact.shape[1]))


def test_onnx_runtime_restores_weights_once_and_openvino_stores_them_narrow(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    import openvino

    model = Model(build("Conv", rng)[0])
    small = compress(model, "size", overrides={"quantize_weights": {"min_weights": 1}})
    bundle = convert(small, "onnxruntime", tmp_path / "bundle")
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 3
    ort.InferenceSession(str(bundle.path / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "DequantizeLinear" not in kinds
    assert 'session.disable_quant_qdq", "1"' in (bundle.path / "README.md").read_text(encoding="utf-8")
    convert(small, "openvino", tmp_path / "ov")
    written = openvino.Core().read_model(tmp_path / "ov" / "model.xml")
    kinds = {str(op.get_element_type()) for op in written.get_ops() if op.get_type_name() == "Constant"}
    assert "<Type: 'int8_t'>" in kinds


def test_onnx_runtime_may_multiply_in_integers_and_says_so(
    rng: np.random.Generator, tolerance: Tolerance, tmp_path: Path
) -> None:
    model, feeds = build("MatMul", rng)
    before = run(model, feeds)
    quantize(model)
    bundle = convert(Model(model), "onnxruntime", tmp_path / "b", options={"weights": "integer"})
    assert bundle.precision == "int8"
    with session.open(bundle) as opened:
        assert sqnr_db(before["y"], opened.run(feeds)["y"]) >= tolerance["int8"]["sqnr_db"]
    assert "disable_quant_qdq" not in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_four_bits_where_they_do_else_eight_else_float(rng: np.random.Generator) -> None:
    grid = rng.integers(-7, 8, (64, 16)).astype(np.float32)
    grid[:, ::5] = 7
    noise = rng.standard_normal((64, 16)).astype(np.float32)
    spiky = np.full((64, 16), 1e-4, np.float32)
    spiky[0] = 1000.0
    spiky[1:] *= rng.standard_normal((63, 16)).astype(np.float32)
    model = parse(
        "g (float[4,64] x, float[64,16] a, float[64,16] b, float[64,16] c) => (float[] y, float[] z, float[] v) "
        "{ y = MatMul(x, a)  z = MatMul(x, b)  v = MatMul(x, c) }",
        a=grid, b=noise, c=spiky,
    )  # fmt: skip
    stats = quantize(model, bits=4, min_sqnr_db=30.0, block=64)
    assert {item["name"]: item["bits"] for item in stats["weights"]} == {"a": 4, "b": 8, "c": 4}
    stats = quantize(build("Gemm", rng)[0], min_sqnr_db=80.0)
    assert stats["tensors"] == {"4 bits": 0, "8 bits": 0}
    assert set(stats["float"]) == {"8 bits would be below 80 dB"}


@pytest.mark.parametrize(
    ("bits", "minimum", "expected"),
    [(4, 0.98, {"a": 4, "b": 8}), (4, 0.9999, {"a": 8}), (8, 0.98, {"a": 8, "b": 8}), (8, 0.9999, {"a": 8})],
)
def test_the_select_samples_ask_for_more(
    bits: int, minimum: float, expected: dict[str, int], rng: np.random.Generator
) -> None:
    """Of two layers that the output adds up, the one that matters gets more bits, or float."""
    weights = random(rng, 64, 16)
    model = parse(
        """g (float[4,64] x, float[64,16] a, float[64,16] b) => (float[4,16] y)
        <float large = {1000}> { p = MatMul(x, a)  q = MatMul(x, b)  s = Mul(q, large)  y = Add(p, s) }""",
        a=weights, b=weights[::-1].copy(),
    )  # fmt: skip

    class Samples(list[Sample]):
        def role(self, *roles: str) -> Samples:
            return self

    samples = Samples(Sample(str(i), str(i), {"x": rng.standard_normal((4, 64)).astype(np.float32)}) for i in range(4))
    context = SimpleNamespace(
        samples=samples,
        runner=lambda network: lambda inputs: run(network, dict(inputs)),
        agreement=lambda expected, got: 1 - max(rel_l2(a["y"], b["y"]) for a, b in zip(expected, got, strict=True)),
        required=lambda count: minimum,
        progress=SILENT,
    )
    stats = quantize(model, context, bits=bits, min_sqnr_db=10.0)
    assert {item["name"]: item["bits"] for item in stats["weights"]} == expected
    assert stats["agreement"] >= minimum
    assert stats["select_samples"] == len(samples)
    assert ("the select samples need it" in stats["float"]) == ("b" not in expected)


LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "asked for": ("y = MatMul(x, w)", {"keep": ("w",)}),
    "fewer than 1024 weights": ("y = MatMul(x, w)", {"min_weights": 1024}),
    "MatMul is not in `operators`": ("y = MatMul(x, w)", {"operators": ("Conv",)}),
    "it is a vector": ("y = MatMul(x, v)", {}),
    "it is gathered along another axis than the first": ("y = Gather<axis = 1>(w, i)", {}),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_stays_in_float_and_why(reason: str, rng: np.random.Generator) -> None:
    body, config = LEFT[reason]
    model = parse(
        f"g (float[4,24] x, int64[2] i, float[24,24] w, float[24] v) => (float[] y) {{ {body} }}",
        w=random(rng, 24, 24), v=random(rng, 24),
    )  # fmt: skip
    stats = quantize(model, **config)
    assert set(stats["float"]) == {reason}
    assert not dequantize(model)


def test_keep_takes_names_of_nodes_and_tensors_and_answers_unknown_ones(rng: np.random.Generator) -> None:
    for name in ("y", "w"):
        assert quantize(build("MatMul", rng)[0], keep=(name,))["float"]["asked for"]["count"] == 1
    with pytest.raises(EdgewrightError, match="did you mean `y`") as caught:
        quantize(build("MatMul", rng)[0], keep=("yy",))
    assert caught.value.code == "E103"


def test_weights_that_are_not_finite_stay(rng: np.random.Generator) -> None:
    for value in (np.nan, np.inf):
        broken = random(rng, 24, 16)
        broken[3, 3] = value
        model = parse("g (float[4,24] x, float[24,16] w) => (float[] y) { y = MatMul(x, w) }", w=broken)
        assert set(quantize(model)["float"]) == {"it holds NaN or infinity"}


def test_shared_weights_are_stored_once_and_subgraphs_read_them(rng: np.random.Generator, tolerance: Tolerance) -> None:
    model = parse(
        """g (bool c, float[4,24] x, float[24,24] w) => (float[4,24] y, float[4,24] z) {
            z = MatMul(x, w)
            y = If (c) <then_branch = yes () => (float[4,24] a) { a = MatMul(x, w) },
                        else_branch = no () => (float[4,24] b) { b = Relu(x) }>
        }""",
        w=random(rng, 24, 24),
    )
    feeds = {"c": np.array(True), "x": random(rng, 4, 24)}
    before = run(model, feeds)
    assert quantize(model)["tensors"]["8 bits"] == 1
    after = run(model, feeds)
    assert all(sqnr_db(before[name], after[name]) >= tolerance["int8"]["sqnr_db"] for name in ("y", "z"))


def test_a_quantized_graph_and_a_small_block_are_refused(rng: np.random.Generator) -> None:
    model, _ = build("Gemm", rng)
    with pytest.raises(EdgewrightError, match="must be at least 16") as caught:
        quantize(model, bits=4, block=8)
    assert caught.value.code == "E103"
    quantize(model)
    with pytest.raises(EdgewrightError, match="quantized graph") as caught:
        quantize(model)
    assert caught.value.code == "E212"


@pytest.mark.parametrize("bits", [8, 4])
def test_broken_scales_fall_below_the_limit(bits: int, rng: np.random.Generator, tolerance: Tolerance) -> None:
    model, feeds = build("Gemm transposed", rng)
    before = run(model, feeds)["y"]
    quantize(model, bits=bits, min_sqnr_db=15.0)
    scale = model.graph.initializers["w:scale"]
    assert scale.const_value is not None
    scale.const_value = ir.tensor(np.roll(scale.const_value.numpy(), 1, axis=0), name="w:scale")
    assert sqnr_db(before, run(model, feeds)["y"]) < tolerance["int8"]["sqnr_db"]


@pytest.mark.parametrize(
    ("name", "bits", "share"),
    [("deit_tiny", 8, 0.29), ("lstm_speaker", 8, 0.29), ("lstm_speaker", 4, 0.22), ("mobilenet_v2", 8, 0.29)],
)
def test_files_are_smaller_and_networks_near(
    name: str, bits: int, share: float, architectures: ModuleType, data: Path, tolerance: Tolerance, tmp_path: Path
) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    onnx.save(proto, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    feeds = architectures.example_inputs(proto, seed=0)
    small = compress(model, "size", overrides={"quantize_weights": {"bits": bits}})
    assert small.precision == "fp32"
    assert small.lossy
    path = small.save(tmp_path / "small.onnx")
    assert path.stat().st_size < share * (tmp_path / "model.onnx").stat().st_size + 40_000
    assert load(path).hash == small.hash, "it reads back as it is"
    bundle = convert(small, "onnxruntime", tmp_path / "bundle")
    assert limits(bundle).precision == "lossy"
    with session.open(bundle) as opened, session.open(model) as original:
        before, after = original.run(feeds), opened.run(feeds)
    if bits == 8:
        assert all(sqnr_db(before[key], after[key]) >= tolerance["int8"]["sqnr_db"] for key in before)
