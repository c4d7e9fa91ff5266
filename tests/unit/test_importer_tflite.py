"""The TFLite importer: layout, names, quantized files, ends, refusals; real weights from file to deployment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.onnx_files import benchmark
from tests.tflite_nets import Constant, Feed, Net, Op, Steps, answers, classifier, interpreter, op, random_feeds, write

import edgewright as ew
from edgewright.formats.tflite.reading import read
from edgewright.importers.tflite._build import build

Tolerance = dict[str, dict[str, float]]
RNG = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    """Tests draw the same weights whichever of them ran before."""
    RNG.bit_generator.state = np.random.default_rng(6).bit_generator.state


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def conv(x: Any, channels: int, inputs: int, **fields: Any) -> Op:
    given = {"padding": 0, "stride_w": 1, "stride_h": 1} | fields
    return op("CONV_2D", x, weights(channels, 3, 3, inputs), weights(channels), options="Conv2DOptions", **given)


def kinds(model: ew.Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def refusal(path: Path, **options: Any) -> ew.EdgewrightError:
    with pytest.raises(ew.EdgewrightError) as refused:
        ew.load(path, **options)
    return refused.value


# --- layout and names ---------------------------------------------------------------------------------------------------


def block() -> Op:
    x = conv(Feed((1, 16, 12, 3)), 8, 3, fused_activation_function=1)
    y = op("RELU6", op("MUL", x, weights(8), options="MulOptions"))
    y = op("ADD", y, x, options="AddOptions")
    y = op("PAD", y, np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    pooled = op(
        "MAX_POOL_2D", y, options="Pool2DOptions", padding=1, stride_w=2, stride_h=2, filter_width=2, filter_height=2
    )
    gate = op("LOGISTIC", op("MEAN", pooled, np.array([1, 2], np.int32), options="ReducerOptions", keep_dims=True))
    y = op(
        "CONCATENATION", op("MUL", pooled, gate, options="MulOptions"), pooled, options="ConcatenationOptions", axis=3
    )
    return conv(op("SOFTMAX", y, options="SoftmaxOptions", beta=1.0), 4, 16)


def test_an_image_is_transposed_where_it_enters_and_leaves_alone(tmp_path: Path) -> None:
    model = ew.load(write(tmp_path / "net.tflite", block()))
    assert [str(info) for info in model.inputs] == ["in0 float32[1, 16, 12, 3]"]
    assert [str(info) for info in model.outputs] == ["op11 float32[1, 9, 7, 4]"]
    transposes = [node for node in model.ir.graph if node.op_type == "Transpose"]
    assert [node.inputs[0].name for node in transposes] == ["in0", "op11:nchw"]


def test_tensors_keep_their_names(tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    path = write(tmp_path / "net.tflite", block())
    model = ew.load(path)
    names = {value.name for node in model.ir.graph for value in node.outputs}
    assert {f"op{number}" for number in range(12)} <= names
    network = build(read(path), path.name, read(path).outputs)
    assert {f"op{number}" for number in range(11)} <= network.layouts
    feeds = random_feeds(model, rng)
    made = interpreter(path)
    made.set_tensor(made.get_input_details()[0]["index"], feeds["in0"])
    made.invoke()
    details = {detail["name"]: detail["index"] for detail in made.get_tensor_details()}
    inner = [f"op{number}" for number in range(11)]
    with ew.open(model, runtime="onnxruntime") as session:
        found = session.run(feeds, outputs=inner)
    for name in inner:
        expected = made.get_tensor(details[name]).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found[name], expected, tolerance["float32"]["rtol"], tolerance["float32"]["atol"])


def test_layers_over_a_sequence_are_not_transposed_in_between(tmp_path: Path) -> None:
    x: Any = Feed((1, 20, 3))
    for channels, inputs in ((4, 3), (5, 4), (6, 5)):
        wide = op("EXPAND_DIMS", x, np.array(1, np.int32))
        x = op("SQUEEZE", conv(wide, channels, inputs), options="SqueezeOptions", squeeze_dims=[1])
    model = ew.load(write(tmp_path / "net.tflite", x))
    assert kinds(model).count("Transpose") == 2


def test_channels_are_shuffled_in_their_place(tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    x = conv(Feed((1, 6, 5, 3)), 8, 3)
    groups = op("RESHAPE", x, np.array([1, 6, 5, 2, 4], np.int32))
    mixed = op(
        "RESHAPE", op("TRANSPOSE", groups, np.array([0, 1, 2, 4, 3], np.int32)), np.array([1, 6, 5, 8], np.int32)
    )
    path = write(tmp_path / "net.tflite", conv(mixed, 4, 8))
    model = ew.load(path)
    ranks = [node.inputs[0].shape.rank() for node in model.ir.graph if node.op_type == "Transpose"]
    assert ranks == [4, 5, 4]
    feeds = random_feeds(model, rng)
    (expected,) = answers(path, feeds).values()
    with ew.open(model, runtime="onnxruntime") as session:
        (found,) = session.run(feeds).values()
    np.testing.assert_allclose(found, expected, tolerance["float32"]["rtol"], tolerance["float32"]["atol"])


def test_constants_without_values_are_shapes_of_numbers(tmp_path: Path) -> None:
    model = ew.load(write(tmp_path / "net.tflite", op("RESHAPE", Feed((1, 1)), np.zeros(0, np.int32))))
    assert [str(info) for info in model.outputs] == ["op0 float32[]"]


def test_names_that_are_missing_or_there_twice_become_unique(tmp_path: Path) -> None:
    net = Net()
    x = net.add(Feed((1, 4)))
    first = net.operator(op("ABS", Feed((1, 4))))
    second = net.operator(op("NEG", Feed((1, 4))))
    for index, name in zip((x, *first, *second), ("a", "", "a"), strict=True):
        net.graph.tensors[index].name = name
    net.graph.operators[0].inputs, net.graph.operators[1].inputs = [x], first
    net.graph.inputs = [x]
    path = tmp_path / "net.tflite"
    path.write_bytes(net.bytes(*second))
    model = ew.load(path)
    assert [value.name for node in model.ir.graph for value in node.outputs] == [f"tensor_{first[0]}", f"a:{second[0]}"]


def test_a_batch_that_may_change_is_symbolic(tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    image = Feed((1, 8, 6, 3), signature=(-1, 8, 6, 3))
    flat = op("RESHAPE", conv(image, 4, 3), np.array([-1, 192], np.int32))
    path = write(
        tmp_path / "net.tflite", op("FULLY_CONNECTED", flat, weights(5, 192), None, options="FullyConnectedOptions")
    )
    model = ew.load(path)
    assert [str(info) for info in (*model.inputs, *model.outputs)] == ["in0 float32[N, 8, 6, 3]", "op2 float32[N, 5]"]
    feeds = {"in0": rng.standard_normal((3, 8, 6, 3)).astype(np.float32)}
    with ew.open(model, runtime="onnxruntime") as session:
        found = session.run(feeds)["op2"]
    single = [answers(path, {"in0": image[None]})["op2"] for image in feeds["in0"]]
    np.testing.assert_allclose(
        found, np.concatenate(single), tolerance["float32"]["rtol"], tolerance["float32"]["atol"]
    )


def test_shapes_that_are_computed_at_run_time_come_from_the_file(tmp_path: Path) -> None:
    image = Feed((1, 8, 6, 3), signature=(-1, 8, 6, 3))
    shape = op("SHAPE", image, options="ShapeOptions", out_type=2, outputs=["int32"])
    batch = op("STRIDED_SLICE", shape, *(np.array([n], np.int32) for n in (0, 1, 1)), options="StridedSliceOptions",
               shrink_axis_mask=1, outputs=["int32"])  # fmt: skip
    target = op("PACK", batch, np.array(144, np.int32), options="PackOptions", values_count=2, outputs=["int32"])
    result = op("RESHAPE", image, target, shape=(1, 144), signature=(-1, 144))
    model = ew.load(write(tmp_path / "net.tflite", result))
    assert kinds(model) == ["Reshape"]
    assert [str(info) for info in model.outputs] == ["op3 float32[N, 144]"]


# --- quantized files ----------------------------------------------------------------------------------------------------

IN: Steps = (0.0213, 3)


def quantized(shape: tuple[int, ...], axis: int, dtype: str = "int8") -> Constant:
    array = RNG.integers(-127, 128, shape).astype(np.int8)
    if dtype == "uint8":
        return Constant((array.astype(np.int16) + 128).astype(np.uint8), (0.01, 120))
    scales = RNG.uniform(0.005, 0.02, shape[axis])
    return Constant(array, (scales, np.zeros(shape[axis], int), axis))


def int8_conv(x: Any, channels: int, inputs: int, *, dtype: str = "int8", **fields: Any) -> Op:
    bias = RNG.integers(-2000, 2000, channels).astype(np.int32)
    given = {"padding": 0, "stride_w": 1, "stride_h": 1, "outputs": [dtype], "steps": (0.05, 10)} | fields
    return op(
        "CONV_2D", x, quantized((channels, 3, 3, inputs), 0, dtype), bias, options="Conv2DOptions", version=3, **given
    )


INTEGERS: dict[str, Any] = {
    "conv": lambda: int8_conv(Feed((1, 9, 7, 4), "int8", IN), 5, 4),
    "conv relu6": lambda: int8_conv(
        Feed((1, 9, 7, 4), "int8", IN), 5, 4, fused_activation_function=3, steps=(6 / 255, -128)
    ),
    "conv relu": lambda: int8_conv(Feed((1, 9, 7, 4), "int8", IN), 5, 4, fused_activation_function=1),
    "conv of bytes": lambda: int8_conv(
        Feed((1, 9, 7, 4), "uint8", (0.0213, 120)), 5, 4, dtype="uint8", steps=(0.1, 100)
    ),
    "depthwise": lambda: op(
        "DEPTHWISE_CONV_2D",
        Feed((1, 9, 7, 4), "int8", IN),
        quantized((1, 3, 3, 4), 3),
        RNG.integers(-500, 500, 4).astype(np.int32),
        options="DepthwiseConv2DOptions",
        padding=0,
        stride_w=2,
        stride_h=2,
        depth_multiplier=1,
        outputs=["int8"],
        steps=(0.04, -3),
        version=3,
    ),
    "fully connected": lambda: op(
        "FULLY_CONNECTED",
        Feed((2, 12), "int8", IN),
        Constant(RNG.integers(-127, 128, (5, 12)).astype(np.int8), (0.01, 0)),
        RNG.integers(-500, 500, 5).astype(np.int32),
        options="FullyConnectedOptions",
        outputs=["int8"],
        steps=(0.05, 2),
        version=4,
    ),
    "add": lambda: op(
        "ADD",
        Feed((1, 5, 6, 4), "int8", IN),
        Feed((1, 5, 6, 4), "int8", (0.0317, -5)),
        options="AddOptions",
        outputs=["int8"],
        steps=(0.0429, 1),
        version=2,
    ),
    "add a constant": lambda: op(
        "ADD",
        Feed((1, 6), "int8", IN),
        Constant(np.arange(6, dtype=np.int8), (0.1, 1)),
        options="AddOptions",
        outputs=["int8"],
        steps=(0.0429, 1),
        version=2,
    ),
    "max pool": lambda: op(
        "MAX_POOL_2D",
        Feed((1, 9, 7, 4), "int8", IN),
        options="Pool2DOptions",
        padding=0,
        stride_w=2,
        stride_h=2,
        filter_width=3,
        filter_height=3,
        outputs=["int8"],
        steps=IN,
        version=2,
    ),
    "pad": lambda: op(
        "PAD",
        Feed((1, 3, 4), "int8", IN),
        np.array([[0, 0], [1, 1], [0, 2]], np.int32),
        outputs=["int8"],
        steps=IN,
        version=2,
    ),
    "concatenation": lambda: op(
        "CONCATENATION",
        Feed((1, 4), "int8", IN),
        Feed((1, 4), "int8", IN),
        options="ConcatenationOptions",
        axis=1,
        outputs=["int8"],
        steps=IN,
        version=2,
    ),
    "logistic": lambda: op(
        "LOGISTIC", Feed((1, 64), "int8", (0.05, 4)), outputs=["int8"], steps=(1 / 256, -128), version=2
    ),
    "softmax": lambda: op(
        "SOFTMAX",
        Feed((2, 10), "int8", IN),
        options="SoftmaxOptions",
        beta=1.0,
        outputs=["int8"],
        steps=(1 / 256, -128),
        version=2,
    ),
    "quantize": lambda: op("QUANTIZE", Feed((3, 40)), outputs=["int8"], steps=(0.02, 7)),
    "requantize": lambda: op("QUANTIZE", Feed((3, 40), "int8", IN), outputs=["int8"], steps=(0.03, 7), version=2),
    "dequantize": lambda: op("DEQUANTIZE", Feed((3, 40), "int8", IN), version=2),
}


@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_integers(name: str, tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    path = write(tmp_path / "net.tflite", INTEGERS[name]())
    model = ew.load(path)
    feeds = random_feeds(model, rng)
    (expected,) = answers(path, feeds).values()
    with ew.open(model, runtime="reference") as session:
        (found,) = session.run(feeds).values()
        assert found.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, tolerance["float32"]["rtol"], tolerance["float32"]["atol"])
            return
        distance = np.abs(found.astype(int) - expected.astype(int))
        assert distance.max() <= 1
        if name not in ("softmax", "logistic") and distance.any():  # these two are tables in LiteRT
            # LiteRT rounds twice, by a fixed-point multiplier: only what lies on the edge of a step goes the other way.
            assert edge_distance(model, session, feeds)[distance > 0].max() <= tolerance["int8"]["edge"]


def edge_distance(model: ew.Model, session: ew.session.Session, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """How far each number of the integer output is from the edge between two steps before it is rounded, 0 to 0.5."""
    node, order = model.ir.graph.outputs[0].producer(), None
    if node.op_type == "Transpose":
        order, node = node.attributes.get_ints("perm"), node.inputs[0].producer()
    assert node.op_type == "QuantizeLinear"
    (value,) = session.run(feeds, [node.inputs[0].name]).values()
    steps = value.astype(np.float64) / node.inputs[1].const_value.numpy()
    return (
        np.abs(steps - np.floor(steps) - 0.5)
        if order is None
        else np.abs(steps - np.floor(steps) - 0.5).transpose(order)
    )


def test_integer_layers_stay_layers_of_integers(tmp_path: Path) -> None:
    """What runtimes look for: integer weights by channel and an integer bias, each behind its DequantizeLinear."""
    model = ew.load(write(tmp_path / "net.tflite", INTEGERS["conv relu6"]()))
    assert model.precision == "int8"
    assert kinds(model).count("Clip") == 0  # the range of the steps is that of the activation
    (layer,) = (node for node in model.ir.graph if node.op_type == "Conv")
    sources = [value.producer() for value in layer.inputs]
    assert [source.op_type for source in sources] == ["DequantizeLinear"] * 3
    assert [source.inputs[0].dtype.name for source in sources] == ["INT8", "INT8", "INT32"]
    assert [source.inputs[1].shape.rank() for source in sources] == [0, 1, 1]


def test_weights_alone_may_be_integers(tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    held = op("DEQUANTIZE", quantized((5, 3, 3, 4), 0), version=5)
    image = Feed((1, 8, 8, 4))
    path = write(
        tmp_path / "net.tflite",
        op("CONV_2D", image, held, weights(5), options="Conv2DOptions", padding=0, stride_w=1, stride_h=1),
    )
    model = ew.load(path)
    assert model.precision == "fp32"
    assert kinds(model).count("Transpose") == 2
    assert any(value.dtype is not None and value.dtype.name == "INT8" for value in model.ir.graph.initializers.values())
    feeds = random_feeds(model, rng)
    (expected,) = answers(path, feeds).values()
    with ew.open(model, runtime="onnxruntime") as session:
        (found,) = session.run(feeds).values()
    np.testing.assert_allclose(found, expected, tolerance["float32"]["rtol"], tolerance["float32"]["atol"])


def test_four_bits_are_unpacked(tmp_path: Path) -> None:
    net = Net()
    x = net.add(Feed((1, 5)))
    packed = np.array([0x21, 0x83, 0x0F], np.uint8)
    w = net.tensor("w", (1, 5), "int4", data=packed.tobytes(), steps=(0.5, 0))
    made = net.operator(op("FULLY_CONNECTED", None, None, None, options="FullyConnectedOptions"))
    net.graph.operators[0].inputs = [x, w, -1]
    path = tmp_path / "net.tflite"
    path.write_bytes(net.bytes(*made))
    with ew.open(ew.load(path), runtime="reference") as session:
        (found,) = session.run({"in0": np.array([[1, 10, 100, 1000, 10000]], np.float32)}).values()
    assert found.item() == 0.5 * (1 + 20 + 300 - 8000 - 10000)


# --- ends and refusals --------------------------------------------------------------------------------------------------


def test_custom_operators_are_refused_by_name_and_can_be_left_out(tmp_path: Path) -> None:
    boxes = conv(Feed((1, 8, 8, 3)), 4, 3)
    net = op("CUSTOM", boxes, op("ABS", weights(3)), custom="TFLite_Detection_PostProcess", outputs=["float32"] * 4)
    path = write(tmp_path / "net.tflite", net)
    error = refusal(path)
    assert error.code == "E204"
    assert "custom operator `TFLite_Detection_PostProcess`" in error.message
    assert "operator 2" in error.message
    assert error.hint == "end in front of them: --set tflite.outputs=op0"
    model = ew.load(path, outputs=("op0",))
    assert [info.name for info in model.outputs] == ["op0"]
    assert refusal(path, outputs=("op",)).code == "E101"


def test_no_memory_or_time_is_taken_for_tables_that_are_shared(tmp_path: Path) -> None:
    """2000 entries that lead to one tensor with 2000 sizes: a file of 20 kB that would become 4 million numbers."""
    import ai_edge_litert.schema_py_generated as schema
    import flatbuffers

    builder, count = flatbuffers.Builder(1024), 2000
    sizes = builder.CreateNumpyVector(np.ones(count, np.int32))
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, sizes)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    path = tmp_path / "net.tflite"
    path.write_bytes(bytes(builder.Output()))
    error = refusal(path)
    assert error.code == "E201"
    assert "over and over" in error.message


def bad_conv(**fields: Any) -> Op:
    return conv(Feed((1, 8, 8, 3)), 4, 3, **fields)


BAD: dict[str, tuple[Any, str, str]] = {
    "stride": (lambda: bad_conv(stride_w=0), "E216", "option `stride_w` is 0"),
    "dilation": (lambda: bad_conv(dilation_h_factor=-1), "E216", "option `dilation_h_factor` is -1"),
    "activation": (lambda: bad_conv(fused_activation_function=4), "E204", "its activation TANH"),
    "channels": (lambda: conv(Feed((1, 8, 8, 5)), 4, 3), "E216", "weights for 3 channels, but the input has 5"),
    "axes": (lambda: conv(Feed((8, 8, 3)), 4, 3), "E216", "has 3 axes, but must have 4"),
    "axis": (
        lambda: op("CONCATENATION", Feed((1, 2)), options="ConcatenationOptions", axis=2),
        "E216",
        "axis 2 is outside of 2 axes",
    ),
    "options": (
        lambda: op("CONCATENATION", Feed((1, 2)), options="AddOptions"),
        "E216",
        "it has AddOptions, which lack `axis`",
    ),
    "shapes": (
        lambda: op("ADD", Feed((1, 2)), Feed((1, 3)), options="AddOptions"),
        "E216",
        "its inputs do not fit together",
    ),
    "computed": (lambda: op("PAD", Feed((1, 2)), Feed((2, 2), "int32")), "E209", "is computed when it runs"),
    "missing": (lambda: op("ADD", Feed((1, 2)), options="AddOptions"), "E216", "it needs input 1, and has 1"),
    "text": (lambda: op("ABS", Feed((1, 2), "string")), "E204", "of type string"),
    "reshape": (
        lambda: op("RESHAPE", Feed((1, 2)), np.array([3], np.int32)),
        "E216",
        "[1, 2] cannot take the shape [3]",
    ),
    "scale": (lambda: op("QUANTIZE", Feed((1, 2)), outputs=["int8"], steps=(0.0, 0)), "E202", "has a scale of 0.0"),
    "state": (lambda: op("VAR_HANDLE", outputs=["resource"]), "E204", "VAR_HANDLE"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_cannot_be_is_refused_with_the_operator(name: str, tmp_path: Path) -> None:
    make, code, text = BAD[name]
    error = refusal(write(tmp_path / "net.tflite", make()))
    assert (error.code, text in error.message) == (code, True), error
    assert "`net.tflite`" in error.message


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "net.tflite", block())
    whole = path.read_bytes()
    for data, text in (
        (b"", "TFL3"),
        (b"PK\3\4 a zip file", "TFL3"),
        (whole[:100], "byte"),
        (b"\xff" * 4 + b"TFL3", "byte"),
    ):
        path.write_bytes(data)
        error = refusal(path)
        assert error.code == "E201"
        assert text in error.message


def test_data_that_does_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.tensor("w", (1000, 1000, 1000), "float32", data=b"1234")
    path = tmp_path / "net.tflite"
    path.write_bytes(net.bytes(0))
    error = refusal(path)
    assert error.code == "E202"
    assert "needs 4000000000 bytes, but has 4" in error.message


def test_order_is_checked(tmp_path: Path) -> None:
    net = Net()
    made = net.operator(op("ABS", op("NEG", Feed((1, 2)))))
    net.graph.operators.reverse()
    path = tmp_path / "net.tflite"
    path.write_bytes(net.bytes(*made))
    assert refusal(path).code in ("E203", "E216")
    net.graph.operators.reverse()
    net.graph.operators.append(net.graph.operators[-1])
    path.write_bytes(net.bytes(*made))
    assert refusal(path).code == "E203"


def test_mutated_files_are_loaded_or_refused(tmp_path: Path) -> None:
    for name, make in {"float": block, "int8": INTEGERS["conv relu6"]}.items():
        data = write(tmp_path / f"{name}.tflite", make()).read_bytes()
        outcome = benchmark("fuzz_tflite").fuzz(data, tmp_path, count=60, seed=3)
        assert outcome.results["loaded"] > 3
        assert len(outcome.results) > 3


def test_biases_at_the_limit_are_warned_of(tmp_path: Path) -> None:
    bias = np.array([-(2**31), 0, 5, 7, 9], np.int32)
    image = Feed((1, 9, 7, 4), "int8", IN)
    made = op("CONV_2D", image, quantized((5, 3, 3, 4), 0), bias, options="Conv2DOptions", padding=0, stride_w=1, stride_h=1,
              outputs=["int8"], steps=(0.05, 10), version=3)  # fmt: skip
    with pytest.warns(ew.EdgewrightWarning, match="near the limit of int32"):
        ew.load(write(tmp_path / "net.tflite", made))


# --- real weights -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its trained weights as a .tflite file."""
    folded = ew.compress(ew.load("zoo:efficientnet-lite0"), "float")
    return write(tmp_path_factory.mktemp("lite0") / "lite0.tflite", classifier(folded))


