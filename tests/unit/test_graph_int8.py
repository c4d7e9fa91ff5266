"""Which int8 products may saturate, and the same integers as unsigned weights."""

import numpy as np
import onnx_ir as ir
import pytest

from edgewright import session
from edgewright.convert import convert
from edgewright.graph.int8 import (
    LARGEST_SAFE_WEIGHT,
    largest_pairs,
    neighbours,
    saturating_layers,
    with_unsigned_weights,
)
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
        (matmul("127, -3, 5, 60"), ("y",)),
        (matmul(f"{LARGEST_SAFE_WEIGHT}, -{LARGEST_SAFE_WEIGHT}, 0, 1"), ()),
        (matmul("127, 0, 1, 64"), ()),  # no pair is more than 128
        (matmul("65, 0, 64, 1"), ("y",)),
        (matmul("-65, 0, 64, 1"), ("y",)),
        (matmul("1, 65, 0, -64"), ("y",)),
        (matmul("65, 64, 0, 1"), ()),  # of two outputs
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


SHAPES = {
    "1x1": ((16, 20, 1, 1), 1), "3x3": ((16, 32, 3, 3), 1), "stride": ((16, 32, 3, 3), 1), "even": ((16, 18, 3, 3), 1),
    "odd 1x1": ((16, 19, 1, 1), 1), "grouped": ((24, 6, 3, 3), 4), "depthwise": ((32, 1, 5, 5), 32), "1-D": ((16, 12, 5), 1),
    "MatMul": ((37, 24), 1), "Gemm": ((64, 24), 1),
}  # fmt: skip


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", SHAPES)
def test_kernels_add_no_other_pairs(case, runtime, rng, tmp_path):
    """Weights as large as `neighbours` allows, inputs as large as may be: real kernels make the exact sums."""
    shape, groups = SHAPES[case]
    convolution = len(shape) > 2
    numbers = neighbours(shape, convolution=convolution, groups=groups)
    outputs = shape[0] if convolution else shape[1]
    # rows [O, K]: of each number one input has most of 128, all others what it leaves; signs by number, so that sums stay
    count = int(numbers.max()) + 1
    large, sign = rng.integers(65, 128, (outputs, count)), rng.choice([-1, 1], (outputs, count))
    first = {number: rng.choice(np.flatnonzero(numbers == number)) for number in range(count)}
    rows = (128 - large)[:, numbers]
    rows[:, list(first.values())] = large
    rows *= sign[:, numbers]
    assert not convolution or shape[1] == 1 or largest_pairs(np.abs(rows), numbers).max() == 128
    weights = rows.reshape(shape) if convolution else rows.T
    model = one_layer(case, weights.astype(np.int8), groups)
    feeds = {"x": rng.integers(200, 256, list(model.inputs[0].shape)).astype(np.float32)}
    assert saturating_layers(model.ir) == ()
    with session.open(model, runtime="reference") as opened:
        exact = opened.run(feeds)["z"]
    bundle = convert(model, runtime, tmp_path / "net")
    assert bundle.cpu_features == ()
    with session.open(bundle) as opened:
        got = opened.run(feeds)["z"]
    step = np.abs(exact).max() / 127
    assert np.abs(got - exact).max() <= 1.01 * step  # one step: halves may be rounded the other way
    assert (np.abs(got - exact) > 0.01 * step).mean() < 0.02


def one_layer(case, weights, groups):
    """x -> Q -> DQ -> the layer -> Q -> DQ -> z, steps of 1 for inputs and weights."""
    import onnx_ir as ir

    convolution = weights.ndim > 2
    size = f"1, {weights.shape[1] * groups}" + ", 9" * (weights.ndim - 2) if convolution else f"4, {weights.shape[0]}"
    stride = 2 if case == "stride" else 1
    layer = {"MatMul": "MatMul(d, f)", "Gemm": "Gemm(d, f)"}.get(
        case, f"Conv <group = {groups}, strides = [{', '.join([str(stride)] * (weights.ndim - 2))}]> (d, f)"
    )
    outputs = weights.shape[0 if convolution else 1]
    reach = 255 * np.abs(weights.astype(int)).reshape(outputs, -1).sum(1).max() / 4
    graph = ir.from_onnx_text(
        f"""{HEAD} net (float[{size}] x, int8{list(weights.shape)} w) => (float[] z)
        <float one = {{1.0}}, uint8 zero = {{0}}, int8 none = {{0}}, float s = {{{reach / 127}}}, uint8 middle = {{128}}> {{
            q = QuantizeLinear(x, one, zero) d = DequantizeLinear(q, one, zero) f = DequantizeLinear(w, one, none)
            y = {layer}
            p = QuantizeLinear(y, s, middle) z = DequantizeLinear(p, s, middle) }}"""
    )
    stored = graph.graph.inputs.pop()
    stored.const_value = ir.tensor(weights, name="w")
    graph.graph.register_initializer(stored)
    return Model(graph, name="net")


def test_pairs_of_an_odd_number_of_channels_are_not_known():
    assert neighbours((16, 3, 3, 3), convolution=True) is None
    assert neighbours((16, 3, 1, 1), convolution=True) is not None


def test_one_input_channel_is_depthwise_only_in_groups():
    """A convolution of a grey image adds places of its window in pairs."""
    assert neighbours((16, 1, 3, 3), convolution=True) is None
    assert neighbours((16, 1, 3, 3), convolution=True, groups=16) is not None
    large = one_layer("grey", np.full((8, 1, 3, 3), 127, np.int8), 1)
    assert saturating_layers(large.ir) == ("y",)
    assert saturating_layers(one_layer("depthwise", np.full((8, 1, 3, 3), 127, np.int8), 8).ir) == ()
