"""What only the runtime `onnxruntime` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgewright import model as models
from edgewright import registry, session
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.graph import serialize
from edgewright.model import Model
from edgewright.target import Target

HEADER = '<ir_version: 10, opset_import: ["" : 21, "made.up" : 1, "edgewright" : 1]>'
RUNTIME = registry.peek("runtimes", "onnxruntime")


def architecture(architectures: ModuleType, data: Path, name: str) -> tuple[Model, dict[str, np.ndarray]]:
    import onnx_ir as ir

    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    return Model(ir.from_proto(proto), name=name), architectures.example_inputs(proto)


class TestSupports:
    def problems(self, text: str) -> list[tuple[str, str]]:
        import onnx_ir as ir

        return [(problem.node, problem.op_type) for problem in RUNTIME.supports(ir.from_onnx_text(HEADER + text))]

    def test_all_nodes_of_unknown_operators(self) -> None:
        text = """g (float[2] x) => (float[2] y, float[2] u, float[2] v) {
            [one] y = made.up.Frob(x) [two] u = made.up.Frob(y) b = Relu(x) [three] v = made.up.Blub(b) }"""
        assert self.problems(text) == [("one", "Frob"), ("two", "Frob"), ("three", "Blub")]

    def test_no_kernel_for_a_type(self) -> None:
        text = """g (double[1,1,4,4] x, double[1,1,2,2] w) => (double[1,1,2,2] y) { [one] a = Conv(x, w) [two] y = Conv(a, w) }"""
        import onnx_ir as ir

        model = ir.from_onnx_text(HEADER + text)
        (problem, *_) = found = RUNTIME.supports(model)
        assert [one.node for one in found][:1] == ["one"]
        assert "Could not find an implementation for Conv" in problem.reason
        assert "'one'" in problem.reason  # the user's name for the node, not ours

    def test_inside_branches_and_functions(self) -> None:
        branch = """g (float[2] x, bool c) => (float[2] y) { y = If(c) <
            then_branch = t () => (float[2] u) { [inner] u = made.up.Frob(x) },
            else_branch = e () => (float[2] v) { v = Relu(x) }> }"""
        assert self.problems(branch) == [("inner", "Frob")]
        function = """g (float[2] x) => (float[2] y) { y = edgewright.F(x) }
            <domain: "edgewright", opset_import: ["" : 21, "made.up" : 1]> F (x) => (y) { [inner] y = made.up.Frob(x) }"""
        assert self.problems(function) == [("inner", "Frob")]

    def test_unnamed_nodes_are_called_by_their_output(self) -> None:
        assert self.problems("g (float[2] x) => (float[2] y) { y = made.up.Frob(x) }") == [("y", "Frob")]

    def test_shapes_that_contradict(self) -> None:
        text = "g (float[2,3] x, float[2,3] w) => (float[2,3] y) { [bad] y = MatMul(x, w) }"
        assert self.problems(text) == [("bad", "MatMul")]

    def test_does_not_change_the_graph(self, architectures: ModuleType, data: Path) -> None:
        model, _ = architecture(architectures, data, "cond_net")
        before = model.hash
        assert RUNTIME.supports(model.ir) == ()
        assert Model(model.ir).hash == before

    def test_an_operator_that_insists_on_constant_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where only the copy without weights is rejected, the whole decides."""
        import onnx_ir as ir

        from edgewright.runtimes.onnxruntime import support

        monkeypatch.setattr(support, "_load_error", lambda probe: "edgewright_probe_0_ wants a constant")
        assert RUNTIME.supports(ir.from_onnx_text(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")) == ()


class TestOptions:
    @pytest.mark.parametrize("level", ["all", "extended", "basic", "none"])
    def test_every_level_gives_the_same_answers(
        self, level: str, architectures: ModuleType, data: Path, tmp_path: Path, tolerance: dict[str, dict[str, float]]
    ) -> None:
        from edgewright.metrics import rel_l2

        model, feeds = architecture(architectures, data, "convnext_atto")
        bundle = convert(model, "onnxruntime", tmp_path / level, options={"graph_optimization": level})
        with session.open(bundle) as opened, session.open(model, runtime="reference") as original:
            got, wanted = opened.run(feeds), original.run(feeds)
        for name, array in wanted.items():
            assert rel_l2(array, got[name]) <= tolerance["float32"]["rel_l2"]

    def test_the_file_is_the_network_not_what_the_library_made_of_it(
        self, tmp_path: Path, model_from_text: Any
    ) -> None:
        import onnx

        model = model_from_text(
            HEADER + "g (float[2] x) => (float[2] y) { a = Identity(x) b = Identity(a) y = Relu(b) }"
        )
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        proto = onnx.load(bundle.file("model.onnx"))
        assert [node.op_type for node in proto.graph.node] == ["Identity", "Identity", "Relu"]
        assert dict(bundle.tensor_names) == {name: name for name in "abyx"}


class TestCut:
    def test_at_a_tensor_whose_type_only_the_library_knows(self, tmp_path: Path, model_from_text: Any) -> None:
        model = model_from_text(
            HEADER
            + """g (float16[1,4,2,2] x) => (float16[1,4,2,2] y) <float16[4] s = {1, 1, 1, 1}> {
            a = GroupNormalization <num_groups = 2> (x, s, s) y = Relu(a) }"""
        )
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        with session.open(bundle, cut=Cut(("a",), ("y",))) as part:
            results = part.run({"a": np.full((1, 4, 2, 2), -1, np.float16)})
        np.testing.assert_array_equal(results["y"], np.zeros((1, 4, 2, 2), np.float16))

    def test_every_inner_tensor_can_be_shown(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, feeds = architecture(architectures, data, "crnn")
        names = [value.name for node in model.ir.graph for value in node.outputs if value.name]
        with session.open(convert(model, "onnxruntime", tmp_path / "net")) as opened:
            assert list(opened.run(feeds, names)) == names


class TestLargeWeights:
    """Above protobuf's limit weights lie in a file of their own; here the limit is made small."""

    @pytest.fixture(autouse=True)
    def small_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models, "EXTERNAL_DATA_BYTES", 1000)
        monkeypatch.setattr(serialize, "EXTERNAL_DATA_BYTES", 1000)

    def test_whole_tapped_cut_and_profiled(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        model, feeds = architecture(architectures, data, "espcn")
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        assert set(bundle.files) == {"model.onnx", "model.onnx.data"}
        inner = next(iter(model.ir.graph)).outputs[0].name
        assert inner is not None
        output = bundle.outputs[0].name
        with session.open(bundle) as opened:
            whole = opened.run(feeds)
            tapped = opened.run(feeds, [inner])
        with session.open(bundle, cut=Cut((inner,), (output,))) as part:
            np.testing.assert_array_equal(part.run(tapped)[output], whole[output])
        assert sum(RUNTIME.profile(bundle, feeds, threads=1, runs=1).values()) > 0

    def test_a_missing_or_altered_data_file_is_refused(
        self, architectures: ModuleType, data: Path, tmp_path: Path
    ) -> None:
        model, _ = architecture(architectures, data, "espcn")
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        (bundle.path / "model.onnx.data").unlink()
        with pytest.raises(EdgewrightError) as caught:
            session.open(bundle.path)
        assert caught.value.code == "E220"


class TestProfile:
    @pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "cond_net", "lstm_speaker", "resnet18_qdq"])
    def test_times_belong_to_tensors_of_the_network(
        self, name: str, architectures: ModuleType, data: Path, tmp_path: Path
    ) -> None:
        model, feeds = architecture(architectures, data, name)
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        times = RUNTIME.profile(bundle, feeds, threads=1, runs=3)
        unknown = {key: value for key, value in times.items() if key not in bundle.tensor_names}
        assert set(unknown) <= {"(reorder)", "(other)"}
        assert unknown.get("(other)", 0) < 0.1 * sum(times.values())
        assert not list(Path().glob("onnxruntime_profile*"))

    def test_sum_is_the_time_of_a_run(self, architectures: ModuleType, data: Path, tmp_path: Path) -> None:
        """Against the library's own figure for the whole run, from the same profile."""
        from edgewright.runtimes.onnxruntime import layers

        model, feeds = architecture(architectures, data, "vgg11_bn")
        bundle = convert(model, "onnxruntime", tmp_path / "net")
        seen: dict[str, Any] = {}
        real: Callable[..., dict[str, float]] = layers._sum_events

        def spy(events: list[dict[str, Any]], runs: int, *rest: Any) -> dict[str, float]:
            durations = [event["dur"] / 1000 for event in events if event["name"] == "model_run"]
            seen["run_ms"] = sum(durations[1:]) / runs
            return real(events, runs, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layers, "_sum_events", spy)
            times = RUNTIME.profile(bundle, feeds, threads=1, runs=10)
        assert 0.9 * seen["run_ms"] <= sum(times.values()) <= seen["run_ms"]

    def test_fused_chains_count_under_their_last_tensor(self, tmp_path: Path, model_from_text: Any) -> None:
        model = model_from_text(
            HEADER
            + """g (float[1,8,16,16] x) => (float[1,8,16,16] y) <int64[4] s = {8, 8, 3, 3}> {
            w = ConstantOfShape <value = float[1] {0.1}> (s) c = Conv <pads = [1,1,1,1]> (x, w) r = Relu(c) y = Abs(r) }"""
        )
        times = RUNTIME.profile(
            convert(model, "onnxruntime", tmp_path / "net"),
            {"x": np.ones((1, 8, 16, 16), np.float32)},
            threads=1,
            runs=2,
        )
        assert set(times) - {"(reorder)"} == {"r", "y"}

    def test_events_inside_a_branch_are_not_counted_twice(self) -> None:
        from edgewright.runtimes.onnxruntime import layers

        def event(name: str, start: int, length: int, kind: str = "Relu") -> dict[str, Any]:
            return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": length, "args": {"op_name": kind}}

        runs = [{"name": "model_run", "ts": 0, "dur": 10}, {"name": "model_run", "ts": 20, "dur": 100}]
        events = [
            *runs,
            event("early", 5, 3),
            event("inner", 35, 10),
            event("branch", 30, 20, "If"),
            event("last", 50, 7),
        ]
        known = frozenset({"early", "inner", "branch", "last"})
        assert layers._sum_events(events, 1, known, {}) == {"branch": 0.02, "last": 0.007}

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [("relu", "relu"), ("relu_nchwc", "relu"), ("fc/MatMulAddFusion", "fc"), ("Gelu_token_1", "out"),
         ("Gelu_token_1_nchwc", "out"), ("conv_1_token_12", "conv_1"), ("nobody", "(other)"), ("", "(other)")],
    )  # fmt: skip
    def test_names_of_fused_nodes(self, name: str, tensor: str) -> None:
        from edgewright.runtimes.onnxruntime import layers

        known = frozenset({"relu", "fc", "out", "conv", "conv_1"})
        assert layers._origin(name, known, {"Gelu_token_1": "out"}) == tensor


