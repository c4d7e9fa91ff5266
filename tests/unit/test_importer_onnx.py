"""The ONNX importer: what it keeps, what it refuses and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_files import Tolerance, benchmark, load_text, outside, refused

import edgewright as ew
from edgewright.importers.onnx import _functions
from edgewright.model import IR_VERSION, OPSET_VERSION

RELU = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }'

fuzzing = benchmark("fuzz_onnx")


# --- what it keeps ------------------------------------------------------------------------------------------------------


def test_names_shapes_and_metadata_are_kept(tmp_path: Path) -> None:
    def change(proto: Any) -> None:
        helper.set_model_props(proto, {"author": "ü"})
        proto.graph.node[0].name = "act"
        proto.graph.node[0].output[0] = proto.graph.output[0].name = "größe"

    model = load_text(RELU, tmp_path, change)
    assert (model.name, model.inputs[0].shape) == ("m", ("N", 3))
    assert [value.name for value in model.outputs] == ["größe"]
    assert model.ir.metadata_props == {"author": "ü"}
    assert (model.ir.ir_version, model.ir.opset_imports[""]) == (IR_VERSION, OPSET_VERSION)
    assert model.history == ()
    assert model.origin == model.hash
    onnx.checker.check_model(model.to_proto(), full_check=True)


def test_shapes_are_inferred(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8, 8] x) => (float[N, M] y) <int64[2] flat = {0, -1}> {
      a = Relu (x)  b = GlobalAveragePool (a)  y = Reshape (b, flat) }"""
    model = load_text(text, tmp_path)
    shapes = {value.name: value.shape for node in model.ir.graph for value in node.outputs}
    assert str(shapes["a"]) == "[N,3,8,8]"
    assert str(shapes["b"]) == "[N,3,1,1]"
    assert not any("unk__" in str(shape) for shape in shapes.values())


def test_initializers_among_the_inputs_are_not_fed(tmp_path: Path) -> None:
    text = """<ir_version: 3, opset_import: ["" : 9]> g (float[1, 2] x, float[2] w) => (float[1, 2] y) <float[2] w = {1, 2}> {
      y = Mul (x, w) }"""
    model = load_text(text, tmp_path)
    assert [value.name for value in model.inputs] == ["x"]
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    session = outside.session(model.save(tmp_path / "saved.onnx"))
    assert [value.name for value in session.get_inputs()] == ["x"]


def test_unsorted_nodes_are_sorted(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {
      a = Relu (x)  b = Neg (a)  c = Abs (b)  y = Add (c, a) }"""

    def shuffle(proto: Any) -> None:
        nodes = [proto.graph.node[i] for i in (3, 2, 0, 1)]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)

    model = load_text(text, tmp_path, shuffle)
    assert [node.outputs[0].name for node in model.ir.graph] == ["a", "b", "c", "y"]


def test_node_names_become_unique_and_values_keep_theirs(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {
      a = Relu (x)  b = Neg (a)  c = Abs (b)  y = Exp (c) }"""

    def rename(proto: Any) -> None:
        for node, name in zip(proto.graph.node, ("same", "same", "", "y"), strict=True):
            node.name = name

    model = load_text(text, tmp_path, rename)
    assert [node.name for node in model.ir.graph] == ["same", "same_1", "c", "y"]
    assert [node.outputs[0].name for node in model.ir.graph] == ["a", "b", "c", "y"]


def test_constants_become_initializers(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y, float[1] k) {
      c = Constant <value_floats = [1.0, 2.0]> ()  k = Constant <value = float[1] {3}> ()  y = Add (x, c) }"""
    model = load_text(text, tmp_path)
    assert list(model.ir.graph.initializers) == ["c"]
    assert [node.op_type for node in model.ir.graph] == ["Constant", "Add"]  # an output cannot be an initializer


def test_functions_are_kept_and_run(tmp_path: Path, tolerance: Tolerance) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g (float[2, 3] x) => (float[2, 3] y) {
      y = local.twice <by = 2.0> (x) }
    <domain: "local", opset_import: ["" : 17]> twice <by> (a) => (o) {
      f = Constant <value_float : float = @by> ()  o = Mul (a, f) }"""
    proto = onnx.parser.parse_model(text)
    case = outside.Case("functions", lambda: proto, lambda p: [outside.random_feeds(p)])
    assert outside.compare(case, tmp_path, tolerance).state == "equal"
    model = ew.load(tmp_path / "original.onnx")
    assert list(model.ir.functions) == [("local", "twice", "")]


def test_sparse_initializer_becomes_dense(tmp_path: Path) -> None:
    def add(proto: Any) -> None:
        values = numpy_helper.from_array(np.array([5, 7], np.float32), "w")
        indices = numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64), "w_indices")
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))

    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[2, 3] y) { y = Mul (x, w) }'
    model = load_text(text, tmp_path, add)
    weight = model.ir.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), [[0, 5, 0], [0, 0, 7]])


