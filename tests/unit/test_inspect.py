"""inspect: costs, fused times on the right layer, the roofline, and what a bundle without a graph can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright import registry
from edgewright.bench import machine
from edgewright.bench.machine import Roof
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.inspect import _bounded, _fused, _placed, inspect
from edgewright.model import Model
from edgewright.records import InspectReport, LayerCost

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
CHAIN = """g (float[N,4,8,8] x, float[16,4,3,3] w) => (float[N,16,8,8] y) {
  [conv] a = Conv<pads=[1,1,1,1]>(x, w)
  [relu] b = Relu(a)
  [add] y = Add(b, b)
}"""
MACS = 16 * 8 * 8 * 4 * 3 * 3


@pytest.fixture
def model(model_from_text: Callable[..., Model]) -> Model:
    return model_from_text(HEAD + CHAIN, name="chain")


def layer(report: InspectReport, name: str) -> LayerCost:
    return next(item for item in report.layers if item.name == name)


def test_costs_without_times(model: Model) -> None:
    report = inspect(model)
    assert (report.name, report.macs, report.parameters) == ("chain", MACS, 0)
    assert report.operators == {"Conv": 1, "Relu": 1, "Add": 1}
    assert report.inputs[0] == "x float32[N, 4, 8, 8]"
    assert all(item.time_ms is None and item.bound is None for item in report.layers)
    assert (report.runtime, report.peak_gflops, report.runtimes) == (None, None, {})
    json.dumps(report.to_json())


def test_weights_are_counted(model_from_text: Callable[..., Model]) -> None:
    text = HEAD + "g (float[1,2] x) => (float[1,3] y) <float[2,3] w = {1,2,3,4,5,6}> { y = MatMul(x, w) }"
    report = inspect(model_from_text(text))
    assert (report.parameters, report.weight_bytes, report.macs) == (6, 24, 6)


def test_a_fused_time_stands_at_the_heaviest_member(model: Model) -> None:
    layers = inspect(model).layers
    roof = Roof(peak_gflops=1.0, bandwidth_gbs=1.0)
    placed = {item.name: item for item in _placed(layers, {"b": 1.0, "y": 0.5, "(reorder)": 0.1}, model, roof)}
    assert [placed[name].time_ms for name in ("a", "b", "y", "(reorder)")] == [1.0, None, 0.5, 0.1]
    read, weights, written = 4 * 64 * 4, 16 * 4 * 9 * 4, 16 * 64 * 4
    compute_ms, memory_ms = 2 * MACS / 1e6, (read + weights + written) / 1e6
    assert compute_ms > memory_ms
    assert placed["a"].bound == "compute"
    assert placed["a"].efficiency == pytest.approx(compute_ms / 1.0)
    assert placed["y"].bound == "memory"
    assert placed["y"].efficiency == pytest.approx(2 * written / 1e6 / 0.5)
    assert placed["b"].bound is None
    assert placed["(reorder)"].macs is None


def test_whole_chain_under_its_last_tensor(model: Model) -> None:
    groups = _fused(model.ir, {"y": 1.0})
    assert [node.op_type for node in groups["y"]] == ["Add", "Relu", "Conv"]


def test_efficiency_ends_at_one(model: Model) -> None:
    conv = inspect(model).layers[0]
    roof = Roof(peak_gflops=1e-6, bandwidth_gbs=1e-6)
    assert _bounded(conv, 0.001, roof, macs=5, moved=5).efficiency == 1.0
    assert _bounded(conv, 0.0, roof, macs=5, moved=5).efficiency is None
    assert _bounded(conv, 1.0, roof, macs=None, moved=5).bound is None


def test_measured_on_onnxruntime(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "peak_gflops", lambda threads: 100.0)
    monkeypatch.setattr(machine, "bandwidth_gbs", lambda threads: 10.0)
    report = inspect(model, roofline=True)
    assert report.runtime == "onnxruntime"
    assert (report.peak_gflops, report.bandwidth_gbs) == (100.0, 10.0)
    assert layer(report, "a").time_ms is not None
    assert layer(report, "a").time_ms > 0
    assert layer(report, "a").bound in {"compute", "memory"}
    assert 0 < layer(report, "a").efficiency <= 1


def test_a_bundle_of_onnx_is_like_its_model(model: Model, tmp_path: Path) -> None:
    bundle = convert(model, "onnxruntime", tmp_path / "bundle")
    for source in (bundle, bundle.path):
        report = inspect(source)
        assert (report.macs, report.runtime, report.name) == (MACS, "onnxruntime", "bundle")
        assert report.model_hash == model.hash
        assert any(item.time_ms for item in report.layers)


def test_a_bundle_without_onnx_shows_its_profile(model: Model, tmp_path: Path) -> None:
    if "openvino" not in registry.installed("runtimes"):
        pytest.skip("needs openvino")
    report = inspect(convert(model, "openvino", tmp_path / "bundle"), runtimes=True)
    assert (report.macs, report.parameters, report.operators, report.runtimes) == (None, None, {}, {})
    assert report.layers
    assert all(item.time_ms is not None and item.macs is None for item in report.layers)
    json.dumps(report.to_json())


def test_runtimes_say_why_not(model_from_text: Callable[..., Model]) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21, "nobody" : 1]> g (float[1] x) => (float[1] y) { y = nobody.Foo(x) }'
    )
    found = inspect(model_from_text(text), runtimes=True).runtimes
    assert set(found) == set(registry.names("runtimes"))
    assert "`Foo`" in found["onnxruntime"][0]


def test_a_lower_precision_has_no_float32_roof(
    model_from_text: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "peak_gflops", lambda threads: 100.0)
    monkeypatch.setattr(machine, "bandwidth_gbs", lambda threads: 10.0)
    text = HEAD + "g (float16[1,2] x) => (float16[1,2] y) <float16[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }"
    report = inspect(model_from_text(text), roofline=True)
    assert all(item.bound is None and item.efficiency is None for item in report.layers)


def test_mistakes(model: Model, tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError, match=r"E103.*threads"):
        inspect(model, threads=0)
    with pytest.raises(EdgewrightError, match=r"E103.*threads"):
        inspect(model, threads=100_000)
    with pytest.raises(EdgewrightError, match="E101"):
        inspect(model, runtime="nobody")
    with pytest.raises(EdgewrightError, match=r"E103.*cannot time its layers.*onnxruntime"):
        inspect(model, runtime="reference")
    bundle = convert(model, "onnxruntime", tmp_path / "bundle")
    with pytest.raises(EdgewrightError, match=r"E103.*for `onnxruntime`, not for `openvino`"):
        inspect(bundle, runtime="openvino")
    with pytest.raises(EdgewrightError, match="E104"):
        inspect(tmp_path / "nothing.onnx")


def test_unknown_sizes_need_samples(model_from_text: Callable[..., Model]) -> None:
    model = model_from_text(HEAD + "g (float[1,H] x) => (float[1,H] y) { y = Relu(x) }")
    assert inspect(model).macs == 0
    with pytest.raises(EdgewrightError, match="E209"):
        inspect(model, runtime="onnxruntime")


def test_an_empty_graph(model_from_text: Callable[..., Model]) -> None:
    report = inspect(model_from_text(HEAD + "g (float[1] x) => (float[1] x) { }"))
    assert (report.layers, report.macs, report.operators) == ((), 0, {})
