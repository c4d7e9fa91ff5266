"""graph/shapes: static sizes, and inference that drops what is stale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.binary_nets import BIREAL, binary_model

import edgewright as ew
from edgewright.graph.dataflow import add_initializer
from edgewright.graph.shapes import infer, static_shape

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def parse(body: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEAD} {body}")


def test_static_shape_needs_every_size() -> None:
    model = parse("g (float[2,3] a, float[N,3] b, float c) => (float[2,3] y) { y = Relu(a) }")
    assert [static_shape(value) for value in model.graph.inputs] == [(2, 3), None, ()]
    assert static_shape(None) is None
    assert static_shape(ir.Value(name="x")) is None


def test_infer_replaces_stale_shapes() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  y = Neg(a) }")
    inner = model.graph[0].outputs[0]
    inner.shape, inner.type = ir.Shape([9, 9, 9]), ir.TensorType(ir.DataType.INT8)
    infer(model)
    assert static_shape(inner) == (2, 3)
    assert inner.dtype == ir.DataType.FLOAT


def test_infer_reads_shapes_from_small_constants_and_leaves_large_weights_out() -> None:
    model = parse(
        "g (float[4,256] x) => (float[A,B] y) <int64[2] s = {2, 512}> { a = MatMul(x, w)  y = Reshape(a, s) }"
    )
    weight = np.ones((256, 256), np.float32)
    value = add_initializer(model.graph, "w", weight)
    model.graph[0].replace_input_with(1, value)
    infer(model)
    assert static_shape(model.graph[0].outputs[0]) == (4, 256)
    assert model.graph.initializers["w"].const_value is not None
    assert [item.name for item in model.graph.inputs] == ["x"]


def test_infer_gives_no_names_to_unknown_sizes() -> None:
    model = parse("g (float[N,3] x, int64[2] s) => (float[A,B] y) { a = Reshape(x, s)  y = Relu(a) }")
    infer(model)
    shape = model.graph[0].outputs[0].shape
    assert shape is not None
    assert [size.value for size in shape] == [None, None]  # type: ignore[union-attr]


def test_declared_outputs_stay_as_they_are() -> None:
    model = parse("g (float[N,3] x) => (float[batch,3] y) { y = Relu(x) }")
    infer(model)
    assert str(model.graph.outputs[0].shape) == "[batch,3]"


def test_infer_works_inside_subgraphs() -> None:
    model = parse(
        """g (bool c, float[2,3] x) => (float[2,3] y) {
            y = If (c) <then_branch = t () => (float[2,3] p) { h = Neg(x)  p = Relu(h) },
                        else_branch = e () => (float[2,3] q) { q = Abs(x) }>
        }"""
    )
    infer(model)
    inner = next(iter(model.graph.subgraphs()))
    assert static_shape(inner[0].outputs[0]) == (2, 3)


def test_operators_without_schema_keep_what_they_had() -> None:
    head = HEAD.replace("]", ', "own" : 1]')
    model = ir.from_onnx_text(f"{head} g (float[2] x) => (float[2] y) {{ a = own.Thing(x)  y = Relu(a) }}")
    value = model.graph[0].outputs[0]
    value.shape, value.type = ir.Shape([2]), ir.TensorType(ir.DataType.FLOAT)
    infer(model)
    assert static_shape(value) == (2,)


def test_keep_known_fills_up_what_inference_cannot_tell() -> None:
    body = "g (float[2,3] x, int64[2] s) => (float[A,B] y) { a = Reshape(x, s)  y = Relu(a) }"
    for keep, expected in ((True, (3, 2)), (False, None)):
        model = parse(body)
        model.graph[0].outputs[0].shape = ir.Shape([3, 2])
        infer(model, keep_known=keep)
        assert static_shape(model.graph[0].outputs[0]) == expected


def test_infer_goes_on_after_a_group_normalization() -> None:
    model = parse(
        "g (float[1,4,5,5] x) => (float[A,B] y) <float[4] s = {1, 1, 1, 1}, float[4] b = {0, 0, 0, 0}> "
        "{ a = GroupNormalization<num_groups=2>(x, s, b)  y = Flatten(a) }"
    )
    infer(model)
    assert static_shape(model.graph[0].outputs[0]) == (1, 4, 5, 5)
    assert model.graph[0].op_type == "GroupNormalization"


def test_infer_knows_shapes_behind_binary_layers() -> None:
    """What inference says is what the bodies make, by rank and size; without the layers' rule nothing is known there."""
    model = binary_model(BIREAL)
    copy = model.clone_ir()
    infer(copy)
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    with ew.open(model, runtime="onnxruntime", threads=1) as session:
        made = session.run({"x": np.zeros((3, 3, 20, 17), np.float32)}, outputs=tuple(values))
    for name, array in made.items():
        value = values[name]
        assert value.dtype is not None
        assert value.dtype.numpy() == array.dtype
        sizes = tuple(size if isinstance(size, int) else 3 for size in value.shape or ())
        assert sizes == array.shape, name


@pytest.mark.parametrize(
    "call",
    [
        "edgewright.BinaryConv (x)",
        "edgewright.BinaryConv <strides = 1> (x, w)",
        "edgewright.BinaryLinear (x, w)",
        "edgewright.PackSigns (x)",
        "edgewright.Unheard (x, w)",
    ],
)
def test_infer_leaves_malformed_binary_layers(call: str) -> None:
    head = '<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>'
    model = ir.from_onnx_text(
        f"{head} g (uint8[1,4,4,8] x, uint8[5,3,3,8] w, float[1] z) => (float y) {{ a = {call}  s = edgewright.PackSigns(a, z) "
        "b = edgewright.BinaryLinear <channels = 3> (s, z)  y = Identity(b) }"
    )
    infer(model)
    assert static_shape(model.graph[-1].outputs[0]) in (None, ())