@pytest.mark.parametrize("domain", ["ai.onnx", ""])
def test_both_names_of_the_standard_domain(domain: str, tmp_path: Path) -> None:
    def change(proto: Any) -> None:
        proto.opset_import[0].domain = proto.graph.node[0].domain = domain

    model = load_text(RELU, tmp_path, change)
    assert dict(model.ir.opset_imports) == {"": OPSET_VERSION}


def test_text_tensors_and_ml_operators(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> g (string[3] x) => (int64[3] y) {
      y = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_int64s = [4, 5], default_int64 = -1> (x) }"""
    model = load_text(text, tmp_path)
    session = outside.session(model.save(tmp_path / "saved.onnx"))
    assert session.run(None, {"x": np.array(["b", "a", "c"], object)})[0].tolist() == [5, 4, -1]


# --- what it refuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "PNG"),
        (b"PK\x03\x04" + b"\0" * 50, "zip"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 50, "TensorFlow Lite"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"[net]\nbatch=1\n", "text"),
        (b"\0" * 100, "not an ONNX file"),
        (b"\xff" * 100, "not an ONNX file"),
        (b"\x08\x08", "without a graph"),
    ],
)
def test_other_files_are_refused(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with refused("E201", part, "m.onnx"):
        ew.load(tmp_path / "m.onnx")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = onnx.parser.parse_model(RELU).SerializeToString()
    loaded = []
    for end in range(len(data)):
        (tmp_path / "m.onnx").write_bytes(data[:end])
        try:
            ew.load(tmp_path / "m.onnx")
        except ew.EdgewrightError as problem:
            assert problem.code in ("E201", "E213"), (end, problem)
        else:
            loaded.append(end)
    assert loaded == []


def tensor(**fields: Any) -> TensorProto:
    return TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, "dims": (6,), **fields})


@pytest.mark.parametrize(
    ("code", "weight", "parts"),
    [
        ("E202", tensor(raw_data=b"\0" * 23), ("24", "23")),
        ("E202", tensor(raw_data=b"\0" * 25), ("24", "25")),
        ("E202", tensor(float_data=[0.0] * 5), ("6 entries of `float_data`", "5")),
        ("E202", tensor(), ("6", "holds 0")),
        ("E202", tensor(dims=(-6,), raw_data=b"\0" * 24), ("-6",)),
        ("E202", tensor(dims=(2**62, 2**62), raw_data=b"\0" * 24), ("holds 24",)),
        ("E202", tensor(dims=(1,) * 40, raw_data=b"\0" * 4), ("at most 32",)),
        ("E202", tensor(float_data=[0.0] * 6, int64_data=[1]), ("int64_data",)),
        ("E202", tensor(data_type=TensorProto.INT8, int64_data=[0] * 6), ("int32_data",)),
        ("E202", tensor(data_type=TensorProto.INT4, raw_data=b"\0" * 6), ("3 bytes",)),
        ("E202", tensor(data_type=TensorProto.STRING, string_data=[b"a"]), ("string_data",)),
        ("E205", tensor(data_type=TensorProto.FLOAT4E2M1, raw_data=b"\0" * 3), ("element type 23",)),
        ("E213", tensor(data_type=0, raw_data=b"\0" * 24), ("no element type",)),
        ("E213", tensor(name="", raw_data=b"\0" * 24), ("without a name",)),
    ],
)
def test_tensors_that_do_not_fit_their_data_are_refused(
    code: str, weight: TensorProto, parts: tuple[str, ...], tmp_path: Path
) -> None:
    with refused(code, *parts):
        load_text(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[M] y) { y = Add (x, w) }',
            tmp_path,
            lambda proto: proto.graph.initializer.append(weight),
        )


GRAPH = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)'


@pytest.mark.parametrize(
    ("code", "text", "parts"),
    [
        ("E203", f"{GRAPH} {{ a = Add (x, b)  b = Neg (a)  y = Relu (b) }}", ("cycle of 2 nodes", "`a`", "`b`")),
        ("E203", f"{GRAPH} {{ y = Add (x, y) }}", ("cycle of 1 node",)),
        ("E203", f"{GRAPH} {{ y = Add (x, nowhere) }}", ("`nowhere`", "nothing makes")),
        ("E203", f"{GRAPH} {{ a = Relu (x) }}", ("output `y`",)),
        ("E204", f"{GRAPH} {{ a = Foo (x)  b = Foo (a)  y = Bar (b) }}", ("3 nodes", "`Foo` (2)", "`Bar` (1)", "opset 17")),
        ("E204", f"{GRAPH} {{ y = com.microsoft.Gleu (x) }}", ("`com.microsoft::Gleu` (1)",)),
        ("E205", f"{GRAPH} {{ y = Upsample (x) }}", ("removed", "`Upsample`")),
        ("E213", f"{GRAPH} {{ a = Relu (x)  a = Neg (x)  y = Abs (a) }}", ("`a`", "made twice")),
        ("E213", f"{GRAPH} {{ x = Relu (x)  y = Abs (x) }}", ("`x`", "made twice", "input")),
        ("E213", f"{GRAPH} {{ y = Relu <nonsense = 3> (x) }}", ("nonsense",)),
        ("E213", f"{GRAPH} {{ y = Add (x) }}", ("Add",)),
        ("E213", f"{GRAPH} {{ y = Cast <to = 1.5> (x) }}", ("to",)),
        ("E213", f"{GRAPH} <float[2] x = {{1, 2}}, float[2] x = {{1, 2}}> {{ y = Relu (x) }}", ("`x` is there 2 times",)),
        ("E203", """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool c) => (float[2] y) {
           y = If (c) <then_branch = t () => (float[2] a) { a = Relu (z) }, else_branch = e () => (float[2] b) { b = Neg (x) }>
           z = Abs (y) }""", ("cycle of 2 nodes",)),
        ("E203", """<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2] x) => (float[2] y) { y = f.a (x) }
           <domain: "f", opset_import: ["" : 17, "f" : 1]> a (x) => (y) { y = f.b (x) }
           <domain: "f", opset_import: ["" : 17, "f" : 1]> b (x) => (y) { y = f.a (x) }""", ("circle", "`a`", "`b`")),
        ("E213", """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }
           <domain: "", opset_import: ["" : 17]> Relu (x) => (y) { y = Neg (x) }""", ("`Relu`", "ONNX's own")),
    ],
)  # fmt: skip
def test_malformed_graphs_are_refused(code: str, text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    with refused(code, *parts):
        load_text(text, tmp_path)


@pytest.mark.parametrize(
    ("code", "change", "parts"),
    [
        ("E213", lambda p: p.graph.input[0].ClearField("type"), ("`x`", "no type")),
        ("E213", lambda p: p.graph.input[0].type.map_type.SetInParent(), ("map",)),
        ("E213", lambda p: p.graph.output.append(p.graph.output[0]), ("`y` is there 2 times",)),
        ("E213", lambda p: p.graph.ClearField("output"), ("no outputs",)),
        ("E213", lambda p: p.ClearField("opset_import"), ("no opset",)),
        ("E213", lambda p: p.opset_import.add(domain="", version=12), ("two versions",)),
        ("E213", lambda p: setattr(p.graph.node[0], "op_type", ""), ("names no operator",)),
        ("E205", lambda p: setattr(p, "ir_version", 99), ("IR version 99",)),
        ("E201", lambda p: setattr(p, "ir_version", -1), ("IR version -1",)),
        ("E205", lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 77), ("77",)),
    ],
)
def test_malformed_declarations_are_refused(
    code: str, change: Callable[[Any], None], parts: tuple[str, ...], tmp_path: Path
) -> None:
    with refused(code, *parts):
        load_text(RELU, tmp_path, change)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    data = onnx.parser.parse_model(RELU).SerializeToString().replace(b"Relu", b"Re\xff\xfe")
    (tmp_path / "m.onnx").write_bytes(data)
    with refused("E213", "UTF-8"):
        ew.load(tmp_path / "m.onnx")


def test_functions_that_explode_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = ['<domain: "f", opset_import: ["" : 17, "f" : 1]> f0 (x) => (y) { y = Neg (x) }']
    for level in range(1, 30):
        calls = " ".join(f"v{i + 1} = f.f{level - 1} (v{i})" for i in range(10)).replace("(v0)", "(x)")
        bodies.append(f'<domain: "f", opset_import: ["" : 17, "f" : 1]> f{level} (x) => (v10) {{ {calls} }}')
    text = '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2] x) => (float[2] y) { y = f.f29 (x) }'
    with refused("E213", "functions expanded", str(_functions._MOST_EXPANDED_NODES)):
        load_text("\n".join([text, *bodies]), tmp_path)


def test_a_sparse_tensor_cannot_ask_for_memory(tmp_path: Path) -> None:
    def add(proto: Any) -> None:
        sparse = proto.graph.sparse_initializer.add(dims=[2**20, 2**20])
        sparse.values.CopyFrom(numpy_helper.from_array(np.array([1], np.float32), "w"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0], np.int64)))

    with refused("E202", "sparse", "limit"):
        load_text(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Mul (x, w) }', tmp_path, add
        )


# --- mutations ----------------------------------------------------------------------------------------------------------


def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    outcome = fuzzing.fuzz(fuzzing.small_file(), tmp_path / "m.onnx", count=600, seed=7)
    assert outcome.total() == 600
    assert {"loaded", "E201", "E202", "E203", "E204", "E213"} <= set(outcome)
