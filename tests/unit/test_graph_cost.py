"""graph/cost: multiply-adds and bytes, against arithmetic by hand and published figures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
from onnx import version_converter

from edgewright.graph import cost
from edgewright.records import LayerCost

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def numbers(count: int) -> str:
    return ", ".join(map(str, range(1, count + 1)))


def only(body: str, op_type: str) -> LayerCost:
    layers = cost.layers(ir.from_onnx_text(f"{HEAD} {body}"))
    return next(layer for layer in layers if layer.op_type == op_type)


@pytest.mark.parametrize(
    ("inputs", "node", "macs"),
    [
        ("float[1,4,8,8] x, float[6,4,3,3] w", "y = Conv<pads = [1,1,1,1]>(x, w)", 6 * 8 * 8 * 4 * 9),
        ("float[1,4,8,8] x, float[4,1,3,3] w", "y = Conv<group = 4, pads = [1,1,1,1]>(x, w)", 4 * 8 * 8 * 9),
        ("float[1,4,5,5] x, float[4,6,2,2] w", "y = ConvTranspose<strides = [2,2]>(x, w)", 4 * 5 * 5 * 6 * 4),
        ("float[1,4,9] x, float[2,4,3] w", "y = Conv(x, w)", 2 * 7 * 4 * 3),
        ("float[2,3] x, float[3,5] w", "y = Gemm(x, w)", 2 * 3 * 5),
        ("float[3,2] x, float[5,3] w", "y = Gemm<transA = 1, transB = 1>(x, w)", 2 * 3 * 5),
        ("float[2,7,3] x, float[3,5] w", "y = MatMul(x, w)", 2 * 7 * 3 * 5),
        ("float[3] x, float[3] w", "y = MatMul(x, w)", 3),
        ("float[2,3,4] x, float[2,4,5] w", 'y = Einsum<equation = "bij,bjk->bik">(x, w)', 2 * 3 * 4 * 5),
        ("float[7,1,3] x, float[2,16,3] w, float[2,16,4] r",
         'y = LSTM<hidden_size = 4, direction = "bidirectional">(x, w, r)', 7 * 2 * 16 * (3 + 4)),
        ("float[7,1,3] x, float[1,12,3] w, float[1,12,4] r", "y = GRU<hidden_size = 4>(x, w, r)", 7 * 12 * (3 + 4)),
        ("float[2,8] x, float[8] w", "y = Mul(x, w)", 0),
        ("float[1,8,4] x, float[8] w", "y = LayerNormalization(x, w)", 0),
        ("float[2,B,3] x, float[3,5] w", "y = MatMul(x, w)", None),
    ],
)  # fmt: skip
def test_multiply_adds_by_hand(inputs: str, node: str, macs: int | None) -> None:
    op_type = node.removeprefix("y = ").partition("(")[0].partition("<")[0]
    assert only(f"g ({inputs}) => (float[] y) {{ {node} }}", op_type).macs == macs


def test_symbolic_batch_counts_as_one() -> None:
    layer = only(
        "g (float[N,3] x) => (float[N,5] y) <float[3,5] w = {" + numbers(15) + "}> { y = MatMul(x, w) }",
        "MatMul",
    )
    assert layer.macs == 15
    assert layer.shape == (1, 5)
    assert layer.parameter_bytes == 60
    assert layer.activation_bytes == 4 * (3 + 5)


def test_sizes_that_hang_on_shape_arithmetic_are_found() -> None:
    layer = only(
        """g (float[N,2,6] x) => (float[A,B] y) <int64[1] zero = {0}, int64[1] rest = {-1}, float[12,2] w = {NUMBERS}> {
            s = Shape(x)
            n = Gather(s, zero)
            t = Concat<axis = 0>(n, rest)
            f = Reshape(x, t)
            y = Gemm(f, w)
        }""".replace("NUMBERS", numbers(24)),
        "Gemm",
    )
    assert layer.macs == 24


def test_control_flow_costs_its_dearest_branch_and_its_iterations() -> None:
    branch = only(
        """g (bool c, float[2,3] x, float[3,5] w, float[2,5] z) => (float[2,5] y) {
            y = If (c) <then_branch = t () => (float[2,5] p) { p = MatMul(x, w) },
                        else_branch = e () => (float[2,5] q) { q = Relu(z) }>
        }""",
        "If",
    )
    assert branch.macs == 30
    loop = """g (float[2,2] x, float[2,2] w, bool go) => (float[2,2] y) <int64 m = {4}> {
        y = Loop (COUNT, go, x) <body = b (int64 i, bool c, float[2,2] s) => (bool d, float[2,2] t) {
            d = Identity(c)  t = MatMul(s, w) }>
    }"""
    assert only(loop.replace("COUNT", "m"), "Loop").macs == 32
    assert only(loop.replace("COUNT", ""), "Loop").macs is None


def test_the_graph_is_not_changed() -> None:
    model = ir.from_onnx_text(f"{HEAD} g (float[N,3] x) => (float[N,3] y) {{ y = Relu(x) }}")
    before = ir.to_onnx_text(model)
    cost.layers(model)
    assert ir.to_onnx_text(model) == before


#: Multiply-adds in millions at 224 x 224 (convolutions scale by the area), of the classifier, at most this far off.
#: Source: torchvision and timm model tables.
PUBLISHED = {
    "resnet18": (1814, 0.512),
    "mobilenet_v2": (301, 1.281),
    "densenet121": (2834, 1.025),
    "efficientnet_lite0": (386, 1.281),
    "googlenet": (1498, 1.024),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_figures(name: str, architectures: ModuleType, data: Path) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    layers = cost.layers(ir.from_proto(version_converter.convert_version(proto, 21)))
    assert all(layer.macs is not None and layer.activation_bytes is not None for layer in layers)
    whole, classifier = PUBLISHED[name]
    expected = (whole - classifier) * (64 / 224) ** 2 + classifier
    assert sum(layer.macs or 0 for layer in layers) / 1e6 == pytest.approx(expected, rel=0.05)
