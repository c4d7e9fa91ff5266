"""The recipe int8 on real weights and photos: really fused in both runtimes, and the answers stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_pass_quantize_static import Drawn, network, parse, quantized

import edgewright as ew
from edgewright.bundle import Bundle
from edgewright.metrics import sqnr_db

RUNTIMES = ("ncnn", "onnxruntime", "openvino")
#: Photos that make the file, and others that judge it.
CALIBRATE, JUDGE = 24, 160  # of 40 photos, three that differ by chance are too many


@pytest.fixture(scope="module")
def model() -> ew.Model:
    return ew.load("zoo:efficientnet-lite0")


@pytest.fixture(scope="module")
def photos(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders with different photos."""
    files = sorted((data / "imagenet-sample").glob("*.jpg"))
    folders = {}
    for name, chosen in (("made", files[:CALIBRATE]), ("judge", files[CALIBRATE : CALIBRATE + JUDGE])):
        folders[name] = tmp_path_factory.mktemp(name)
        for path in chosen:
            shutil.copy(path, folders[name] / path.name)
    return folders


@pytest.fixture(scope="module", params=RUNTIMES)
def made(
    request: pytest.FixtureRequest, model: ew.Model, photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The bundle of one runtime, for this CPU; calibration alone, so that every layer is in int8."""
    samples = ew.Samples.open(photos["made"], model, roles="calibrate", labels="none")
    small = ew.compress(model, "int8", samples, target=ew.Target(request.param))
    return ew.convert(small, request.param, tmp_path_factory.mktemp(request.param) / "net")


def test_every_layer_runs_in_int8(made: Bundle) -> None:
    if made.runtime == "onnxruntime":
        kinds = onnxruntime_operators(made)
        assert kinds.count("QLinearConv") == 49
        assert kinds.count("QLinearAdd") == 9
        assert kinds.count("QGemm") == 1
        assert not {"Conv", "Add", "Gemm", "MatMul", "Clip", "FusedConv"} & set(kinds)
    elif made.runtime == "ncnn":
        found = ncnn_layers(made)
        assert len(found) == 50
        assert found.count("101") == 34  # those that int8 convolutions alone read
        assert found.count("1") == 16
    else:
        layers = openvino_layers(made)
        assert len(layers) == 50
        assert {precision for _, precision in layers} <= {"u8", "i8"}


def pooled() -> ew.Model:
    """Convolutions joined by MaxPool, Concat, Relu and a Transpose, then a MatMul with its bias."""
    rng = np.random.default_rng(0)
    return parse(
        """g (float[1,3,12,12] x, float[8,3,3,3] v, float[8,8,1,1] w, float[16,10] m, float[10] b) => (float[1,36,10] y) {
            a = Conv<pads = [1,1,1,1]>(x, v)  r = Relu(a)  p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r)
            c = Conv(p, w)  s = Relu(c)  d = Concat<axis = 1>(p, s)  e = Transpose<perm = [0,2,3,1]>(d)
            n = Constant<value_ints = [1,36,16]>()  f = Reshape(e, n)  h = MatMul(f, m)  y = Add(h, b) }""",
        "tensor", v=rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        w=rng.standard_normal((8, 8, 1, 1)).astype(np.float32), m=rng.standard_normal((16, 10)).astype(np.float32),
        b=rng.standard_normal(10).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("made_by", "layers"), [(network, 4), (pooled, 3)])
def test_every_layer_of_a_small_network_runs_in_int8(
    made_by: Callable[[], ew.Model], layers: int, runtime: str, tmp_path: Path
) -> None:
    bundle = ew.convert(quantized(made_by(), Drawn(), runtime=runtime), runtime, tmp_path / "net")
    if runtime == "onnxruntime":
        kinds = onnxruntime_operators(bundle)
        assert (
            sum(kind in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat") for kind in kinds) == layers
        )
        assert not {"Conv", "Add", "Gemm", "MatMul", "Relu", "FusedConv", "FusedMatMul"} & set(kinds), kinds
    elif runtime == "ncnn":
        kept = ncnn_layers(bundle)
        assert len(kept) == layers
        assert set(kept) <= {"1", "101"}
    else:
        found = openvino_layers(bundle)
        assert len(found) == layers
        assert {precision for _, precision in found} <= {"u8", "i8"}


def ncnn_layers(bundle: Bundle) -> list[str]:
    """Parameter 8 of the layers with weights: 1 for int8 that hands on floats, 101 for integers out, "" for floats."""
    lines = [line.split() for line in bundle.file("model.param").read_text(encoding="utf-8").splitlines()[2:]]
    weighted = [line for line in lines if line[0].startswith(("Convolution", "InnerProduct"))]
    return [next((word[2:] for word in line if word.startswith("8=")), "") for line in weighted]


def onnxruntime_operators(bundle: Bundle) -> list[str]:
    """Operators of the graph that ONNX Runtime makes of the file."""
    import onnx
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    optimized = bundle.path.parent / "optimized.onnx"
    settings.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(bundle.file("model.onnx")), settings, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(optimized).graph.node]


def openvino_layers(bundle: Bundle) -> list[tuple[str, str]]:
    """(kind, precision of its arithmetic) of the convolutions and matrix products that OpenVINO runs."""
    import openvino

    compiled = openvino.Core().compile_model(
        str(bundle.file("model.xml")), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    found = []
    for node in compiled.get_runtime_model().get_ops():
        facts: Any = node.get_rt_info()
        kind = facts["layerType"].astype(str)
        if kind in ("Convolution", "FullyConnected", "MatMul"):
            found.append((kind, facts["runtimePrecision"].astype(str)))
    return found


def test_answers_stay(
    made: Bundle, model: ew.Model, photos: dict[str, Path], tolerance: dict[str, dict[str, float]]
) -> None:
    samples = ew.Samples.open(photos["judge"], model, roles="judge", labels="none")
    report = ew.verify(model, made, samples, min_agreement=0.8)
    gate = next(gate for gate in report.gates if gate.name == "agreement")
    assert report.saturation is None
    assert gate.value >= 0.95
    inputs = [dict(sample.arrays) for sample in samples][:8]
    with ew.open(model) as original, ew.open(made) as shipped:
        pairs = [(original.run(item)["logits"], shipped.run(item)["logits"]) for item in inputs]
    assert sqnr_db(*(np.concatenate(side) for side in zip(*pairs, strict=True))) >= tolerance["int8"]["sqnr_db"]


def test_each_layer_says_what_it_lost(made: Bundle) -> None:
    stats = made.history[-1].stats
    assert len(stats["layers"]) == 50
    for layer in stats["layers"]:
        assert layer["state"] == "int8"
        assert layer["rounding_after_db"] > 25
        assert layer["input"]["high"] > layer["input"]["low"]
    gained = [layer["rounding_after_db"] - layer["rounding_before_db"] for layer in stats["layers"]]
    assert np.mean(gained) > 2
