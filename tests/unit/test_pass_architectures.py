"""Lossless passes and float16 over the architecture graphs: outputs stay, and twice is once.

A seeded part of the graphs here; `benchmarks/passes_architectures.py` takes all of them, with several seeds.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import version_converter
from tests.conftest import architecture_names

from edgewright.compress import compress
from edgewright.errors import EdgewrightError
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.model import OPSET_VERSION, Model

Tolerance = dict[str, dict[str, float]]

#: Every exporter and every way to fail: control flow, shared weights, LSTM, attention, instance norm, QDQ, symbolic batch.
ALWAYS = ("cond_net", "crnn", "deit_tiny", "lstm_speaker", "mobilenet_v2", "resnet18_qdq", "retina_shared", "siamese",
          "style_transfer", "unet")  # fmt: skip


def chosen(names: list[str]) -> list[str]:
    """Graphs for this run: the special ones and eight others."""
    others = [name for name in names if name not in ALWAYS]
    return sorted([name for name in names if name in ALWAYS] + random.Random(3).sample(others, min(8, len(others))))


def run(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def load(name: str, architectures: ModuleType, data: Path) -> tuple[Model, dict[str, np.ndarray]]:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    upgraded = version_converter.convert_version(proto, OPSET_VERSION)
    return Model(ir.from_proto(upgraded), name=name), architectures.example_inputs(proto, seed=0)


@pytest.mark.parametrize("name", chosen(architecture_names()))
def test_float_keeps_outputs_and_twice_is_once(
    name: str, architectures: ModuleType, data: Path, tolerance: Tolerance
) -> None:
    model, feeds = load(name, architectures, data)
    before = run(model, feeds)
    small = compress(model, "float")
    after = run(small, feeds)
    limits = tolerance["float32"]
    assert list(after) == list(before)
    for key, array in before.items():
        assert np.allclose(array, after[key], rtol=limits["rtol"], atol=limits["atol"])
        assert rel_l2(array, after[key]) <= limits["rel_l2"]
    assert not small.lossy
    assert compress(small, "float").hash == small.hash
    assert model.hash == model.origin, "the original is not changed"
    left = {node.op_type for node in small.ir.graph}
    assert "Constant" not in left
    assert "Identity" not in left


@pytest.mark.parametrize("name", chosen(architecture_names()))
def test_fp16_is_near_and_twice_is_once(name: str, architectures: ModuleType, data: Path, tolerance: Tolerance) -> None:
    model, feeds = load(name, architectures, data)
    if model.precision == "int8":
        with pytest.raises(EdgewrightError, match="quantized"):
            compress(model, "fp16")
        return
    before = run(model, feeds)
    small = compress(model, "fp16")
    after = run(small, feeds)
    assert small.precision == "fp16"
    assert small.lossy
    for key, array in before.items():
        assert after[key].dtype == array.dtype
        assert sqnr_db(array, after[key]) >= tolerance["float16"]["sqnr_db"]
    assert small.weight_bytes() < 0.6 * model.weight_bytes()
    assert compress(small, "fp16").hash == small.hash
