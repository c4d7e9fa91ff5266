"""The importer's way from any opset to 21: ONNX Runtime gives the same outputs before and after."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs, helper
from tests.onnx_files import Tolerance, outside

import edgewright as ew
from edgewright.importers.onnx._adapters import ADAPTERS
from edgewright.importers.onnx._upgrade import NEWEST_TESTED
from edgewright.model import IR_VERSION, OPSET_VERSION

#: Shapes of the inputs that the one-operator graphs may use.
INPUTS = {"x": (2, 4, 6, 6), "v": (2, 4, 6), "m": (3, 4), "b": (4,), "f": (1, 4, 5, 5)}


def one_node(op_type: str, inputs: str, version: int, outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """A graph of one node; names in `inputs` that are not in INPUTS come from `consts` among the attributes."""
    consts: Mapping[str, np.ndarray] = attributes.pop("consts", {})
    names = inputs.split(",")
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], name="node", **attributes)
    fed = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, INPUTS[name])
        for name in dict.fromkeys(names)
        if name in INPUTS and name not in consts
    ]
    results = [helper.make_value_info(f"y{i}", onnx.TypeProto()) for i in range(outputs)]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in consts.items()]
    graph = helper.make_graph([node], "g", fed, results, stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(proto)
    for value in inferred.graph.output:
        if not value.type.WhichOneof("value"):
            value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None))
    return inferred


def check(proto: onnx.ModelProto, folder: Path, tolerance: Tolerance) -> ew.Model:
    """The loaded model, after its outputs were found equal to those of `proto`."""
    case = outside.Case("case", lambda: proto, lambda p: [outside.random_feeds(p)])
    result = outside.compare(case, folder, tolerance)
    assert result.state == "equal", result
    model = ew.load(folder / "original.onnx")
    assert model.ir.opset_imports[""] == OPSET_VERSION
    assert model.ir.ir_version == IR_VERSION
    assert [value.name for value in model.outputs] == [value.name for value in proto.graph.output]
    return model


i64 = lambda *values: np.array(values, np.int64)  # noqa: E731
f32 = lambda *values: np.array(values, np.float32)  # noqa: E731

GRID = np.linspace(-1, 1, 18, dtype=np.float32).reshape(1, 3, 3, 2)


def normal(*sizes: int) -> np.ndarray:
    return np.random.default_rng(sum(sizes)).standard_normal(sizes).astype(np.float32)


REWRITES: list[tuple[str, str, tuple[int, ...], dict[str, Any]]] = [
    ("Clip", "x", (7, 10), {"min": -0.5, "max": 0.25}),
    ("Clip", "x", (7, 10), {"max": 0.25}),
    ("Clip", "x", (10,), {}),
    ("Dropout", "x", (7, 10, 11), {"ratio": 0.3}),
    ("GridSample", "f,grid", (16, 19), {"mode": "bilinear", "consts": {"grid": GRID}}),
    ("GridSample", "f,grid", (16,), {"mode": "bicubic", "consts": {"grid": GRID}}),
    ("GridSample", "f,grid", (19,), {"consts": {"grid": GRID}}),
    ("GroupNormalization", "x,scale,bias", (18, 20), {"num_groups": 2, "consts": {"scale": f32(1, 3), "bias": f32(-1, 2)}}),
    *[(op, "x", (7, 11, 12), {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (0, 1, 2, 3)],
    *[(op, "x", (7, 12), {}) for op in ("Softmax", "LogSoftmax", "Hardmax")],
    *[(op, "x", (11, 12), {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (-1, -2, -4)],
    ("Pad", "x", (7, 10), {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "value": 1.5}),
    ("Pad", "x", (7, 10), {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": "reflect"}),
    ("Pad", "x", (10,), {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": "edge"}),
    *[(op, "x", (7, 11, 12, 13, 17), {"axes": [1, 3]})
      for op in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd")],
    *[(op, "x", (7, 17), {"keepdims": 0}) for op in ("ReduceMin", "ReduceSumSquare", "ReduceL1")],
    ("ReduceSum", "x", (7, 11, 12), {"axes": [2], "keepdims": 0}),
    ("ReduceSum", "x", (7, 12), {}),
    *[("Resize", "x,scales", (10,), {"mode": mode, "consts": {"scales": f32(1, 1, *scale)}})
      for mode in ("nearest", "linear") for scale in ((2, 3), (0.5, 0.4), (1, 1.7))],
    *[("Resize", "x,roi,scales", (11, 12, 13, 18), {"mode": mode, "coordinate_transformation_mode": place,
       "consts": {"roi": f32(), "scales": f32(1, 1, *scale)}})
      for mode in ("nearest", "linear", "cubic")
      for place in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel") for scale in ((2, 3), (0.5, 0.7))],
    ("Resize", "x,roi,none,sizes", (11, 12), {"mode": "linear",
      "consts": {"roi": f32(), "none": f32(), "sizes": i64(2, 4, 9, 5)}}),
    ("RoiAlign", "x,rois,which", (10, 15), {"output_height": 2, "output_width": 2, "spatial_scale": 0.5,
      "consts": {"rois": f32([0, 0, 8, 8], [2, 2, 9, 11]), "which": i64(0, 1)}}),
    ("Scatter", "m,rows,updates", (9, 10), {"axis": 0, "consts": {"rows": np.array([[0, 2]]), "updates": f32([9, 8])}}),
    ("Slice", "x", (7, 9), {"starts": [1, -3], "ends": [4, 1000], "axes": [1, 2]}),
    ("Slice", "m", (7,), {"starts": [0, 1], "ends": [2, 3]}),
    ("Split", "x", (7, 11, 12), {"axis": 1, "split": [1, 3], "outputs": 2}),
    ("Split", "x", (7, 12, 13, 17), {"axis": 2, "outputs": 3}),
    ("Squeeze", "f", (7, 12), {"axes": [0]}),
    ("Squeeze", "f", (7, 12), {}),
    ("Unsqueeze", "m", (7, 12), {"axes": [0, 3]}),
    ("TopK", "m", (7, 9), {"k": 2, "axis": 1, "outputs": 2}),
    ("Upsample", "x", (7, 8), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    ("Upsample", "x", (7,), {"scales": [1.0, 1.0, 1.5, 2.0], "mode": "linear"}),
    ("Upsample", "x,scales", (9,), {"mode": "nearest", "consts": {"scales": f32(1, 1, 1.3, 2)}}),
    ("DFT", "spectrum", (17, 19), {"axis": 1, "consts": {"spectrum": normal(1, 8, 3, 1)}}),
    ("BatchNormalization", "x,s,b,mean,var", (7, 8, 9, 13, 14), {"epsilon": 0.01,
      "consts": {"s": f32(1, 2, 3, 4), "mean": f32(0, 1, 0, 2), "var": f32(1, 2, 1, 3)}}),
]  # fmt: skip

#: Operators that kept their meaning by the letter; kernels with many corner cases are held against ONNX Runtime anyway.
KEPT: list[tuple[str, str, tuple[int, ...], dict[str, Any]]] = [
    *[("AveragePool", "x", (7, 10, 11, 18, 19, 22)[ceil:], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1],
       "count_include_pad": pad, **({"ceil_mode": 1} if ceil else {})}) for pad, ceil in itertools.product((0, 1), (0, 1))],
    *[("MaxPool", "x", (8, 10, 11, 12, 22)[start:], {"kernel_shape": [3, 2], "strides": [2, 2], **more})
      for start, more in ((0, {}), (1, {"ceil_mode": 1}), (1, {"dilations": [2, 1]}),
                          (0, {"auto_pad": "SAME_UPPER"}), (0, {"auto_pad": "SAME_LOWER"}))],
    *[("LpPool", "x", (7, 11, 18, 22), {"kernel_shape": [2, 2], "strides": [2, 2], "p": p}) for p in (1, 2)],
    *[("ConvTranspose", "x,w", (7, 10, 11, 22), {"strides": [2, 2], "consts": {"w": normal(4, 3, 3, 3)}, **more})
      for more in ({}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"},
                   {"output_padding": [1, 0]}, {"pads": [1, 0, 0, 1]})],
    *[("LSTM", "v,w,r", (7, 13, 14, 22), {"hidden_size": 3, "direction": "bidirectional", "consts": {
        "w": normal(2, 12, 6), "r": normal(2, 12, 3)}})],
    ("GRU", "v,w,r", (7, 14, 22), {"hidden_size": 3, "linear_before_reset": 1, "consts": {
        "w": normal(1, 9, 6), "r": normal(1, 9, 3)}}),
    ("DepthToSpace", "x", (7, 11, 13), {"blocksize": 2}),
    ("Gemm", "m,w,c", (7, 9, 11, 13), {"transB": 1, "alpha": 0.5, "consts": {"w": np.ones((2, 4), np.float32), "c": f32(1, 2)}}),
    ("Flatten", "x", (7, 9, 11, 13, 21, 25), {"axis": 2}),
    ("QuantizeLinear", "m,scale,zero", (10, 13, 19, 21, 25), {
      "consts": {"scale": np.array(0.1, np.float32), "zero": np.array(3, np.uint8)}}),
    ("ArgMax", "m", (7, 11, 12, 13), {"axis": 1, "keepdims": 0}),
    ("OneHot", "rows,depth,values", (9, 11), {"axis": -1,
      "consts": {"rows": i64(1, 0, 2), "depth": i64(3), "values": f32(0, 1)}}),
    ("PRelu", "x,slope", (7, 9, 16), {"consts": {"slope": np.array([[[0.1]], [[0.2]], [[0.3]], [[0.4]]], np.float32)}}),
    ("InstanceNormalization", "x,s,b", (7, 22), {"consts": {"s": f32(1, 2, 3, 4)}}),
    ("Cast", "m", (7, 9, 13, 19, 21, 25), {"to": 6}),
    ("Shape", "x", (7, 13, 15, 25), {}),
    ("Transpose", "x", (7, 13, 25), {"perm": [0, 2, 3, 1]}),
]  # fmt: skip


def _flat(cases: list[tuple[str, str, tuple[int, ...], dict[str, Any]]]) -> list[Any]:
    return [
        pytest.param(op, inputs, version, attributes, id=f"{op}-{version}-{number}")
        for number, (op, inputs, versions, attributes) in enumerate(cases)
        for version in versions
    ]


@pytest.mark.parametrize(("op_type", "inputs", "version", "attributes"), _flat(REWRITES))
def test_rewritten_operator_gives_the_same_outputs(
    op_type: str, inputs: str, version: int, attributes: dict[str, Any], tmp_path: Path, tolerance: Tolerance
) -> None:
    check(one_node(op_type, inputs, version, **attributes), tmp_path, tolerance)


@pytest.mark.parametrize(("op_type", "inputs", "version", "attributes"), _flat(KEPT))
def test_kept_operator_gives_the_same_outputs(
    op_type: str, inputs: str, version: int, attributes: dict[str, Any], tmp_path: Path, tolerance: Tolerance
) -> None:
    check(one_node(op_type, inputs, version, **attributes), tmp_path, tolerance)


def test_every_change_up_to_21_is_rewritten_or_compatible() -> None:
    history: dict[str, dict[int, Any]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, {})[schema.since_version] = schema
    incompatible = []
    for name, versions in history.items():
        numbers = sorted(versions)
        for old, new in itertools.pairwise(numbers):
            if (
                7 < new <= OPSET_VERSION
                and (name, new) not in ADAPTERS
                and not _compatible(versions[old], versions[new])
            ):
                incompatible.append((name, old, new))
    # MaxPool 8 and Dropout-like optional outputs are additions; Erf lost integer types that no runtime had.
    assert incompatible == [("Erf", 9, 13)]


def _compatible(old: Any, new: Any) -> bool:
    options = [[(str(formal.option)) for formal in schema.inputs] for schema in (old, new)]
    added_inputs = new.inputs[len(old.inputs) :]
    same_inputs = all(a == b or "Optional" in b for a, b in zip(*options, strict=False))
    kept = all(name in new.attributes and _default(new, name) == _default(old, name) for name in old.attributes)
    required = [name for name in new.attributes if name not in old.attributes and new.attributes[name].required]
    wider = all(
        set(old_formal.types) <= set(new_formal.types)
        for old_formal, new_formal in zip(old.inputs, new.inputs, strict=False)
    )
    optional = all("Optional" in str(formal.option) for formal in added_inputs)
    return not new.deprecated and same_inputs and optional and kept and not required and wider


def _default(schema: Any, name: str) -> Any:
    value = schema.attributes[name].default_value
    return helper.get_attribute_value(value) if value.name else None


def test_adapters_name_operators_that_really_changed() -> None:
    for name, version in ADAPTERS:
        assert defs.get_schema(name, version).since_version == version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('["" : 8] > g (float[2,3] x) => (float[2,3] y, float[2,3] m) { y, m = Dropout (x) }', "mask"),
        ('["" : 11] > g (float[1,1,4,4] x) => (float[1,1,8,8] y) <float[0] r = {}, float[4] s = {1,1,2,2}>'
         '{ y = Resize <mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn"> (x, r, s) }', "tf_half_pixel"),
        ('["" : 10] > g (float[1,1,4,4] x, float[4] s) => (float[1,1,N,M] y)'
         '{ y = Resize <mode="nearest"> (x, s) }', "constant scales"),
        ('["" : 24] > g (float[2,3] x) => (float[2,3] y) { y = Swish (x) }', "new in opset 24"),
        ('["" : 28] > g (float[2] x, float[2] z) => (float[2] y) { y = Mod (x, z) }', "fmod"),
        ('["" : 28] > g (float[1,1,4,4] x) => (float[1,4,2,2] y) { y = SpaceToDepth <blocksize=2, mode="CRD"> (x) }', "mode"),
        ('["" : 22] > g (bfloat16[1,1,4] x) => (bfloat16[1,1,4] y) { y = Elu (x) }', "bfloat16"),
        ('["" : 7] > g (float[1,2,4,4] x, float[2] s) => (float[1,2,4,4] y)'
         '{ y = BatchNormalization <spatial=0> (x, s, s, s, s) }', "spatial"),
    ],
)  # fmt: skip
def test_what_has_no_equal_is_refused_by_name(text: str, reason: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(f"<ir_version: 8, opset_import: {text}")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ew.EdgewrightError, match=reason) as caught:
        ew.load(tmp_path / "m.onnx")
    assert caught.value.code == "E205"
    assert f"`{proto.graph.node[0].op_type}`" in caught.value.message


@pytest.mark.parametrize(("version", "code"), [(1, "E205"), (6, "E205"), (999, "E205")])
def test_opsets_outside_the_range_are_refused(version: int, code: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 7]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
    )
    proto.opset_import[0].version = version
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ew.EdgewrightError, match=f"opset {version}") as caught:
        ew.load(tmp_path / "m.onnx")
    assert caught.value.code == code


@pytest.mark.parametrize("version", range(7, min(defs.onnx_opset_version(), NEWEST_TESTED) + 1))
def test_every_opset_is_read(version: int, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {version}]> g (float[N, 3] x) => (float[N, 3] y) {{ t = Relu (x) y = Add (t, x) }}'
    )
    onnx.save(proto, tmp_path / "m.onnx")
    model = ew.load(tmp_path / "m.onnx")
    assert model.ir.opset_imports[""] == OPSET_VERSION
    assert model.inputs[0].shape == ("N", 3)
    assert [node.op_type for node in model.ir.graph] == ["Relu", "Add"]


def test_upgrade_reaches_subgraphs_and_functions(tmp_path: Path, tolerance: Tolerance) -> None:
    text = """<ir_version: 8, opset_import: ["" : 10, "local" : 1]>
    g (float[2, 3, 4] x, bool c) => (float[2, 3, 4] y) {
      s = local.act (x)
      y = If (c) <then_branch = yes () => (t) { t = Softmax <axis = 1> (s) },
                  else_branch = no () => (e) { e = Clip <min = 0.0> (s) }>
    }
    <domain: "local", opset_import: ["" : 9]>
    act (a) => (o) { h = Clip <min = -0.5, max = 0.5> (a) o = Slice <starts = [0], ends = [2], axes = [0]> (h) }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / "original.onnx")
    model = ew.load(tmp_path / "original.onnx")
    saved = model.save(tmp_path / "saved.onnx")
    x = normal(2, 3, 4)
    flat = np.clip(x, -0.5, 0.5).reshape(2, -1)
    softmax = (np.exp(flat) / np.exp(flat).sum(1, keepdims=True)).reshape(x.shape)
    after = outside.session(saved)
    limits = {key: tolerance["float32"][key] for key in ("rtol", "atol")}
    np.testing.assert_allclose(after.run(None, {"x": x, "c": np.array(True)})[0], softmax, **limits)
    np.testing.assert_allclose(
        after.run(None, {"x": x, "c": np.array(False)})[0], np.clip(np.clip(x, -0.5, 0.5), 0, None), **limits
    )


def test_softmax_over_one_axis_stays_a_single_node(tmp_path: Path, tolerance: Tolerance) -> None:
    for shape, axis in (((2, 5), 1), ((2, 5, 1, 1), 1), ((2, 3, 5), 2)):
        proto = one_node("Softmax", "x", 11, axis=axis)
        for value in (*proto.graph.input, *proto.graph.output):
            value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
        model = check(proto, tmp_path, tolerance)
        assert [node.op_type for node in model.ir.graph] == ["Softmax"]
