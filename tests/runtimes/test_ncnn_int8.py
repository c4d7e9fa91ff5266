"""int8 networks on the runtime `ncnn`: which layers run in integers, and that they do what the graph says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright import registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.graph.dataflow import add_initializer
from edgewright.metrics import sqnr_db
from edgewright.model import Model

pytest.importorskip("ncnn")
HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
RUNTIME = registry.peek("runtimes", "ncnn")
STEP = 1 / 32
#: On x86 ncnn's depthwise kernels divide by an approximate reciprocal, off by up to 2 ** -12: more values round elsewhere.
APPROXIMATE = 10


def quantize(name: str) -> str:
    """Text of a Q and DQ around tensor `name`."""
    return f"{name}_q = QuantizeLinear({name}, step, zero) {name}_dq = DequantizeLinear({name}_q, step, zero)"


def weight(name: str, axis: int = 0) -> str:
    return f"{name}_dq = DequantizeLinear<axis={axis}>({name}, {name}_s)"


def model_of(
    body: str, inputs: str, outputs: str, seed: int = 0, dtype: type = np.int8, **shapes: tuple[int, ...]
) -> Model:
    """A network of int8 weights from a seed, all of them large, with a scale for each of the first axis."""
    import onnx_ir as ir

    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {"step": np.array(STEP, np.float32), "zero": np.array(0, dtype)}
    for name, shape in shapes.items():
        arrays[name] = rng.choice([-127, -90, 90, 127], shape).astype(np.int8)
        outputs_count = shape[1] if name.startswith("g") else shape[0]
        reach = 120 * np.sqrt(np.prod(shape) / outputs_count)
        arrays[f"{name}_s"] = (rng.uniform(0.5, 1.5, outputs_count) / reach).astype(np.float32)
    graph = ir.from_onnx_text(f"{HEADER} net ({inputs}) => ({outputs}) {{ {body} }}")
    for name, array in arrays.items():
        readers = [(node, at) for node in graph.graph for at, value in enumerate(node.inputs) if value.name == name]
        value = add_initializer(graph.graph, name, array)
        for node, at in readers:
            node.replace_input_with(at, value)
    return Model(graph)


def layers(bundle: Bundle) -> list[tuple[str, str]]:
    """Operators of the .param file with their parameter 8: 1 for int8 that hands on floats, 101 for integers out."""
    lines = [line.split() for line in (bundle.path / "model.param").read_text(encoding="utf-8").splitlines()[2:]]
    return [(line[0], next((word[2:] for word in line if word.startswith("8=")), "")) for line in lines]


def compare(model: Model, bundle: Bundle, feeds: dict[str, np.ndarray], names: list[str], tolerance: Any) -> None:
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        wanted, got = original.run(feeds, names), opened.run(feeds, names)
    for name in names:
        distance = np.abs(wanted[name].astype(np.float64) - got[name]).mean()
        if wanted[name].dtype == np.int8:
            assert got[name].dtype == np.int8
            assert np.abs(wanted[name].astype(int)).max() > 60, "the test must use the range"
            assert distance <= APPROXIMATE * tolerance["int8"]["steps"], name
        else:  # a value that was rounded elsewhere moves all that follow
            assert sqnr_db(wanted[name], got[name]) >= tolerance["int8"]["sqnr_db"], name


CHAIN = (
    f"{quantize('x')} {weight('w1')} a = Conv<pads=[1,1,1,1]>(x_dq, w1_dq) r = Relu(a)"
    f" {quantize('r')} {weight('w2')} b = Conv<group=16, pads=[1,1,1,1]>(r_dq, w2_dq)"
    f" {quantize('b')} {weight('w3')} c = Conv(b_dq, w3_dq) d = Add(c, x)"
    f" {quantize('d')} {weight('w4')} e = Conv<strides=[2,2]>(d_dq, w4_dq) p = GlobalAveragePool(e) f = Flatten(p)"
    f" {quantize('f')} {weight('g', 1)} y = Gemm(f_dq, g_dq)"
)
SHAPES = {"w1": (16, 8, 3, 3), "w2": (16, 1, 3, 3), "w3": (8, 16, 1, 1), "w4": (16, 8, 3, 3), "g": (16, 10)}


@pytest.fixture
def chain() -> Model:
    return model_of(CHAIN, "float[N,8,14,14] x", "float[A,B] y, float[A,B,C,D] d", **SHAPES)


@pytest.fixture
def feeds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.uniform(-3.9, 3.9, (1, 8, 14, 14)).astype(np.float32)}


def test_layers_run_in_int8_and_hand_integers_on(
    chain: Model, feeds: dict[str, np.ndarray], tmp_path: Path, tolerance: Any
) -> None:
    bundle = convert(chain, "ncnn", tmp_path / "net")
    assert bundle.precision == "int8"
    assert [item for item in layers(bundle) if item[0] not in ("Split", "Input")] == [
        ("Convolution", "101"),
        ("ConvolutionDepthWise", "101"),
        ("Convolution", "1"),
        ("BinaryOp", ""),
        ("Convolution", "1"),
        ("Pooling", ""),
        ("InnerProduct", "1"),
    ]
    compare(chain, bundle, feeds, ["r_q", "b_q", "d", "y"], tolerance)


def test_tensors_handed_on_as_integers_can_be_fed(
    chain: Model, feeds: dict[str, np.ndarray], tmp_path: Path, tolerance: Any
) -> None:
    bundle = convert(chain, "ncnn", tmp_path / "net")
    assert {"r", "r_q", "r_dq"} <= set(bundle.tensor_names)
    assert not {"a", "x_q", "x_dq"} & set(bundle.tensor_names)
    with session.open(chain, runtime="reference") as original:
        wanted = original.run(feeds, ["r", "r_q", "r_dq", "b_q"])
    for name in ("r", "r_q", "r_dq"):
        with session.open(bundle, cut=Cut((name,), ("b_q",))) as part:
            got = part.run({name: wanted[name]})["b_q"].astype(float)
        assert np.abs(got - wanted["b_q"]).mean() <= APPROXIMATE * tolerance["int8"]["steps"]


def test_large_weights_do_not_overflow(tmp_path: Path, tolerance: Any) -> None:
    """ncnn's Winograd convolution would: with 64 channels and weights of 127 its sums leave 16 bits."""
    body = f"{quantize('x')} {weight('w')} y = Conv<pads=[1,1,1,1]>(x_dq, w_dq)"
    model = model_of(body, "float[N,64,14,14] x", "float[A,B,C,D] y", w=(64, 64, 3, 3))
    model.ir.graph.initializers["w"].const_value.numpy()[:] = 127
    x = {"x": np.full((1, 64, 14, 14), 127 * STEP, np.float32)}
    bundle = convert(model, "ncnn", tmp_path / "net")
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        np.testing.assert_allclose(opened.run(x)["y"], original.run(x)["y"], rtol=tolerance["float32"]["rtol"])


