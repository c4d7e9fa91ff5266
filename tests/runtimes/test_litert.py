"""LiteRT: files without transposes, names that survive, batches, bad input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.metrics import rel_l2
from edgewright.runtimes import litert

#: Graphs of the kinds that must not transpose between layers, and what their ends may need: a detector's head reads its
#: distances along another axis.
FREE = {
    "efficientnet_lite0": 0,
    "resnet18": 0,
    "mobilenet_v2": 0,
    "mobilenet_v3_small": 0,
    "yolo_dfl": 2,
    "retina_shared": 0,
}
PACKS = (
    *("darknet19", "efficientnet", "real_yolofastest_1.1", "resnet", "vgg_crop", "yolov1_local", "yolov2"),
    *("yolov3_tiny", "yolov4_mini", "yolov4_tiny"),
)


def document(bundle: Bundle) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf((bundle.path / "model.tflite").read_bytes(), 0)


def operators(bundle: Bundle) -> Counter[str]:
    """How often each operator is in the file."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    file = document(bundle)
    return Counter(names[file.operatorCodes[item.opcodeIndex].builtinCode] for item in file.subgraphs[0].operators)


def network(text: str, **weights: np.ndarray) -> ew.Model:
    """A Model from the body of an ONNX text."""
    import onnx
    import onnx_ir as ir
    from onnx import numpy_helper, parser

    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for value in list(proto.graph.input):
        if value.name in weights:
            proto.graph.initializer.append(numpy_helper.from_array(weights[value.name], value.name))
            proto.graph.input.remove(value)
    return ew.Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)), name="net")


def agrees(model: ew.Model, folder: Path, feeds: dict[str, np.ndarray], limits: dict[str, float]) -> Bundle:
    """The bundle, after its outputs were compared with the reference's."""
    bundle = ew.convert(model, "litert", folder)
    with ew.open(model, runtime="reference") as original, ew.open(bundle) as opened:
        wanted, got = original.run(feeds), opened.run(feeds)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=limits["rtol"], atol=limits["atol"], err_msg=name)
    return bundle


# --- whole networks


