"""passes/quantize_static on graphs with binary layers: these stay as they are, the float layers around them become int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.binary_nets import HEADER, binary_model

import edgewright as ew
from edgewright.graph import shapes
from edgewright.ops import DOMAIN

_WINDOW = "channels = [16], group = 1, strides = [1, 1], dilations = [1, 1], pads = [1, 1, 1, 1], pad_value = 1.0"
#: A float stem, two binary layers, a float shortcut with a pool before it, a float head.
NET = f"""{HEADER} net (float[1,3,16,16] x, float[16,3,3,3] w_stem, float[16] w_b, float[1] zero, signs[16,3,3,16] b_1,
        int[16] i_1, bool[16] f_1, signs[32,3,3,16] b_2, float[32] ws_2, float[32] w_t2, float[32,16,1,1] w_down, float[32] w_d,
        float[5,32] w_fc, float[5] w_fcb) => (float[1,5] y)
{{
    c = Conv <pads = [1, 1, 1, 1]> (x, w_stem, w_b)
    s1 = edgewright.PackSigns (c, zero)
    s2 = edgewright.BinaryConvSigns <{_WINDOW}> (s1, b_1, i_1, f_1)
    d2 = edgewright.BinaryConv <{_WINDOW}> (s2, b_2, ws_2, w_t2)
    m = AveragePool <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]> (c)
    h = Conv (m, w_down, w_d)
    a = Add (d2, h)
    r = Relu (a)
    g = GlobalAveragePool (r)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, w_fc, w_fcb)
}}"""


@pytest.fixture(scope="module")
def model() -> ew.Model:
    made = binary_model(NET)
    return ew.Model(made.ir, ew.Spec(task="classify"), name="binary")


@pytest.fixture(scope="module")
def samples(model: ew.Model, tmp_path_factory: pytest.TempPathFactory) -> ew.Samples:
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(1)
    for index in range(80):
        x = rng.standard_normal((1, 3, 16, 16)) + rng.standard_normal((1, 3, 1, 1))
        np.savez(folder / f"{index:02d}.npz", x=x.astype(np.float32))
    return ew.Samples.open(folder, model)


def quantized(model: ew.Model, samples: ew.Samples, runtime: str) -> ew.Model:
    overrides = {"quantize_static": {"search": False}}
    return ew.compress(model, "int8", samples, target=ew.Target(runtime), overrides=overrides)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_float_layers_around_binary_ones_become_int8(
    model: ew.Model, samples: ew.Samples, runtime: str, tmp_path: Path
) -> None:
    pytest.importorskip(runtime)
    small = quantized(model, samples, runtime)
    states = {layer["op"]: layer["state"] for layer in small.history[-1].stats["layers"]}
    assert states == {"Conv": "int8", "Gemm": "int8"}
    ours = [[node.op_type for node in one.ir.graph if node.domain == DOMAIN] for one in (model, small)]
    assert ours[0] == ours[1]
    bundle = ew.convert(small, runtime, tmp_path / "bundle")
    assert ew.verify(model, bundle, samples, min_agreement=0.8).decision == "pass"


def test_without_their_shapes_int8_is_lost(
    model: ew.Model, samples: ew.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rule of shapes is there for: rounding runs the network in parts, and these parts' inputs have shapes."""
    monkeypatch.setattr(shapes, "stand_in", lambda ir_model: None)
    with pytest.raises(ew.EdgewrightError, match="E230"):
        quantized(model, samples, "onnxruntime")


def test_deploy_tries_int8_and_none_fails(model: ew.Model, samples: ew.Samples, tmp_path: Path) -> None:
    plan = ew.BenchPlan(min_runs=5, max_runs=10, max_seconds=0.2)
    found = ew.deploy(
        model, samples, runtimes=("onnxruntime", "native"), recipes=("int8",), min_agreement=0.8, out=tmp_path / "run",
        plan=plan, layers=False,
    )  # fmt: skip
    states = {item.name: item.state for item in found.candidates}
    assert states["int8-onnxruntime"] in ("chosen", "verified"), {item.name: item.reason for item in found.candidates}
