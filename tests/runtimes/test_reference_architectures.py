"""The reference over whole networks: every architecture against ONNX Runtime, unoptimized and optimized."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.conftest import architecture_names

import edgewright as ew
from edgewright import metrics
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.model import Model

Feeds = dict[str, np.ndarray]


def load_network(name: str, data: Path, architectures: ModuleType, folder: Path) -> tuple[Model, Feeds]:
    """An architecture with seeded weights as edgewright loads it, and example inputs."""
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    onnx.save(proto, folder / f"{name}.onnx")
    return ew.load(folder / f"{name}.onnx"), architectures.example_inputs(proto, seed=0)


def run_onnxruntime(model: Model, feeds: Feeds, *, optimize: bool, show: tuple[str, ...] = ()) -> Feeds:
    """Outputs, and further tensors by name."""
    proto = model.to_proto()
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in show)
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((value.name for value in opened.get_outputs()), opened.run(None, feeds), strict=True))


@pytest.mark.parametrize("name", [name for name in architecture_names() if name != "resnet18_qdq"])
def test_architecture_equals_onnxruntime(
    name: str, data: Path, architectures: ModuleType, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    model, feeds = load_network(name, data, architectures, tmp_path)
    with ew.open(model, runtime="reference") as opened:
        got = opened.run(feeds)
    for optimize in (False, True):
        want = run_onnxruntime(model, feeds, optimize=optimize)
        assert got.keys() == want.keys()
        for output, value in want.items():
            assert got[output].dtype == value.dtype
            assert got[output].shape == value.shape
            assert metrics.rel_l2(value, got[output]) <= tolerance["float32"]["rel_l2"], (output, optimize)


def test_quantized_architecture(
    data: Path, architectures: ModuleType, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    model, feeds = load_network("resnet18_qdq", data, architectures, tmp_path)
    quantized = tuple(node.outputs[0].name for node in model.ir.graph if node.op_type == "QuantizeLinear")
    want = run_onnxruntime(model, feeds, optimize=False, show=quantized)
    bundle = convert(model, "reference", tmp_path / "bundle")
    with ew.open(bundle) as opened:
        got = opened.run(feeds)
    for output, value in got.items():
        assert metrics.sqnr_db(want[output], value) >= tolerance["int8"]["sqnr_db"]
    # Each stretch alone, fed what ONNX Runtime had: at most one step beside it, and that rarely.
    steps, elements = 0, 0
    for name in quantized:
        given = {**feeds, **{other: want[other] for other in quantized if other != name}}
        with ew.open(bundle, cut=Cut(tuple(given), (name,))) as opened:
            alone = opened.run(given)[name]
        apart = np.abs(alone.astype(np.int32) - want[name].astype(np.int32))
        assert apart.max() <= 1, name
        steps, elements = steps + int(apart.sum()), elements + apart.size
    assert steps <= tolerance["int8"]["steps"] * elements


@pytest.mark.parametrize("name", ["efficientnet_lite0", "crnn", "cond_net"])
def test_every_inner_tensor_can_be_shown(name: str, data: Path, architectures: ModuleType, tmp_path: Path) -> None:
    model, feeds = load_network(name, data, architectures, tmp_path)
    with ew.open(model, runtime="reference") as opened:
        names = [name for name in opened.bundle.tensor_names if name not in feeds]
        inner = opened.run(feeds, names)
        outputs = opened.run(feeds)
    assert list(inner) == names
    for output, value in outputs.items():
        np.testing.assert_array_equal(inner[output], value)


def test_cut_in_the_middle_gives_the_same_answer(data: Path, architectures: ModuleType, tmp_path: Path) -> None:
    model, feeds = load_network("efficientnet_lite0", data, architectures, tmp_path)
    (pool,) = (node for node in model.ir.graph if node.op_type == "GlobalAveragePool")
    middle = str(pool.inputs[0].name)
    with ew.open(model, runtime="reference") as opened:
        whole = opened.run(feeds)
        inner = opened.run(feeds, [middle])
    with ew.open(model, runtime="reference", cut=Cut((middle,), tuple(whole))) as rest:
        again = rest.run(inner)
    for output, value in whole.items():
        np.testing.assert_array_equal(again[output], value)