def test_lite0_keeps_its_answers_its_names_and_its_layout(
    tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    model = ew.load("zoo:efficientnet-lite0")
    bundle = ew.convert(model, "litert", tmp_path / "net")
    found = operators(bundle)
    assert found["TRANSPOSE"] == 0
    assert (found["CONV_2D"], found["DEPTHWISE_CONV_2D"]) == (33, 16)
    assert not {"MUL", "RELU6"} & set(found)  # batch norms and activations are part of the layers
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    feeds = {model.inputs[0].name: x}
    inner = [name for name in bundle.tensor_names if name not in feeds][::10]
    with ew.open(model, runtime="onnxruntime") as original, ew.open(bundle) as opened:
        wanted, got = original.run(feeds, inner), opened.run(feeds, inner)
        assert rel_l2(*original.run(feeds).values(), *opened.run(feeds).values()) <= tolerance["float32"]["rel_l2"]
    assert all(rel_l2(wanted[name], got[name]) <= tolerance["float32"]["rel_l2"] for name in inner)
    shapes = {tensor.name.decode(): tensor.shape.tolist() for tensor in document(bundle).subgraphs[0].tensors}
    assert shapes[bundle.tensor_names[model.inputs[0].name]] == [1, 224, 224, 3]


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", ["Flatten(p)", "Squeeze(p, i)"])
def test_pooled_features_lose_their_places_without_a_reshape(
    pool: str, shape: str, tmp_path: Path, tolerance: dict[str, dict[str, float]], rng: np.random.Generator
) -> None:
    model = network(
        f"""net (float[N,3,5,4] x, float[6,3] w) => (float[N,6] y) {{
            i = Constant<value_ints=[2,3]>() p = {pool}(x) flat = {shape} y = Gemm<transB=1>(flat, w) }}""",
        w=rng.standard_normal((6, 3)).astype(np.float32),
    )
    feeds = {"x": rng.standard_normal((2, 3, 5, 4)).astype(np.float32)}
    bundle = agrees(model, tmp_path, feeds, tolerance["float32"])
    assert "RESHAPE" not in operators(bundle)
    assert {"x", "flat", "y"} <= set(bundle.tensor_names)


@pytest.mark.parametrize(("name", "most"), FREE.items())
def test_layers_stand_beside_each_other_without_transposes(
    name: str, most: int, architectures: ModuleType, data: Path, tmp_path: Path
) -> None:
    import onnx

    onnx.save(architectures.load_filled(data / "architectures" / f"{name}.onnx"), tmp_path / "net.onnx")
    bundle = ew.convert(ew.load(tmp_path / "net.onnx"), "litert", tmp_path / "net")
    assert operators(bundle)["TRANSPOSE"] <= most


@pytest.mark.parametrize("pack", PACKS)
def test_every_layer_of_a_darknet_network(
    pack: str, data: Path, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    """Every tensor of the network, and what Darknet itself computed for each layer."""
    folder = data / "darknet-oracle" / pack
    model = ew.load(folder / "net.cfg", options={"weights": str(folder / "net.weights")})
    bundle = ew.convert(model, "litert", tmp_path / "net")
    x = np.load(folder / "input.npy")
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
    feeds = {model.inputs[0].name: x[None]}
    names = [value.name for node in model.ir.graph for value in node.outputs if value.name in bundle.tensor_names]
    rows = {f"layer_{row['index']:03d}": row for row in json.loads((folder / "layers.json").read_text())["layers"]}
    stored = np.load(folder / "outputs.npz")
    with ew.open(model, runtime="onnxruntime") as original, ew.open(bundle) as opened:
        wanted, got = original.run(feeds, names), opened.run(feeds, names)
    assert len(names) >= 20
    for name in names:
        assert rel_l2(wanted[name], got[name]) <= 10 * tolerance["float32"]["rel_l2"], name
    compared = [name for name in stored.files if name in got]
    assert len(compared) >= len(stored.files) // 2
    for name in compared:
        thinned = got[name].reshape(-1)[:: rows[name]["steps"][0]["stride"]]
        assert rel_l2(stored[name], thinned) <= 10 * tolerance["float32"]["rel_l2"], name


def test_half_precision_is_stored_and_gives_the_answers(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    model = ew.load("zoo:efficientnet-lite0")
    whole = ew.convert(ew.compress(model, "float"), "litert", tmp_path / "whole")
    small = ew.convert(ew.compress(model, "fp16"), "litert", tmp_path / "small")
    sizes = [(bundle.path / "model.tflite").stat().st_size for bundle in (whole, small)]
    assert sizes[1] < 0.55 * sizes[0]
    feeds = {model.inputs[0].name: np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    with ew.open(whole) as first, ew.open(small) as second:
        (wanted,), (got,) = first.run(feeds).values(), second.run(feeds).values()
    assert 0 < rel_l2(wanted, got) <= 10 ** (-tolerance["float16"]["sqnr_db"] / 20) * 10  # a network of 50 layers


# --- recurrent layers

RECURRENT = {
    "LSTM": (4, 2, ("forward", "reverse", "bidirectional"), ({},)),
    "GRU": (3, 1, ("forward", "reverse", "bidirectional"), ({"linear_before_reset": 0}, {"linear_before_reset": 1})),
    "RNN": (1, 1, ("forward", "reverse", "bidirectional"), ({},)),
}
CASES = [
    (kind, direction, options, start)
    for kind, (_, _, directions, variants) in RECURRENT.items()
    for direction in directions
    for options in variants
    for start in (False, True)
]


@pytest.mark.parametrize(("kind", "direction", "options", "start"), CASES)
def test_recurrent_layers_know_their_gates(
    kind: str,
    direction: str,
    options: dict[str, int],
    start: bool,
    tmp_path: Path,
    tolerance: dict[str, dict[str, float]],
) -> None:
    gates, states, *_ = RECURRENT[kind]
    ways, rng = 2 if direction == "bidirectional" else 1, np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((ways, gates * 3, 4)), "r": rng.standard_normal((ways, gates * 3, 3)),
        "b": rng.standard_normal((ways, gates * 6)),
    }  # fmt: skip
    extra = ", ".join(f"{key}={value}" for key, value in options.items())
    named = f'hidden_size=3, direction="{direction}"' + (f", {extra}" if extra else "")
    begin = ", , " + ", ".join(f"s{number}" for number in range(states)) if start else ""
    inputs = "".join(f", float[{ways},N,3] s{number}" for number in range(states)) if start else ""
    last = "h, c" if states == 2 else "h"
    model = network(
        f"""g (float[5,N,4] x{inputs}, float[{ways},{gates * 3},4] w, float[{ways},{gates * 3},3] r,
        float[{ways},{gates * 6}] b) => (float[5,{ways},N,3] y, float[{ways},N,3] {last.replace(", ", f", float[{ways},N,3] ")})
        {{ y, {last} = {kind}<{named}>(x, w, r, b{begin}) }}""",
        **{name: array.astype(np.float32) for name, array in weights.items()},
    )
    feeds = {
        info.name: rng.standard_normal([2 if size == "N" else size for size in info.shape]).astype(np.float32)
        for info in model.inputs
    }
    agrees(model, tmp_path / "net", feeds, tolerance["float32"])


# --- resizing

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
RESIZES = [("linear", place, "floor") for place in COORDINATES]
RESIZES += [("cubic", place, "floor") for place in ("half_pixel", "align_corners", "asymmetric")]
RESIZES += [
    ("nearest", place, rounding)
    for place in ("half_pixel", "asymmetric", "align_corners")
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
]


@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.5, 2.5), (0.5, 0.75)])
@pytest.mark.parametrize(("mode", "place", "rounding"), RESIZES)
def test_resizing_takes_the_places_that_onnx_means(
    mode: str,
    place: str,
    rounding: str,
    scales: tuple[float, float],
    tmp_path: Path,
    tolerance: dict[str, dict[str, float]],
) -> None:
    model = network(
        f"""g (float[1,2,6,8] x) => (float[A,B,C,D] y) {{ s = Constant<value_floats=[1.0,1.0,{scales[0]},{scales[1]}]>()
        y = Resize<mode="{mode}", coordinate_transformation_mode="{place}", nearest_mode="{rounding}">(x, , s) }}"""
    )
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 8)).astype(np.float32)}
    agrees(model, tmp_path / "net", feeds, tolerance["float32"])


