"""Which int8 products may saturate, and the same integers as unsigned weights."""

import numpy as np
import onnx_ir as ir
import pytest

from edgewright import session
from edgewright.graph.int8 import LARGEST_SAFE_WEIGHT, saturating_layers, with_unsigned_weights
from edgewright.model import Model

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
QUANTIZE = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
SCALE = "float s = {0.05}, uint8 z = {128}"


def matmul(weights="127, -3, 5, 60", *, dtype="int8", zero="int8 wz = {0}", given="(w, s, wz)"):
    return f"""{HEAD} g (float[1, 2] x) => (float[1, 2] y) <{SCALE}, {dtype}[2, 2] w = {{{weights}}}, {zero}> {{
        {QUANTIZE} f = DequantizeLinear {given} y = MatMul(d, f) }}"""


def convolution(channels, group, *, operator="Conv", extra=""):
    weights = ", ".join(["127"] * (channels * (channels // group)))
    return f"""{HEAD} g (float[1, {channels}, 2, 2] x) => (float[1, {channels}, 2, 2] y)
        <{SCALE}, int8[{channels}, {channels // group}, 1, 1] w = {{{weights}}}, int8 wz = {{0}}> {{
        {QUANTIZE} f = DequantizeLinear(w, s, wz) y = {operator} <group = {group}> (d, f) {extra} }}"""


WEIGHT_ONLY = f"""{HEAD} g (float[1, 2] x) => (float[1, 2] y) <{SCALE}, int8[2, 2] w = {{127, 1, 1, 1}}> {{
    f = DequantizeLinear(w, s) y = MatMul(x, f) }}"""
DYNAMIC = f"""{HEAD} g (float[1, 2] x) => (int32[1, 2] y) <int8[2, 2] w = {{127, -3, 5, 60}}> {{
    q, t, z = DynamicQuantizeLinear(x) y = MatMulInteger(q, w, z) }}"""
SIGNED = (
    f"""{HEAD} g (int8[1, 2] x) => (int32[1, 2] y) <int8[2, 2] w = {{127, -3, 5, 60}}> {{ y = MatMulInteger(x, w) }}"""
)
QLINEAR = f"""{HEAD} g (float[1, 2] x) => (float[1, 2] y) <{SCALE}, int8[2, 2] w = {{127, -3, 5, 60}}, int8 wz = {{-7}}> {{
    q = QuantizeLinear(x, s, z) p = QLinearMatMul(q, s, z, w, s, wz, s, z) y = DequantizeLinear(p, s, z) }}"""
FUSED = f"""{HEAD} g (float[1, 2] x) => (float[1, 2] y) <float s = {{0.05}}, int8[2, 2] w = {{127, -3, 5, 60}}> {{
    y = com.microsoft.DynamicQuantizeMatMul(x, w, s) }}"""
COMPUTED = f"""{HEAD} g (float[1, 2] x, float[2, 2] v) => (float[1, 2] y) <{SCALE}, int8 wz = {{0}}> {{
    {QUANTIZE} w = QuantizeLinear(v, s, wz) f = DequantizeLinear(w, s, wz) y = MatMul(d, f) }}"""
SHARED = f"""{HEAD} g (float[1, 2] x) => (float[1, 2] y, float[1, 2] v)
    <{SCALE}, int8[2, 2] w = {{127, -3, 5, 60}}, int8 wz = {{2}}> {{
    {QUANTIZE} f = DequantizeLinear(w, s, wz) y = MatMul(d, f) g1 = DequantizeLinear(w, s, wz) v = MatMul(d, g1) }}"""
BRANCH = f"""{HEAD} g (float[1, 2] x, bool flag) => (float[1, 2] y) <{SCALE}, int8[2, 2] w = {{127, -3, 5, 60}}> {{
    {QUANTIZE}
    y = If(flag) <then_branch = t () => (float[1, 2] u) {{ f = DequantizeLinear(w, s) u = MatMul(d, f) }},
                  else_branch = e () => (float[1, 2] o) {{ o = Relu(x) }}>
}}"""


def graph(text):
    model = Model(ir.from_onnx_text(text))
    import onnx

    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model.ir)))


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (matmul(), ("y",)),
        (matmul(f"{LARGEST_SAFE_WEIGHT}, -{LARGEST_SAFE_WEIGHT}, 0, 1"), ()),
        (matmul(f"{LARGEST_SAFE_WEIGHT + 1}, 0, 0, 1"), ("y",)),
        (matmul(f"-{LARGEST_SAFE_WEIGHT + 1}, 0, 0, 1"), ("y",)),
        (matmul("255, 1, 2, 3", dtype="uint8", zero="uint8 wz = {128}"), ()),  # runtimes widen unsigned weights
        (convolution(2, 1), ("y",)),
        (convolution(2, 2), ()),  # depthwise: no pairs
        (convolution(4, 2), ("y",)),
        (convolution(2, 1, operator="ConvTranspose"), ("y",)),
        (WEIGHT_ONLY, ()),
        (DYNAMIC, ("y",)),
        (SIGNED, ()),
        (QLINEAR, ("p",)),
        (FUSED, ("y",)),
        (COMPUTED, ("y",)),
        (SHARED, ("y", "v")),
        (BRANCH, ("u",)),
    ],
)
def test_layers_that_may_saturate(text, layers):
    assert saturating_layers(graph(text)) == layers


def test_types_need_not_be_known():
    assert saturating_layers(ir.from_onnx_text(QLINEAR)) == ("p",)


@pytest.mark.parametrize(
    "text",
    [
        matmul(),
        matmul(given="(w, s)"),
        matmul(zero="int8 wz = {-9}"),
        convolution(2, 1),
        DYNAMIC,
        QLINEAR,
        SHARED,
        BRANCH,
    ],
    ids=["MatMul", "no zero point", "zero point", "Conv", "dynamic", "QLinear", "shared", "branch"],
)
def test_unsigned_weights_are_the_same_integers(text, rng):
    original = graph(text)
    changed = with_unsigned_weights(original)
    assert saturating_layers(changed) == ()
    assert saturating_layers(original) != ()  # the original is left alone
    inputs = {
        value.name: np.array(True)
        if value.dtype == ir.DataType.BOOL
        else rng.uniform(-3, 3, [int(size) for size in value.shape]).astype(np.float32)
        for value in original.graph.inputs
    }
    results = []
    for network in (original, changed):
        with session.open(Model(network), runtime="reference") as opened:
            results.append(opened.run(inputs))
    for name, value in results[0].items():
        np.testing.assert_array_equal(results[1][name], value)


def test_unsigned_weights_of_the_runtimes_own_operators(rng):
    changed = with_unsigned_weights(graph(FUSED))
    (node,) = changed.graph
    assert node.inputs[1].const_value.numpy().tolist() == [[255, 125], [133, 188]]
    assert node.inputs[3].const_value.numpy().tolist() == 128
    x = {"x": rng.uniform(-3, 3, (1, 2)).astype(np.float32)}
    with session.open(Model(graph(FUSED))) as one, session.open(Model(changed)) as other:
        np.testing.assert_array_equal(one.run(x)["y"], other.run(x)["y"])


def test_float_graphs_stay_as_they_are():
    text = (
        f"{HEAD} g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {{1.0, 2.0, 3.0, 4.0}}> {{ y = MatMul(x, w) }}"
    )
    assert saturating_layers(graph(text)) == ()
    assert Model(with_unsigned_weights(graph(text))).hash == Model(graph(text)).hash