def test_a_float_reader_gets_the_values_on_the_grid(
    feeds: dict[str, np.ndarray], tmp_path: Path, tolerance: Any
) -> None:
    model = model_of(f"{quantize('x')} y = Neg(x_dq)", "float[N,8,14,14] x", "float[A,B,C,D] y")
    bundle = convert(model, "ncnn", tmp_path / "net")
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        wanted, got = original.run(feeds)["y"], opened.run(feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=tolerance["float32"]["rtol"], atol=tolerance["float32"]["atol"])


def test_rows_of_a_matrix_run_in_int8(tmp_path: Path, rng: np.random.Generator, tolerance: Any) -> None:
    model = model_of(
        f"{quantize('x')} {weight('g', 1)} y = MatMul(x_dq, g_dq)", "float[N,5,32] x", "float[A,B,C] y", g=(32, 24)
    )
    bundle = convert(model, "ncnn", tmp_path / "net")
    assert ("InnerProduct", "1") in layers(bundle)
    x = {"x": rng.uniform(-3.9, 3.9, (2, 5, 32)).astype(np.float32)}
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        np.testing.assert_allclose(opened.run(x)["y"], original.run(x)["y"], **_close(tolerance))


def _close(tolerance: Any) -> dict[str, float]:
    return {"rtol": tolerance["float32"]["rtol"], "atol": 10 * tolerance["float32"]["atol"]}


def test_other_formats_are_refused_with_the_recipe_that_fits() -> None:
    model = model_of(
        f"{quantize('x')} {weight('w')} y = Conv(x_dq, w_dq)",
        "float[N,8,4,4] x",
        "float[A,B,C,D] y",
        dtype=np.uint8,
        w=(4, 8, 1, 1),
    )
    problems = RUNTIME.supports(model.ir)
    assert problems[0].op_type == "QuantizeLinear"
    assert "--recipe int8 --runtime ncnn" in problems[0].reason


def test_stored_integers_become_float_weights(tmp_path: Path, rng: np.random.Generator, tolerance: Any) -> None:
    model = model_of(f"{weight('w')} y = Conv(x, w_dq)", "float[N,8,4,4] x", "float[A,B,C,D] y", w=(4, 8, 1, 1))
    bundle = convert(model, "ncnn", tmp_path / "net")
    assert layers(bundle)[1] == ("Convolution", "")
    x = {"x": rng.standard_normal((1, 8, 4, 4)).astype(np.float32)}
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        np.testing.assert_allclose(opened.run(x)["y"], original.run(x)["y"], **_close(tolerance))