# --- what exporters write in several nodes

GELUS = {
    "half last": "d = Div(x, q) e = Erf(d) p = Add(e, o) m = Mul(x, p) y = Mul(m, h)",
    "half first": "g = Mul(x, h) d = Mul(x, i) e = Erf(d) p = Add(e, o) y = Mul(g, p)",
    "another factor": "d = Mul(x, o) e = Erf(d) p = Add(e, o) m = Mul(x, p) y = Mul(m, h)",
}


@pytest.mark.parametrize("form", GELUS)
def test_gelu_is_one_operator(form: str, tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    numbers = {"q": 2**0.5, "i": 0.5**0.5, "o": 1.0, "h": 0.5}
    model = network(
        f"g (float[2,9] x, float q, float i, float o, float h) => (float[2,9] y) {{ {GELUS[form]} }}",
        **{name: np.array(value, np.float32) for name, value in numbers.items()},
    )
    feeds = {"x": 3 * np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)}
    bundle = agrees(model, tmp_path / "net", feeds, tolerance["float32"])
    assert (operators(bundle) == {"GELU": 1}) == (form != "another factor")


def test_erf_is_exact_near_zero_and_far_from_it(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    x = np.array([0, 1e-30, -1e-4, 0.1, 0.2499, 0.25, -0.2501, 0.5, 1, -2, 3, 5, -30], np.float32)
    model = network(f"g (float[{len(x)}] x) => (float[{len(x)}] y) {{ y = Erf(x) }}")
    agrees(model, tmp_path / "net", {"x": x}, tolerance["float32"])


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_groups_are_normalized_where_they_lie(
    groups: int, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    rng = np.random.default_rng(0)
    model = network(
        f"""g (float[N,3,6,7] x, float[8,3,1,1] w, float[{groups}] s, float[{groups}] b) => (float[N,8,6,7] y) {{
        c = Conv(x, w) t = Constant<value_ints=[0,{groups},-1]>() r = Reshape(c, t) i = InstanceNormalization(r, s, b)
        u = Constant<value_ints=[0,8,6,7]>() y = Reshape(i, u) }}""",
        w=rng.standard_normal((8, 3, 1, 1)).astype(np.float32), s=rng.standard_normal(groups).astype(np.float32),
        b=rng.standard_normal(groups).astype(np.float32),
    )  # fmt: skip
    feeds = {"x": rng.standard_normal((2, 3, 6, 7)).astype(np.float32)}
    assert operators(agrees(model, tmp_path / "net", feeds, tolerance["float32"]))["TRANSPOSE"] == 0


def test_weights_stored_in_integers_count_as_their_floats(
    tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    rng = np.random.default_rng(0)
    model = network(
        """g (float[3,8] x, int8[8,5] w, float[2,5] s) => (float[3,5] y) {
        d = DequantizeLinear<axis=0, block_size=4>(w, s) y = MatMul(x, d) }""",
        w=rng.integers(-127, 127, (8, 5)).astype(np.int8), s=rng.uniform(0.1, 1, (2, 5)).astype(np.float32),
    )  # fmt: skip
    feeds = {"x": rng.standard_normal((3, 8)).astype(np.float32)}
    agrees(model, tmp_path / "net", feeds, tolerance["float32"])


def test_a_product_of_more_axes_than_its_kernels_take(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    rng = np.random.default_rng(0)
    model = network(
        "g (float[N,2,1,2,2,2,6] x, float[6,3] w) => (float[N,2,1,2,2,2,3] y) { y = MatMul(x, w) }",
        w=rng.standard_normal((6, 3)).astype(np.float32),
    )
    for batch in (1, 3):
        feeds = {"x": rng.standard_normal((batch, 2, 1, 2, 2, 2, 6)).astype(np.float32)}
        agrees(model, tmp_path / f"net{batch}", feeds, tolerance["float32"])


@pytest.mark.parametrize(("inputs", "bias"), [(1, (1,)), (1, (1, 1)), (3, (1,)), (1, (2, 8)), (3, (2, 1))])
def test_biases_that_are_no_vector(
    inputs: int, bias: tuple[int, ...], tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    rng = np.random.default_rng(0)
    shape = ",".join(map(str, bias))
    model = network(
        f"g (float[2,{inputs}] x, float[{inputs},8] w, float[{shape}] b) => (float[2,8] y) {{ y = Gemm<alpha=0.5>(x, w, b) }}",
        w=rng.standard_normal((inputs, 8)).astype(np.float32), b=rng.standard_normal(bias).astype(np.float32),
    )  # fmt: skip
    agrees(model, tmp_path / "net", {"x": rng.standard_normal((2, inputs)).astype(np.float32)}, tolerance["float32"])


# --- batches and parts


def test_sizes_inside_the_file_follow_the_batch(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    """A transposed convolution and an Expand hold the batch in constants; a Reshape merges it with another axis."""
    rng = np.random.default_rng(0)
    model = network(
        """g (float[N,2,3,4] x, float[2,2,2,2] w) => (float[A,B] y) {
        t = ConvTranspose<strides=[2,2]>(x, w)  e = Constant<value_ints=[1,2,6,8]>()  u = Expand(t, e)
        s = Constant<value_ints=[-1,8]>()  y = Reshape(u, s) }""",
        w=rng.standard_normal((2, 2, 2, 2)).astype(np.float32),
    )
    for batch in (1, 3, 5, 2, 1):
        feeds = {"x": rng.standard_normal((batch, 2, 3, 4)).astype(np.float32)}
        agrees(model, tmp_path / f"net{batch}{rng.integers(10**9)}", feeds, tolerance["float32"])


def test_parts_between_any_tensors(tmp_path: Path) -> None:
    model = network(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Relu(x) p = MaxPool<kernel_shape=[1,1]>(a) b = Neg(p) y = Add(a, b) }"
    )
    bundle = ew.convert(model, "litert", tmp_path / "net")
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    with ew.open(bundle, cut=Cut(("a", "b"), ("y",))) as part:
        np.testing.assert_array_equal(part.run({"a": x, "b": 2 * x})["y"], 3 * x)
    with pytest.raises(EdgewrightError, match="do not determine its outputs: `x` must be given") as caught:
        ew.open(bundle, cut=Cut(("b",), ("y",)))
    assert caught.value.code == "E231"
    with pytest.raises(EdgewrightError, match="no tensor `bb` to show; did you mean `b`"):
        ew.open(bundle, cut=Cut(None, ("bb",)))


def test_the_readme_runs_the_file_without_edgewright(tmp_path: Path) -> None:
    model = network("g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Neg(x) }")
    bundle = ew.convert(model, "litert", tmp_path / "net")
    code = (bundle.path / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    names: dict[str, Any] = {"x": x}
    code = code.replace('"model.tflite"', repr(str(bundle.path / "model.tflite"))).replace("...", "x")
    exec(code, names)
    np.testing.assert_array_equal(names["outputs"]["y"], -x)


# --- bad input


def test_an_unknown_operator_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = network("g (float[1,1,4,4] x, float[1,2,2,2] p) => (float[1,1,2,2] y) { a = Relu(x) y = GridSample(a, p) }")
    (problem,) = litert.supports(model.ir)
    assert (problem.op_type, "y" in problem.node) == ("GridSample", True)
    with pytest.raises(EdgewrightError, match="GridSample") as caught:
        ew.convert(model, "litert", tmp_path / "net")
    assert caught.value.code == "E210"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (double[4] x) => (double[4] y) { y = Relu(x) }", "float64"),
        ("g (float[1,1,4,4] x, float[2,1,2,2] w) => (float[1,2,3,3] y) { y = Conv(x, w) }", "weights must be constant"),
        ("g (float[1,1,4,4,4] x) => (float[1,1,3,3,3] y) { y = MaxPool<kernel_shape=[2,2,2]>(x) }", "3 axes"),
        ("g (float[N,M] x) => (float[N,M] y) { y = Relu(x) }", "2 open sizes"),
        (
            "g (float[2,1,1,1,1,3,2,2] x) => (float[2,1,1,1,1,1,3,2,2] y) <int64[1] i = {2}> { y = Unsqueeze(x, i) }",
            "8 axes at most, and this would make 9",
        ),
    ],
)
def test_refusals_say_why(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError) as caught:
        ew.convert(network(text), "litert", tmp_path / "net")
    assert caught.value.code == "E210"
    assert reason in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_wide_integers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = network("g (int64[2] x) => (int64[2] y) { y = Add(x, x) }")
    with ew.open(ew.convert(model, "litert", tmp_path / "net")) as session:
        assert session.run({"x": np.array([3, -4])})["y"].tolist() == [6, -8]
        with pytest.raises(EdgewrightError, match="beyond 32 bits") as caught:
            session.run({"x": np.array([2**40, 0])})
    assert caught.value.code == "E230"


@pytest.mark.parametrize("damage", ["cut", "zeros", "foreign"])
def test_a_damaged_file_is_an_error_of_ours(damage: str, tmp_path: Path) -> None:
    model = network("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    bundle = ew.convert(model, "litert", tmp_path / "net")
    file = bundle.path / "model.tflite"
    content = file.read_bytes()
    file.write_bytes({"cut": content[:40], "zeros": bytes(200), "foreign": b"not a network" * 20}[damage])
    with pytest.raises(EdgewrightError) as caught:
        litert.open(bundle, threads=1)
    assert caught.value.code == "E232"


def test_inputs_that_do_not_fit_a_part(tmp_path: Path) -> None:
    model = network("g (float[1,4] x) => (float[1,4] y) { a = Relu(x) y = Neg(a) }")
    bundle = ew.convert(model, "litert", tmp_path / "net")
    with (
        ew.open(bundle, cut=Cut(("a",), ("y",))) as part,
        pytest.raises(EdgewrightError, match="takes float32") as caught,
    ):
        part.run({"a": np.zeros((1, 5), np.float32)})
    assert caught.value.code == "E230"


TRANSPOSED = {
    "plain": ("strides=[2,2]", (2, 2), 1),
    "cut": ("strides=[2,2], pads=[1,0,1,1]", (3, 3), 1),
    "same": ("strides=[2,2], pads=[1,1,1,1]", (4, 4), 1),
    "beyond": ("strides=[2,2], output_padding=[1,1]", (2, 2), 1),
    "cut and beyond": ("strides=[3,2], pads=[1,0,0,0], output_padding=[2,1]", (3, 2), 1),
    "groups": ("group=2, strides=[2,1]", (3, 2), 2),
    "upper": ('auto_pad="SAME_UPPER", strides=[2,2]', (3, 3), 1),
    "lower": ('auto_pad="SAME_LOWER", strides=[2,2]', (3, 3), 1),
}


@pytest.mark.parametrize("act", [False, True])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolutions(case: str, act: bool, tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    attributes, (height, width), groups = TRANSPOSED[case]
    rng = np.random.default_rng(0)
    model = network(
        f"""g (float[N,4,3,5] x, float[4,{6 // groups},{height},{width}] w, float[6] b) => (float[A,B,C,D] y) {{
        c = ConvTranspose<{attributes}>(x, w, b) {"y = Relu(c)" if act else "y = Identity(c)"} }}""",
        w=rng.standard_normal((4, 6 // groups, height, width)).astype(np.float32),
        b=rng.standard_normal(6).astype(np.float32),
    )
    for batch in (1, 2):
        feeds = {"x": rng.standard_normal((batch, 4, 3, 5)).astype(np.float32)}
        agrees(model, tmp_path / f"net{batch}", feeds, tolerance["float32"])
