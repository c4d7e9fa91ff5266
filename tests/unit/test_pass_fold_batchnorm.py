"""passes/fold_batchnorm: outputs stay, for every kind of layer; what cannot be folded stays and is counted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgewright.graph.dataflow import add_initializer
from edgewright.graph.shapes import infer
from edgewright.metrics import rel_l2
from edgewright.passes import fold_batchnorm

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
Tolerance = dict[str, dict[str, float]]
BN = "BatchNormalization<epsilon = 0.01>"


def build(body: str, **weights: tuple[int, ...] | np.ndarray) -> ir.Model:
    """The graph with seeded initializers of the given shapes; `*_var` are positive."""
    model = ir.from_onnx_text(f"{HEAD} {body}")
    rng = np.random.default_rng(1)
    readers = [node for graph in model.graphs() for node in graph]
    for name, shape in weights.items():
        made = rng.standard_normal(shape).astype(np.float32) if isinstance(shape, tuple) else shape
        value = add_initializer(model.graph, name, np.abs(made) if name.endswith("var") else made)
        for node in readers:
            for index, old in enumerate(node.inputs):
                if old is not None and old.name == name and old is not value:
                    node.replace_input_with(index, value)
    infer(model)
    return model


def run(model: ir.Model, feeds: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    if feeds is None:
        feeds = {item.name: rng.standard_normal(item.shape).astype(np.float32) for item in session.get_inputs()}
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def fold(model: ir.Model, **config: bool) -> dict[str, object]:
    return fold_batchnorm.apply(model, fold_batchnorm.Config(**config), None)  # type: ignore[arg-type]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def norm(source: str, out: str = "y", prefix: str = "bn") -> str:
    return f"{out} = {BN}({source}, {prefix}_s, {prefix}_b, {prefix}_m, {prefix}_var)"


def stats_of(channels: int, prefix: str = "bn") -> dict[str, tuple[int, ...]]:
    return {f"{prefix}_{part}": (channels,) for part in ("s", "b", "m", "var")}


LAYERS = {
    "conv": ("float[1,4,8,8] x", "h = Conv<pads = [1,1,1,1]>(x, w)", {"w": (6, 4, 3, 3)}, 6, "Conv"),
    "conv with bias": ("float[1,4,8,8] x", "h = Conv(x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}, 6, "Conv"),
    "grouped": ("float[1,4,8,8] x", "h = Conv<group = 2>(x, w, b)", {"w": (6, 2, 3, 3), "b": (6,)}, 6, "Conv"),
    "depthwise": ("float[1,4,8,8] x", "h = Conv<group = 4>(x, w)", {"w": (4, 1, 3, 3)}, 4, "Conv"),
    "conv 1d": ("float[1,4,9] x", "h = Conv(x, w)", {"w": (6, 4, 3)}, 6, "Conv"),
    "conv 3d": ("float[1,2,4,4,4] x", "h = Conv(x, w)", {"w": (3, 2, 2, 2, 2)}, 3, "Conv"),
    "transpose": ("float[1,4,5,5] x", "h = ConvTranspose<strides = [2,2]>(x, w, b)", {"w": (4, 6, 2, 2), "b": (6,)}, 6,
                  "ConvTranspose"),
    "grouped transpose": ("float[1,4,5,5] x", "h = ConvTranspose<group = 2>(x, w)", {"w": (4, 3, 2, 2)}, 6,
                          "ConvTranspose"),
    "gemm": ("float[3,4] x", "h = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", {"w": (4, 6), "b": (6,)}, 6, "Gemm"),
    "gemm transposed": ("float[3,4] x", "h = Gemm<transB = 1>(x, w)", {"w": (6, 4)}, 6, "Gemm"),
    "gemm row bias": ("float[3,4] x", "h = Gemm(x, w, b)", {"w": (4, 6), "b": (3, 1)}, 6, "Gemm"),
    "gemm scalar bias": ("float[3,4] x", "h = Gemm<beta = 0.0>(x, w, b)", {"w": (4, 6), "b": ()}, 6, "Gemm"),
    "matmul": ("float[3,4] x", "h = MatMul(x, w)", {"w": (4, 6)}, 6, "Gemm"),
    "matmul, add": ("float[3,4] x", "p = MatMul(x, w)  h = Add(b, p)", {"w": (4, 6), "b": (6,)}, 6, "Gemm"),
    "conv, add": ("float[1,4,8,8] x", "p = Conv(x, w)  h = Add(p, b)", {"w": (6, 4, 3, 3), "b": (1, 6, 1, 1)}, 6, "Conv"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_takes_the_norm(name: str, tolerance: Tolerance) -> None:
    inputs, nodes, weights, channels, kind = LAYERS[name]
    model = build(f"g ({inputs}) => (float[] y) {{ {nodes}  {norm('h')} }}", **weights, **stats_of(channels))
    before = run(model)
    stats = fold(model)
    assert operators(model) == [kind]
    assert model.graph[0].outputs[0].name == "y"
    assert stats["batch_norms_left"] == 0
    assert not set(model.graph.initializers) & set(stats_of(channels)), "constants of the norm go with it"
    assert rel_l2(before["y"], run(model)["y"]) < tolerance["float32"]["rel_l2"]
    once = ir.to_onnx_text(model)
    assert fold(model)["folded"] == {}
    assert ir.to_onnx_text(model) == once


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("y = Mul(h, c)", (1, 6, 1, 1)),
        ("y = Mul(c, h)", (6, 1, 1)),
        ("y = Mul(h, c)", ()),
        ("y = Add(h, c)", (1,)),
        ("y = Sub(h, c)", (6, 1, 1)),
        ("y = Sub(c, h)", (6, 1, 1)),
        ("y = Div(h, c)", (6, 1, 1)),
    ],
)
def test_arithmetic_per_channel_folds(node: str, shape: tuple[int, ...], tolerance: Tolerance) -> None:
    body = f"g (float[1,4,8,8] x) => (float[] y) {{ h = Conv(x, w, b)  {node} }}"
    model = build(body, w=(6, 4, 3, 3), b=(6,), c=shape)
    before = run(model)
    assert len(operators(model.clone())) == 2
    kept = model.clone()
    assert fold(kept, arithmetic=False)["folded"] == {}
    fold(model)
    assert operators(model) == ["Conv"]
    assert rel_l2(before["y"], run(model)["y"]) < tolerance["float32"]["rel_l2"]


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("y = Mul(h, c)", (6,)),  # along the width
        ("y = Mul(h, c)", (2, 6, 1, 1)),  # makes a batch
        ("y = Mul(h, c)", (1, 1, 6, 1, 1)),  # makes an axis
        ("y = Add(h, c)", (1, 6, 6, 1)),
        ("y = Div(c, h)", (6, 1, 1)),
        ("y = Div(h, zero)", (6, 1, 1)),
        ("y = Mul(h, h)", (6, 1, 1)),
        ("y = Mul(h, fed)", (6, 1, 1)),
    ],
)
def test_other_arithmetic_stays(node: str, shape: tuple[int, ...]) -> None:
    body = f"g (float[1,4,8,8] x, float[6,1,1] fed) => (float[] y) {{ h = Conv(x, w, b)  {node} }}"
    model = build(body, w=(6, 4, 3, 3), b=(6,), c=shape, zero=np.zeros((6, 1, 1), np.float32))
    assert fold(model)["folded"] == {}
    assert len(operators(model)) == 2


def test_a_matmul_of_three_axes_keeps_its_bias_and_norm() -> None:
    body = f"g (float[1,6,4] x) => (float[] y) {{ p = MatMul(x, w)  h = Add(p, b)  {norm('h')} }}"
    model = build(body, w=(4, 5), b=(5,), **stats_of(6))
    assert fold(model)["folded"] == {}
    assert operators(model) == ["MatMul", "Add", "BatchNormalization"]


REFUSED = {
    "its input has other readers": (
        "g (float[1,4,8,8] x) => (float[] y, float[] z) { h = Conv(x, w)  BN  z = Relu(h) }", {"w": (6, 4, 3, 3)}),
    "the graph returns its input": (
        "g (float[1,4,8,8] x) => (float[] y, float[1,6,6,6] h) { h = Conv(x, w)  BN }", {"w": (6, 4, 3, 3)}),
    "the layer's weight is computed in the graph": (
        "g (float[1,4,8,8] x, float[6,4,3,3] w) => (float[] y) { h = Conv(x, w)  BN }", {}),
    "the layer's bias is computed in the graph": (
        "g (float[1,4,8,8] x, float[6] b) => (float[] y) { h = Conv(x, w, b)  BN }", {"w": (6, 4, 3, 3)}),
    "no convolution or linear layer before it": ("g (float[1,6,8,8] x) => (float[] y) { h = Relu(x)  BN }", {}),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_folded_stays_with_a_reason(reason: str) -> None:
    body, weights = REFUSED[reason]
    model = build(body.replace("BN", norm("h")), **weights, **stats_of(6))
    before = ir.to_onnx_text(model)
    stats = fold(model)
    assert ir.to_onnx_text(model) == before
    assert stats["batch_norms_left"] == 1
    assert stats["reasons"] == {reason: 1}


def test_training_mode_and_bad_statistics_are_refused() -> None:
    body = """g (float[1,4,8,8] x) => (float[] y) {
        h = Conv(x, w)
        y, a, b = BatchNormalization<training_mode = 1>(h, bn_s, bn_b, bn_m, bn_var)
    }"""
    assert fold(build(body, w=(6, 4, 3, 3), **stats_of(6)))["reasons"] == {"it is in training mode": 1}
    body = f"g (float[1,4,8,8] x) => (float[] y) {{ h = Conv(x, w)  {norm('h')} }}"
    negative = np.full(6, -1, np.float32)
    model = build(body, w=(6, 4, 3, 3), **stats_of(6))
    model.graph.initializers["bn_var"].const_value = ir.tensor(negative)
    assert fold(model)["reasons"] == {"its statistics are not finite": 1}
    model = build(body, w=(6, 4, 3, 3), **stats_of(6))
    model.graph.initializers["bn_s"].const_value = ir.tensor(np.full(6, 3e38, np.float32))
    model.graph.initializers["bn_var"].const_value = ir.tensor(np.zeros(6, np.float32))
    assert fold(model)["reasons"] == {"the result is beyond float32": 1}


def test_weights_of_other_precisions_are_left_alone() -> None:
    body = f"g (float16[1,4,8,8] x) => (float16[] y) {{ h = Conv(x, w)  {norm('h')} }}"
    half = {name: np.ones(6, np.float16) for name in stats_of(6)}
    model = build(body, w=np.ones((6, 4, 3, 3), np.float16), **half)
    assert fold(model)["reasons"] == {"the layer's weight is float16": 1}


def test_shared_weights_are_copied_and_shared_where_they_stay_equal(tolerance: Tolerance) -> None:
    body = f"""g (float[1,4,8,8] x) => (float[] y, float[] z, float[] v) {{
        a = Conv(x, w)  {norm("a", "y", "p")}
        b = Conv(x, w)  {norm("b", "z", "q")}
        c = Conv(x, w)  {norm("c", "v", "p")}
    }}"""
    model = build(body, w=(6, 4, 3, 3), **stats_of(6, "p"), **stats_of(6, "q"))
    original = model.graph.initializers["w"].const_value
    assert original is not None
    kept = original.numpy().copy()
    before = run(model)
    fold(model)
    assert operators(model) == ["Conv"] * 3
    first, second, third = model.graph
    assert first.inputs[1] is third.inputs[1], "the same weight and the same norm stay one weight"
    assert first.inputs[1] is not second.inputs[1]
    after = run(model)
    assert all(rel_l2(before[name], after[name]) < tolerance["float32"]["rel_l2"] for name in before)
    assert np.array_equal(original.numpy(), kept), "shared memory is never written to"


def test_folds_inside_subgraphs(tolerance: Tolerance) -> None:
    body = f"""g (float[1,4,8,8] x) => (float[] y) <bool c = {{1}}> {{
        y = If (c) <then_branch = t () => (float[1,6,6,6] p) {{ h = Conv(x, w)  {norm("h", "p")} }},
                    else_branch = e () => (float[1,6,6,6] q) {{ q = Conv(x, w) }}>
    }}"""
    model = build(body, w=(6, 4, 3, 3), **stats_of(6))
    before = run(model)
    assert fold(model)["folded"] == {"BatchNormalization": 1}
    assert rel_l2(before["y"], run(model)["y"]) < tolerance["float32"]["rel_l2"]


def test_a_norm_in_a_subgraph_is_not_pulled_out() -> None:
    body = f"""g (bool c, float[1,4,8,8] x) => (float[] y) {{
        h = Conv(x, w)
        y = If (c) <then_branch = t () => (float[1,6,6,6] p) {{ {norm("h", "p")} }},
                    else_branch = e () => (float[1,6,6,6] q) {{ q = Conv(x, w) }}>
    }}"""
    assert fold(build(body, w=(6, 4, 3, 3), **stats_of(6)))["folded"] == {}


@pytest.mark.parametrize("fault", ["epsilon", "mean", "order"])
def test_a_wrong_fold_is_caught_by_the_comparison(
    fault: str, tolerance: Tolerance, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fold_batchnorm._batch_norm

    def wrong(node: ir.Node, layer: ir.Node) -> object:
        affine = right(node, layer)
        if fault == "epsilon":
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.011)
            return right(node, layer)
        if fault == "mean":
            return fold_batchnorm._Affine(affine.scale, np.zeros_like(affine.shift))
        return fold_batchnorm._Affine(affine.scale[::-1], affine.shift)

    inputs, nodes, weights, channels, _ = LAYERS["conv"]
    model = build(f"g ({inputs}) => (float[] y) {{ {nodes}  {norm('h')} }}", **weights, **stats_of(channels))
    before = run(model)
    monkeypatch.setattr(fold_batchnorm, "_batch_norm", wrong)
    fold(model)
    assert operators(model) == ["Conv"]
    assert rel_l2(before["y"], run(model)["y"]) > tolerance["float32"]["rel_l2"]
