"""What only the runtime `openvino` does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from tests.runtimes.operators import QUICK, Drawn, inputs_for

from edgewright import registry, session
from edgewright.bundle import Bundle
from edgewright.compress import compress
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.graph import serialize
from edgewright.metrics import rel_l2
from edgewright.model import Model
from edgewright.target import Target, host_features

pytest.importorskip("openvino")
HEADER = '<ir_version: 10, opset_import: ["" : 21, "made.up" : 1, "edgewright" : 1]>'
RUNTIME = registry.peek("runtimes", "openvino")
HAS_BF16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(host_features()))


def architecture(architectures: ModuleType, data: Path, name: str) -> tuple[Model, dict[str, np.ndarray]]:
    import onnx_ir as ir

    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    return Model(ir.from_proto(proto), name=name), architectures.example_inputs(proto)


class TestPrecision:
    """OpenVINO would compute fp32 networks in bf16 where the CPU has it, without a word."""

    def compiled(self, opened: session.Session) -> str:
        runner: Any = opened._runner
        request = next(iter(runner._fixed.values()), runner._open)
        return str(request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def test_fp32_networks_run_in_fp32(
        self, architectures: ModuleType, data: Path, tmp_path: Path, tolerance: dict[str, dict[str, float]]
    ) -> None:
        model, feeds = architecture(architectures, data, "mobilenet_v3_small")
        bundle = convert(model, "openvino", tmp_path / "net")
        assert (bundle.precision, bundle.cpu_features, bundle.lossy) == ("fp32", (), False)
        with session.open(bundle) as opened, session.open(model, runtime="onnxruntime") as original:
            assert self.compiled(opened) == "f32"
            for name, array in original.run(feeds).items():
                assert rel_l2(array, opened.run(feeds)[name]) <= tolerance["float32"]["rel_l2"]

    @pytest.mark.skipif(not HAS_BF16, reason="needs a CPU with bf16")
    def test_bf16_is_said_and_needs_the_cpu(
        self, architectures: ModuleType, data: Path, tmp_path: Path, tolerance: dict[str, dict[str, float]]
    ) -> None:
        model, feeds = architecture(architectures, data, "mobilenet_v3_small")
        bundle = convert(model, "openvino", tmp_path / "net", options={"inference_precision": "bf16"})
        assert (bundle.precision, bundle.lossy) == ("bf16", True)
        assert len(bundle.cpu_features) == 1
        with session.open(bundle) as opened, session.open(model, runtime="onnxruntime") as original:
            assert self.compiled(opened) == "bf16"
            (wanted,) = original.run(feeds).values()
            (got,) = opened.run(feeds).values()
        assert rel_l2(wanted, got) > tolerance["float32"]["rel_l2"]  # this is what fp32 must never be

    @pytest.mark.parametrize("precision", ["bf16", "f16"])
    def test_what_the_cpu_lacks_is_refused(self, precision: str, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
        target = Target("openvino", cpu="x86-64-v3")
        with pytest.raises(EdgewrightError, match=f"is {precision}, but CPU `x86-64-v3` has none of") as caught:
            convert(model, target, tmp_path / "net", options={"inference_precision": precision})
        assert caught.value.code == "E103"

    @pytest.mark.parametrize(("cpu", "hint"), [("x86-64-v4", "f32"), ("armv8", "f32"), ("armv8.2-dotprod", "f16")])
    def test_fp16_networks_keep_fp16_weights(
        self, cpu: str, hint: str, architectures: ModuleType, data: Path, tmp_path: Path
    ) -> None:
        """The arithmetic is f16 only where that is faster; the weights are fp16 everywhere."""
        import onnx_ir as ir

        model, _ = architecture(architectures, data, "espcn")
        graph = model.clone_ir()
        for value in graph.graph.initializers.values():
            assert value.const_value is not None
            if value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        for value in (*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs)):
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        half = model.with_ir(graph)
        whole = convert(model, "openvino", tmp_path / "whole")
        bundle = convert(half, Target("openvino", cpu=cpu), tmp_path / "half")
        assert bundle.precision == "fp16"
        assert f'<inference_precision value="{hint}"' in bundle.file("model.xml").read_text(encoding="utf-8")
        assert bundle.files["model.bin"][1] < 0.6 * whole.files["model.bin"][1]
        assert bundle.cpu_features == (("asimdhp",) if hint == "f16" else ())


class TestSupports:
    def test_operators_it_cannot_translate(self) -> None:
        import onnx_ir as ir

        text = """g (float[2] x, float[1,2,6,6] i, float[1,2,3,3] w, float[1,18,4,4] o) => (float[2] y, float[1,1,4,4] z) {
            [one] a = made.up.Frob(x) y = Relu(a) [two] z = DeformConv(i, w, o) }"""
        found = RUNTIME.supports(ir.from_onnx_text(HEADER + text))
        assert [(problem.node, problem.op_type) for problem in found] == [("one", "Frob"), ("two", "DeformConv")]
        assert "No conversion rule found for operations" in found[0].reason

    def test_inside_branches_and_functions(self) -> None:
        import onnx_ir as ir

        text = """g (float[2] x, bool c) => (float[2] y) { f = edgewright.F(x) y = If(c) <
            then_branch = t () => (float[2] u) { [inner] u = made.up.Frob(f) },
            else_branch = e () => (float[2] v) { v = Relu(f) }> }
            <domain: "edgewright", opset_import: ["" : 21, "made.up" : 1]> F (x) => (y) { [body] y = made.up.Blub(x) }"""
        found = RUNTIME.supports(ir.from_onnx_text(HEADER + text))
        assert {(problem.node, problem.op_type) for problem in found} == {("inner", "Frob"), ("body", "Blub")}

    def test_shapes_that_contradict(self) -> None:
        import onnx_ir as ir

        text = "g (float[2,3] x, float[2,3] w) => (float[2,3] y) { [bad] y = MatMul(x, w) }"
        (problem,) = RUNTIME.supports(ir.from_onnx_text(HEADER + text))
        assert (problem.node, problem.op_type) == ("bad", "MatMul")
        assert "Incompatible" in problem.reason


class TestFiles:
    def test_names_of_inner_tensors_survive(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, feeds = architecture(architectures, data, "efficientnet_b0")
        bundle = convert(model, "openvino", tmp_path / "net")
        made = [value.name for node in model.ir.graph for value in node.outputs if value.name]
        assert len([name for name in made if name in bundle.tensor_names]) > 0.95 * len(made)
        names = [name for name in made if name in bundle.tensor_names][::20]
        with session.open(bundle) as opened, session.open(model, runtime="onnxruntime") as original:
            got, wanted = opened.run(feeds, names), original.run(feeds, names)
        for name in names:
            assert rel_l2(wanted[name], got[name]) <= 1e-4

    def test_equal_networks_make_equal_files(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        """Also after the library's counters have moved on, and with the bodies of branches."""
        for name in ("cond_net", "crnn"):
            model, _ = architecture(architectures, data, name)
            first, second = (convert(model, "openvino", tmp_path / f"{name}{number}") for number in range(2))
            assert first.files == second.files

    def test_metadata_stays_out_of_the_xml(self, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
        model.ir.metadata_props["odd key <&> name"] = "secret"
        bundle = convert(model, "openvino", tmp_path / "net")
        assert "secret" not in bundle.file("model.xml").read_text(encoding="utf-8")
        with session.open(bundle) as opened:
            opened.run({"x": np.ones(2, np.float32)})

    def test_weights_above_the_limit_travel_by_file(
        self, monkeypatch: pytest.MonkeyPatch, architectures: ModuleType, data: Path, tmp_path: Path
    ) -> None:
        model, _ = architecture(architectures, data, "espcn")
        whole = convert(model, "openvino", tmp_path / "a")
        monkeypatch.setattr(serialize, "EXTERNAL_DATA_BYTES", 1000)
        assert convert(model, "openvino", tmp_path / "b").files == whole.files

    def test_truncated_weights_are_an_error(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, _ = architecture(architectures, data, "espcn")
        bundle = convert(model, "openvino", tmp_path / "net")
        weights = bundle.file("model.bin")
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(EdgewrightError, match="OpenVINO failed while reading the network") as caught:
            RUNTIME.open(bundle, threads=1)
        assert caught.value.code == "E232"

    def test_nothing_is_sent_anywhere(
        self, monkeypatch: pytest.MonkeyPatch, model_from_text: Any, tmp_path: Path
    ) -> None:
        def refuse(*arguments: Any) -> None:
            raise AssertionError(f"a connection to {arguments}")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        model = model_from_text(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
        with session.open(convert(model, "openvino", tmp_path / "net")) as opened:
            opened.run({"x": np.ones(2, np.float32)})


class TestBatches:
    @pytest.fixture
    def bundle(self, architectures: ModuleType, data: Path, tmp_path: Path) -> Bundle:
        model, _ = architecture(architectures, data, "espcn")
        return convert(model, "openvino", tmp_path / "net")

    def test_copies_are_bounded_and_equal(self, bundle: Bundle, rng: np.random.Generator) -> None:
        image = rng.standard_normal((7, *bundle.inputs[0].shape[1:])).astype(np.float32)
        name = bundle.inputs[0].name
        with session.open(bundle) as opened:
            runner: Any = opened._runner
            assert len(runner._fixed) == 1  # batch 1 is compiled on opening
            results = [next(iter(opened.run({name: image[:batch]}).values())) for batch in range(1, 8)]
            assert len(runner._fixed) == 2
            assert runner._open is not None
        for batch, result in enumerate(results, 1):
            np.testing.assert_allclose(result, results[-1][:batch], rtol=1e-4, atol=1e-5)

    def test_a_batch_of_nothing(self, bundle: Bundle) -> None:
        shape = (0, *bundle.inputs[0].shape[1:])
        with session.open(bundle) as opened:
            (result,) = opened.run({bundle.inputs[0].name: np.zeros(shape, np.float32)}).values()
            assert result.shape[0] == 0

    def test_other_open_axes_stay_open(self, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(
            HEADER
            + "g (float[N,1,H,W] x) => (float[N,1,A,B] y) <float[1,1,3,3] w = {1,0,0,0,1,0,0,0,1}> { y = Conv(x, w) }"
        )
        with session.open(convert(model, "openvino", tmp_path / "net")) as opened:
            runner: Any = opened._runner
            for side in (3, 5, 8, 13, 21):
                result = opened.run({"x": np.ones((2, 1, side, side), np.float32)})["y"]
                np.testing.assert_array_equal(result, np.full((2, 1, side - 2, side - 2), 3, np.float32))
            assert not runner._fixed

    def test_a_network_that_needs_a_batch_of_two(self, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(HEADER + "g (float[N,3] x) => (float[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }")
        with session.open(convert(model, "openvino", tmp_path / "net")) as opened:
            np.testing.assert_array_equal(opened.run({"x": np.ones((2, 3), np.float32)})["y"], np.ones(6, np.float32))
            with pytest.raises(EdgewrightError) as caught:
                opened.run({"x": np.ones((3, 3), np.float32)})
            assert caught.value.code == "E232"

    def test_scalars(self, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(HEADER + "g (float x, float[2] z) => (float[2] y) { y = Mul(x, z) }")
        with session.open(convert(model, "openvino", tmp_path / "net")) as opened:
            result = opened.run({"x": np.array(3, np.float32), "z": np.ones(2, np.float32)})["y"]
        np.testing.assert_array_equal(result, [3, 3])


class TestCut:
    def test_one_of_two_outputs_of_an_operation(self, model_from_text: Any, tmp_path: Path) -> None:
        model = model_from_text(
            HEADER
            + "g (float[2] x) => (float[1] y) { p, q = Split<axis = 0, num_outputs = 2>(x) a = Neg(p) y = Add(a, q) }"
        )
        bundle = convert(model, "openvino", tmp_path / "net")
        with session.open(bundle, cut=Cut(("p", "x"), ("y",))) as part:
            result = part.run({"p": np.array([10], np.float32), "x": np.array([1, 2], np.float32)})["y"]
        np.testing.assert_array_equal(result, [-8])

    def test_around_a_branch(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, feeds = architecture(architectures, data, "cond_net")
        bundle = convert(model, "openvino", tmp_path / "net")
        with session.open(bundle) as opened:
            inner = opened.run(feeds, ["relu_1", "gt", "getitem_6", "linear"])
        with session.open(bundle, cut=Cut(("relu_1", "gt"), ("getitem_6",))) as part:
            got = part.run({"relu_1": inner["relu_1"], "gt": inner["gt"]})["getitem_6"]
        np.testing.assert_allclose(got, inner["getitem_6"], rtol=1e-4, atol=1e-5)


class TestProfile:
    @pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "cond_net", "crnn", "resnet18_qdq"])
    def test_times_belong_to_tensors_of_the_network(
        self, name: str, architectures: ModuleType, data: Path, tmp_path: Path
    ) -> None:
        model, feeds = architecture(architectures, data, name)
        bundle = convert(model, "openvino", tmp_path / "net")
        times = RUNTIME.profile(bundle, feeds, threads=1, runs=3)
        unknown = {key: value for key, value in times.items() if key not in bundle.tensor_names}
        assert set(unknown) <= {"(reorder)", "(other)"}
        assert unknown.get("(other)", 0) < 0.1 * sum(times.values())

    def test_sum_is_the_time_of_a_run(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, feeds = architecture(architectures, data, "vgg11_bn")
        bundle = convert(model, "openvino", tmp_path / "net")
        ratios = []
        with session.open(bundle) as opened:
            for _ in range(8):  # a busy machine disturbs single attempts; a wrong sum is wrong in all of them
                walls = []
                for _ in range(10):
                    start = time.perf_counter()
                    opened.run(feeds)
                    walls.append((time.perf_counter() - start) * 1000)
                profiled = sum(RUNTIME.profile(bundle, feeds, threads=1, runs=10).values())
                ratios.append(profiled / min(walls))
                if 0.75 <= ratios[-1] <= 1.5:
                    return
        raise AssertionError(ratios)

    def test_fused_chains_count_under_their_last_tensor(self, tmp_path: Path, model_from_text: Any) -> None:
        model = model_from_text(
            HEADER
            + """g (float[1,8,64,64] x) => (float[1,8,64,64] y) <int64[4] s = {8, 8, 3, 3}> {
            w = ConstantOfShape <value = float[1] {0.1}> (s) c = Conv <pads = [1,1,1,1]> (x, w) r = Relu(c)
            y = Softmax <axis = 3> (r) }"""
        )
        times = RUNTIME.profile(
            convert(model, "openvino", tmp_path / "net"), {"x": np.ones((1, 8, 64, 64), np.float32)}, threads=1, runs=5
        )
        assert set(times) - {"(reorder)"} == {"r", "y"}


def test_threads_end_with_the_session(architectures: ModuleType, data: Path, tmp_path: Path) -> None:
    model, feeds = architecture(architectures, data, "espcn")
    bundle = convert(model, "openvino", tmp_path / "net")

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    if not Path("/proc/self/task").is_dir():
        pytest.skip("counts threads in /proc")
    with session.open(bundle, threads=2) as opened:  # whatever the process keeps is there after this
        opened.run(feeds)
    before = count()
    for _ in range(10):
        with session.open(bundle, threads=2) as opened:
            opened.run(feeds, [next(iter(bundle.tensor_names))])
    assert count() <= before + 2


@pytest.mark.parametrize(("cpu", "bits"), [("x86-64-v3", 7), ("x86-64-v3-vnni", 8), ("armv8", 8)])
def test_quant_format_fits_the_cpu(cpu: str, bits: int) -> None:
    form = RUNTIME.quant_format(Target("openvino", cpu))
    assert (form.activation_dtype, form.weight_bits) == ("uint8", bits)
    assert cpu in form.reason


def test_errors_are_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], model_from_text: Callable[..., Model]
) -> None:
    model = model_from_text(HEADER + "g (float[N,2] x) => (float[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }")
    with session.open(model, runtime="openvino") as opened, pytest.raises(EdgewrightError) as caught:
        opened.run({"x": np.ones((2, 2), np.float32)})
    assert caught.value.code == "E232"
    assert capfd.readouterr() == ("", "")


ACTIVATIONS = {"relu": "Relu(c)", "leaky": "LeakyRelu<alpha = 0.1>(c)", "prelu": "PRelu(c, w1)"}
FACTORS = {"neg": "Neg(a)", "mul": "Mul(a, w2)", "div": "Div(a, w2)", "sub": "Sub(zero, a)", "twice": "Mul(b, w2)"}


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_factors_behind_an_activation_of_int8_layers_keep_their_side(
    activation: str, factor: str, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    """OpenVINO multiplies before the activation, which is another function where a factor is negative."""
    import onnx_ir as ir
    from onnx import numpy_helper, parser

    kept = {"b": "b = Mul(a, w3)"} if factor == "twice" else {}
    body = f"c = Conv(x, w0) a = {ACTIVATIONS[activation]} {kept.get('b', '')} y = {FACTORS[factor]}"
    proto = parser.parse_model(f"{HEADER} net (float[1,8,9,9] x) => (float[1,8,9,9] y) {{ {body} }}")
    rng = np.random.default_rng(0)
    signs = np.where(np.arange(8) % 2, 1, -1).reshape(8, 1, 1)
    weights = {
        "w0": rng.standard_normal((8, 8, 1, 1)),
        "w1": rng.uniform(0.1, 0.3, (8, 1, 1)),
        "w2": signs * rng.uniform(0.5, 1.5, (8, 1, 1)),
        "w3": rng.uniform(0.5, 1.5, (8, 1, 1)),
        "zero": np.zeros(()),
    }
    used = [name for name in weights if f"{name})" in body or f"({name}," in body]
    proto.graph.initializer.extend(numpy_helper.from_array(weights[name].astype(np.float32), name) for name in used)
    model = Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), name="net")
    small = compress(model, QUICK, Drawn(model), target=Target("openvino"))
    bundle = convert(small, "openvino", tmp_path / "net")
    feeds = inputs_for(model, 1, seed=1)
    with session.open(small, runtime="reference") as exact, session.open(bundle) as opened:
        error = rel_l2(exact.run(feeds)["y"], opened.run(feeds)["y"])
    assert bundle.precision == "int8"
    assert -20 * np.log10(max(error, 1e-12)) >= tolerance["int8"]["sqnr_db"]


@pytest.mark.parametrize(
    ("inputs", "body", "output"),
    [
        ("float[1,16] x", "h = MatMul(x, w0) y = MatMul(h, w1)", "float[1,16]"),
        ("float[7,16] x", "h = MatMul(x, w0) y = MatMul(h, w1)", "float[7,16]"),
        ("float[1,16,16] x", "h = ReduceMax<keepdims=0>(x, axis) y = MatMul(h, w0)", "float[1,16]"),
        ("float[1,16,16] x", "h = ReduceMin<keepdims=0>(x, axis) y = MatMul(h, w0)", "float[1,16]"),
        ("float[1,16,4,4] x", "g = GlobalMaxPool(x) h = Flatten(g) y = MatMul(h, w0)", "float[1,16]"),
    ],
)
def test_quantizers_behind_extremes_and_plain_products(
    inputs: str, body: str, output: str, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    """OpenVINO lets these round what they make, and gives other numbers."""
    import onnx_ir as ir
    from onnx import numpy_helper, parser

    proto = parser.parse_model(f"{HEADER} net ({inputs}) => ({output} y) {{ {body} }}")
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal((16, 16)) / 4).astype(np.float32) for name in ("w0", "w1")}
    held = {**weights, "axis": np.array([1])}
    proto.graph.initializer.extend(numpy_helper.from_array(held[name], name) for name in held if name in body)
    model = Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), name="net")
    small = compress(model, QUICK, Drawn(model), target=Target("openvino"))
    bundle = convert(small, "openvino", tmp_path / "net")
    assert "h" in bundle.tensor_names
    feeds = inputs_for(model, 1, seed=1)
    with session.open(small, runtime="reference") as exact, session.open(bundle, threads=1) as opened:
        error = rel_l2(exact.run(feeds)["y"], opened.run(feeds)["y"])
    assert bundle.precision == "int8"
    assert -20 * np.log10(max(error, 1e-12)) >= tolerance["int8"]["sqnr_db"]


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize(
    "places", [[1, 2, 3, 4, 0, 5], [-5, 2, 3, 4, -6, 5], [5, 4, 3, 2, 1, 0], [1, 2, 3, 4], [1, 1, 3, 4, 0, 5]]
)
@pytest.mark.parametrize("between", ["Relu", "Neg", "Identity"])
def test_permuted_channels_in_front_of_a_convolution(
    places: list[int], axis: int, between: str, tmp_path: Path
) -> None:
    """OpenVINO permutes the weights instead, and the wrong way round where the permutation is not its own inverse."""
    import onnx_ir as ir
    from onnx import numpy_helper, parser

    rng = np.random.default_rng(0)
    body = f"g = Gather<axis={axis}>(x, i) h = {between}(g) y = Conv(h, w)"
    proto = parser.parse_model(f"{HEADER} net (float[N,6,4,4] x) => (float[A,B,C,D] y) {{ {body} }}")
    weights = {"i": np.array(places), "w": rng.standard_normal((3, len(places), 1, 1)).astype(np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    model = Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), name="net")
    bundle = convert(model, "openvino", tmp_path / "net")
    feeds = {"x": rng.standard_normal((2, 6, 4, 4)).astype(np.float32)}
    with session.open(bundle) as opened, session.open(model, runtime="onnxruntime") as original:
        for name in ("y", "g"):
            assert rel_l2(original.run(feeds, name)[name], opened.run(feeds, name)[name]) < 1e-5


def test_an_input_that_an_output_returns_keeps_its_name(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    model = model_from_text(f"{HEADER} net (float[N,3] x) => (float[N,3] y) {{ y = Dropout(x) }}")
    with session.open(convert(model, "openvino", tmp_path / "net")) as opened:
        assert opened.run({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[1.0] * 3] * 2