def test_every_tensor_of_a_real_network(lite0: Path, data: Path, tolerance: Tolerance) -> None:
    model = ew.load(lite0)
    assert kinds(model).count("Transpose") == 1
    layouts = build(read(lite0), lite0.name, read(lite0).outputs).layouts
    spec = {"inputs": {"in0": {"kind": "image", "size": [224, 224], "layout": "nhwc"}}, "task": "classify"}
    model = model.with_spec(ew.Spec.from_json(spec))
    sample = next(iter(ew.Samples.open(data / "imagenet-sample", model)))
    made = interpreter(lite0)
    made.set_tensor(made.get_input_details()[0]["index"], sample.arrays["in0"])
    made.invoke()
    details = {detail["name"]: detail["index"] for detail in made.get_tensor_details()}
    names = [value.name for node in model.ir.graph for value in node.outputs if value.name in details]
    assert len(names) > 95
    with ew.open(model, runtime="onnxruntime") as session:
        found = session.run(sample.arrays, outputs=names)
    for name in names:
        expected, got = made.get_tensor(details[name]), found[name]
        expected = expected.transpose(0, 3, 1, 2) if name in layouts else expected
        # Rounding adds up over a hundred layers: the whole network's tolerance, not that of one layer.
        assert np.linalg.norm(got - expected) <= tolerance["float32"]["rel_l2"] * np.linalg.norm(expected), name


def test_the_command_line_reads_and_deploys_it(lite0: Path, data: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    text = {"inputs": {"in0": {"kind": "image", "size": [224, 224], "layout": "nhwc"}}, "task": "classify"}
    spec.write_text(json.dumps(text))
    shown = _edgewright("inspect", str(lite0))
    assert "in0" in shown
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo in sorted((data / "imagenet-sample").glob("*.jpg"))[:40]:
        (photos / photo.name).symlink_to(photo)
    out = tmp_path / "run"
    _edgewright(
        "deploy", str(lite0), "--samples", str(photos), "--spec", str(spec), "--recipe", "float", "--out", str(out)
    )
    assert (out / "outcome.json").is_file()


def _edgewright(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "edgewright", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout
