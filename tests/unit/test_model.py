"""Model: identity by hash, saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgewright as ew
from edgewright import model as model_module
from edgewright.model import IR_VERSION, OPSET_VERSION, Model, Step
from edgewright.spec import Spec

HEAD = '<ir_version: 10, opset_import: ["" : 21, "local" : 1]>'
BODY = """g (float[N, 2, 8, 8] x) => (float[N, M] y) <float[1] half = {0.5}, int64[2] flat = {0, -1}, float[1] zero = {0}> {
  r = local.scaled <by = 0.1> (x, half)
  p = AveragePool <kernel_shape = [2, 2], pads = [0, 0, 0, 0]> (r)
  s = ReduceSum <keepdims = 0> (p)
  c = Greater (s, zero)
  b = If (c) <then_branch = yes () => (float[N, 2, 7, 7] t) <float[1] w = {2.0}> { t = Mul (p, w) },
              else_branch = no () => (float[N, 2, 7, 7] e) { k = Constant <value = float[1] {3}> () e = Add (p, k) }>
  y = Reshape (b, flat)
}
<domain: "local", opset_import: ["" : 21]>
scaled <by> (a, s) => (o) { f = Constant <value_float : float = @by> () q = Mul (a, f) o = Mul (q, s) }"""


def make(body: str = BODY, **fields: Any) -> Model:
    return Model(ir.from_onnx_text(f"{HEAD} {body}"), **fields)


def test_hash_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    model = make(spec=Spec(task="tensor"))
    again = ew.load(model.save(tmp_path / "m.onnx"))
    # Constants become initializers while loading; from then on nothing changes any more.
    third = ew.load(again.save(tmp_path / "n.onnx"))
    fourth = ew.load(third.save(tmp_path / "n.onnx"))  # over itself
    assert again.hash == third.hash == fourth.hash
    assert again.origin == third.origin == again.hash
    assert (again.inputs, again.outputs) == (third.inputs, third.outputs)


def test_hash_survives_without_constants(tmp_path: Path) -> None:
    model = make("g (float[1, 2] x) => (float[1, 2] y) <float[2] w = {1, 2}> { h = Mul (x, w)  y = Relu (h) }")
    assert ew.load(model.save(tmp_path / "m.onnx")).hash == model.hash
    assert Model(ir.from_proto(model.to_proto())).hash == model.hash


@pytest.mark.parametrize(
    "dtype", ["FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "INT8", "BOOL", "COMPLEX64", "STRING"]
)
def test_hash_of_every_kind_of_weight(dtype: str, tmp_path: Path) -> None:
    kind = ir.DataType[dtype]
    numbers = np.array([0, 1, 1, 0, 1])
    if kind == ir.DataType.STRING:
        tensor: Any = ir.StringTensor([b"a", b"", b"\xff", b"d", b"e"], shape=ir.Shape([5]), name="w")
    else:
        tensor = ir.Tensor(numbers.astype(kind.numpy()), dtype=kind, name="w")
    ir_model = ir.from_onnx_text(f"{HEAD} g (int64[1] x) => (float[N] y) {{ w = Identity (x) y = Cast <to = 1> (w) }}")
    ir_model.graph[0].outputs[0].name = "unused"
    value = ir.Value(name="w", type=ir.TensorType(kind), shape=tensor.shape, const_value=tensor)
    ir_model.graph.register_initializer(value)
    model = Model(ir_model)
    assert ew.load(model.save(tmp_path / "m.onnx")).hash == model.hash


def change_weight(ir_model: ir.Model) -> None:
    ir_model.graph.initializers["half"].const_value = ir.tensor(np.array([0.25], np.float32), name="half")


def change_inner_weight(ir_model: ir.Model) -> None:
    branch = next(node for node in ir_model.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    branch.initializers["w"].const_value = ir.tensor(np.array([9], np.float32), name="w")


def change_inner_constant(ir_model: ir.Model) -> None:
    branch = next(node for node in ir_model.graph if node.op_type == "If").attributes["else_branch"].as_graph()
    branch[0].attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array([9], np.float32)))


def change_attribute(ir_model: ir.Model) -> None:
    ir_model.graph[1].attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [3, 3])


def change_function(ir_model: ir.Model) -> None:
    next(iter(ir_model.functions.values()))[1].op_type = "Add"


def change_operator(ir_model: ir.Model) -> None:
    ir_model.graph[3].op_type = "Less"


def change_input(ir_model: ir.Model) -> None:
    ir_model.graph.inputs[0].shape = ir.Shape([1, 2, 8, 8])


@pytest.mark.parametrize(
    "change",
    [
        change_weight, change_inner_weight, change_inner_constant, change_attribute, change_function, change_operator,
        change_input,
    ],
)  # fmt: skip
def test_hash_sees_what_decides_the_answers(change: Callable[[ir.Model], None]) -> None:
    model = make()
    copy = model.clone_ir()
    assert Model(copy).hash == model.hash
    change(copy)
    assert Model(copy).hash != model.hash


def test_hash_sees_the_spec_and_not_the_paperwork() -> None:
    model = make()
    assert model.with_spec(Spec(task="classify")).hash != model.hash
    copy = model.clone_ir()
    copy.metadata_props["author"] = "nobody"
    copy.graph[0].name, copy.graph.doc_string, copy.producer_name = "other", "words", "tool"
    copy.graph[0].outputs[0].shape = ir.Shape([1, 2, 3, 4])
    assert Model(copy).hash == model.hash


def test_history_and_origin() -> None:
    model = make(name="net")
    step = Step(kind="pass", name="prune", samples=("aa",), stats={"kept": 3})
    later = model.with_ir(model.clone_ir(), step)
    assert (later.history, later.origin, later.name) == ((step,), model.hash, "net")
    assert Step.from_json(step.to_json()) == step
    assert model.with_spec(Spec(task="classify")).origin != model.origin
    assert later.with_spec(Spec(task="classify")).origin == model.hash


def test_saved_files_declare_the_pinned_versions(tmp_path: Path) -> None:
    proto = onnx.load(make().save(tmp_path / "m.onnx"))
    assert proto.ir_version == IR_VERSION
    assert {opset.domain: opset.version for opset in proto.opset_import}[""] == OPSET_VERSION
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_large_weights_go_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _wide()
    monkeypatch.setattr(model_module, "EXTERNAL_DATA_BYTES", 1000)
    path = model.save(tmp_path / "deep" / "wide.onnx")
    assert sorted(file.name for file in path.parent.iterdir()) == ["wide.onnx", "wide.onnx.data"]
    again = ew.load(path)
    assert again.hash == model.hash
    again.save(path)  # over the files that it is mapped from
    assert ew.load(path).hash == model.hash
    with pytest.raises(ew.EdgewrightError, match="too many for one file"):
        model.to_proto()
    monkeypatch.undo()
    assert ew.load(again.save(tmp_path / "inside.onnx")).hash == model.hash
    assert not (tmp_path / "inside.onnx.data").exists()


def _wide() -> Model:
    ir_model = ir.from_onnx_text(
        f"{HEAD} g (float[N, 1000] x, float[1000] w) => (float[N, 1000] y) {{ y = Mul (x, w) }}"
    )
    value = ir_model.graph.inputs.pop()
    value.const_value = ir.tensor(np.arange(1000, dtype=np.float32), name="w")
    ir_model.graph.register_initializer(value)
    return Model(ir_model)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    for path in (tmp_path / "file" / "m.onnx", tmp_path / "folder.onnx"):
        with pytest.raises(ew.EdgewrightError) as caught:
            make().save(path)
        assert caught.value.code == "E105"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_precision_and_inputs() -> None:
    model = make()
    assert model.precision == "fp32"
    assert [str(value) for value in (*model.inputs, *model.outputs)] == ["x float32[N, 2, 8, 8]", "y float32[N, M]"]