@pytest.mark.parametrize(
    ("cpu", "bits"),
    [("x86-64", 7), ("x86-64-v3", 7), ("x86-64-v3-vnni", 8), ("x86-64-v4", 7), ("x86-64-v4-vnni", 8), ("armv8", 8),
     ("armv8.2-dotprod", 8)],
)  # fmt: skip
def test_quant_format_fits_the_cpu(cpu: str, bits: int) -> None:
    form = RUNTIME.quant_format(Target("onnxruntime", cpu))
    assert (form.activation_dtype, form.weight_bits, form.activation_symmetric) == ("uint8", bits, False)
    assert cpu in form.reason


def test_errors_are_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str], model_from_text: Any) -> None:
    """The library's message is raised; nothing is printed beside it."""
    model = model_from_text(HEADER + "g (float[N,2] x) => (float[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }")
    with (
        session.open(model, runtime="onnxruntime") as opened,
        pytest.raises(EdgewrightError, match="Reshape") as caught,
    ):
        opened.run({"x": np.ones((2, 2), np.float32)})
    assert caught.value.code == "E232"
    assert capfd.readouterr() == ("", "")


def test_profile_files_are_json_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_from_text: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = model_from_text(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    bundle = convert(model, "onnxruntime", tmp_path / "net")
    times = RUNTIME.profile(bundle, {"x": np.ones(2, np.float32)}, threads=1, runs=2)
    assert set(json.loads(json.dumps(times))) == {"y"}
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_the_readme_opens_the_file_with_the_settings_that_its_answers_depend_on(
    tmp_path: Path, rng: np.random.Generator, model_from_text: Any
) -> None:
    """A layer kept in float between quantized ones is rounded by an optimizer of ONNX Runtime unless it is told not to."""
    weights = ", ".join(f"{value:.6f}" for value in rng.standard_normal(64) * np.repeat([1.0, 0.02], 32))
    model = model_from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[1,8,1,1] x) => (float[1,8,1,1] y)
        <float s = {{0.05}}, float fine = {{0.002}}, uint8 z = {{128}}, float[8,8,1,1] w = {{{weights}}}> {{
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
            p = Conv(d, w)
            r = QuantizeLinear(p, fine, z)  y = DequantizeLinear(r, fine, z)
        }}"""
    )
    bundle = convert(model, "onnxruntime", tmp_path / "net")
    code = (bundle.path / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    feeds = {"x": rng.standard_normal((1, 8, 1, 1)).astype(np.float32)}
    names: dict[str, Any] = {}
    code = code.replace('"model.onnx"', repr(str(bundle.path / "model.onnx"))).replace("...", "feeds['x']")
    exec(code, {"feeds": feeds}, names)
    with session.open(bundle) as opened:
        np.testing.assert_array_equal(names["outputs"][0], opened.run(feeds)["y"])
    import onnxruntime

    plain = onnxruntime.InferenceSession(bundle.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert not np.array_equal(plain.run(None, feeds)[0], names["outputs"][0])
