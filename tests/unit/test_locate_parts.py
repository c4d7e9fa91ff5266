"""What locate is made of: stages and cuts, exact comparison of parameters, patterns, refusals, the reproducer."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgewright import original, registry
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.locate import locate, parameters, patterns
from edgewright.locate.stages import batches, plan
from edgewright.model import Model, Step

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
CHAIN = f"""{_HEAD}
net (float[1, 4] x) => (float[1, 4] y) <float two = {{2.0}}> {{
    a = Mul(x, two)
    b = Relu(a)
    c = Add(b, x)
    y = Tanh(c)
}}"""
SIZES = f"""{_HEAD}
net (float[1, 4, 2, 2] x) => (float[1, 16] y) <int64[1] rest = {{-1}}, int64 zero = {{0}}, float low = {{0.0}}> {{
    shape = Shape(x)
    batch = Gather(shape, zero)
    row = Unsqueeze(batch, zero)
    target = Concat <axis = 0> (row, rest)
    limit = CastLike(low, x)
    r = Clip(x, limit)
    y = Reshape(r, target)
}}"""


class Source:
    """Samples in memory; `role` gives all of them, or none."""

    def __init__(self, arrays, judges=True):
        self._samples = [Sample(f"s{i}", f"g{i}", item) for i, item in enumerate(arrays)]
        self._judges = judges

    def __len__(self):
        return len(self._samples)

    def __iter__(self):
        return iter(self._samples)

    @property
    def groups(self):
        return tuple(sample.group for sample in self._samples)

    def role(self, *roles):
        return self if self._judges else Source([])


@pytest.fixture
def chain(model_from_text):
    return model_from_text(CHAIN, name="chain")


@pytest.fixture
def samples(rng):
    return Source([{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(3)])


def damaged(model, text, model_from_text):
    """The network in `text`, which claims to come from `model`."""
    return Model(model_from_text(text).ir, model.spec, (), model.name, model.origin)


# --- stages -----------------------------------------------------------------------------------------------------------


def test_stages_reach_to_the_nearest_shared_tensors(chain, samples):
    x = next(iter(samples)).arrays
    stages = {stage.name: stage for stage in plan(chain, {"x", "a", "b", "c", "y"}, x).stages}
    assert list(stages) == ["a", "b", "c", "y"]
    assert stages["c"].inputs == ("b", "x")
    assert stages["c"].op_type == "Add"


def test_what_was_fused_away_is_covered(chain, samples):
    found = plan(chain, {"x", "b", "y"}, next(iter(samples)).arrays)
    stages = {stage.name: stage for stage in found.stages}
    assert found.fused == ("a", "c")
    assert stages["b"].covers == ("a",)
    assert stages["y"].covers == ("c",)
    assert set(stages["y"].inputs) == {"b", "x"}


def test_a_stage_can_begin_earlier(chain, samples):
    found = plan(chain, {"x", "a", "b", "c", "y"}, next(iter(samples)).arrays)
    last = found.stages[-1]
    wider = found.upstream(last)
    assert set(wider.inputs) == {"b", "x"}
    assert wider.covers == ("c",)
    whole = found.upstream(found.upstream(wider))
    assert whole.inputs == ("x",)
    assert found.upstream(whole).inputs == ("x",)


def test_sizes_and_types_are_no_data(model_from_text):
    """Shape arithmetic and CastLike's second input depend on the input's form alone: a static runtime folds them."""
    model = model_from_text(SIZES)
    names = {value.name for node in model.ir.graph for value in node.outputs}
    found = plan(model, names | {"x"}, {"x": np.zeros((1, 4, 2, 2), np.float32)})
    assert [stage.name for stage in found.stages] == ["r", "y"]
    assert found.fused == ()


def test_chunks_keep_to_the_budget(chain, samples):
    found = plan(chain, {"x", "a", "b", "c", "y"}, next(iter(samples)).arrays)
    assert found.size_bytes == dict.fromkeys(("x", "a", "b", "c", "y"), 16)
    assert [len(chunk) for chunk in found.chunks(2**20)] == [4]
    assert [len(chunk) for chunk in found.chunks(32)] == [1, 1, 1, 1]
    assert [stage.name for chunk in found.chunks(48) for stage in chunk] == ["a", "b", "c", "y"]


def test_a_batch_holds_no_tensor_as_input_and_output(chain, samples):
    stages = plan(chain, {"x", "a", "b", "c", "y"}, next(iter(samples)).arrays).stages
    seen = []
    for batch in batches(stages):
        sources = {name for stage in batch for name in stage.inputs}
        assert sources.isdisjoint(stage.name for stage in batch)
        seen += [stage.name for stage in batch]
    assert sorted(seen) == ["a", "b", "c", "y"]


# --- memory, taps and refusals ------------------------------------------------------------------------------------------


def test_a_small_memory_budget_changes_nothing(tmp_path, model_from_text, rng):
    text = f"""{_HEAD}
    net (float[1, 40000] x) => (float[1, 40000] y) {{ a = Relu(x) b = Neg(a) c = Add(b, x) y = Tanh(c) }}"""
    model = model_from_text(text)
    samples = Source([{"x": rng.standard_normal((1, 40000)).astype(np.float32)} for _ in range(2)])
    bundle = convert(model, "onnxruntime", tmp_path / "b")
    steps = []

    class Recorder:
        def update(self, task, done, total):
            steps.append(done)

        def note(self, message):
            raise AssertionError(message)

    small = locate(model, bundle, samples, memory_bytes=2**20, progress=Recorder())
    assert len(steps) > 3
    assert small.layers == locate(model, bundle, samples).layers


def test_a_tensor_that_cannot_be_read_is_a_failure(chain, samples, tmp_path, monkeypatch):
    bundle = convert(chain, "onnxruntime", tmp_path / "b")
    plugin = registry.get("runtimes", "onnxruntime")
    whole = plugin.open

    def refusing(opened, *, threads, cut=None):
        if cut is not None and "b" in cut.outputs and opened.path == bundle.path:
            raise EdgewrightError("E231", "this runtime has lost `b`")
        return whole(opened, threads=threads, cut=cut)

    monkeypatch.setattr(plugin, "open", refusing)
    report = locate(chain, bundle, samples)
    layer = next(layer for layer in report.layers if layer.name == "b")
    assert layer.cumulative.problem == "cannot be read"
    assert "has lost `b`" in layer.isolated.problem
    assert not layer.passed
    assert report.first == "b"
    assert [layer.name for layer in report.layers if layer.passed] == ["a", "c", "y"]


def test_a_part_that_cannot_be_run_alone_is_a_failure(chain, samples, tmp_path, monkeypatch):
    bundle = convert(chain, "onnxruntime", tmp_path / "b")
    plugin = registry.get("runtimes", "onnxruntime")
    whole = plugin.open

    class Failing:
        def run(self, inputs):
            raise EdgewrightError("E232", "the kernel of `b` crashed")

        def close(self):
            pass

    def spoiled(opened, *, threads, cut=None):
        if cut is not None and cut.inputs and "b" in cut.outputs and opened.path == bundle.path:
            return Failing()
        return whole(opened, threads=threads, cut=cut)

    monkeypatch.setattr(plugin, "open", spoiled)
    report = locate(chain, bundle, samples)
    assert report.first == "b"
    assert [layer.name for layer in report.layers if not layer.passed] == ["b"]
    assert "crashed" in next(layer for layer in report.layers if layer.name == "b").isolated.problem


def test_a_cut_that_does_not_close_is_begun_earlier(samples, tmp_path, model_from_text, monkeypatch):
    """The bundle's `c` reads `a`, past the original's boundary `b`."""
    text = f"{_HEAD} net (float[1, 4] x) => (float[1, 4] y) {{ a = Abs(x) b = Relu(a) c = Neg(b) y = Tanh(c) }}"
    model = model_from_text(text)
    other = damaged(model, text.replace("c = Neg(b)", "c = Neg(a)"), model_from_text)
    report = locate(model, convert(other, "onnxruntime", tmp_path / "b"), samples)
    assert [layer.name for layer in report.layers if not layer.passed] == []  # relu after abs changes nothing


def test_shapes_that_differ_are_a_failure_and_a_transposition_is_named(tmp_path, model_from_text, rng):
    text = f"{_HEAD} net (float[1, 2, 3, 4] x) => (float[1, 24] y) {{ a = Tanh(x) y = Flatten(a) }}"
    other = text.replace("a = Tanh(x)", "b = Tanh(x) a = Transpose <perm = [0, 1, 3, 2]> (b)")
    model = model_from_text(text)
    samples = Source([{"x": rng.standard_normal((1, 2, 3, 4)).astype(np.float32)}])
    report = locate(model, convert(damaged(model, other, model_from_text), "onnxruntime", tmp_path / "b"), samples)
    first = next(layer for layer in report.layers if layer.name == report.first)
    assert first.name == "a"
    assert first.isolated.problem == "shape [1, 2, 4, 3] instead of [1, 2, 3, 4]"
    assert "height and width are swapped" in report.cause


def refused(code, *arguments, **options):
    with pytest.raises(EdgewrightError) as caught:
        locate(*arguments, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_refusals(chain, samples, tmp_path, model_from_text):
    bundle = convert(chain, "onnxruntime", tmp_path / "b")
    refused("E103", chain, bundle, samples, max_samples=0)
    refused("E103", chain, bundle, samples, memory_bytes=10)
    refused("E301", chain, bundle, Source([]))
    refused("E301", chain, bundle, Source([{"x": np.zeros((1, 4), np.float32)}], judges=False))
    refused("E104", chain, tmp_path / "absent", samples)
    stranger = model_from_text(CHAIN.replace("2.0", "3.0"), name="stranger")
    assert stranger.origin[:12] in refused("E222", stranger, bundle, samples)
    refused("E105", chain, bundle, samples, reproducer=bundle.path)


def test_a_compressed_model_may_locate_what_came_after_it(chain, samples, tmp_path):
    small = chain.with_ir(chain.ir, Step(kind="pass", name="round", lossy=True))
    report = locate(small, convert(small, "onnxruntime", tmp_path / "b"), samples)
    assert report.first is None


def test_the_report_is_kept_as_evidence(chain, samples, tmp_path):
    bundle = convert(chain, "onnxruntime", tmp_path / "b")
    report = locate(chain, bundle.path, samples, max_samples=1, seed=7)
    (kept,) = bundle.evidence("locate")
    assert kept == json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (report.samples, report.seed, report.bundle_hash) == (1, 7, bundle.hash)


# --- the reproducer -----------------------------------------------------------------------------------------------------


def test_the_reproducer_shows_the_difference_by_its_own_instructions(chain, samples, tmp_path, model_from_text):
    other = damaged(chain, CHAIN.replace("b = Relu(a)", "b = Neg(a)"), model_from_text)
    bundle = convert(other, "onnxruntime", tmp_path / "b")
    folder = tmp_path / "cases" / "case"
    report = locate(chain, bundle, samples, reproducer=folder)
    assert report.reproducer == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "model.onnx",
        "inputs.npz",
        "expected.npz",
        "got.npz",
        "reproduce.py",
    }
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "expected.npz") as expected:
        assert np.array_equal(np.maximum(inputs["a"], 0), expected["b"])
    assert "python reproduce.py" in (folder / "README.md").read_text(encoding="utf-8")
    run = subprocess.run([sys.executable, "reproduce.py"], cwd=folder, capture_output=True, text=True, check=True)
    original_distance, bundle_distance = (float(line.split()[0]) for line in run.stdout.splitlines())
    assert original_distance == 0
    assert bundle_distance > 0


def test_the_reproducer_takes_any_tensor_name(tmp_path, model_from_text, rng):
    text = f"{_HEAD} net (float[1, 4] x) => (float[1, 4] y) {{ a = Abs(x) b = Relu(a) y = Tanh(b) }}"
    names = {"a": "file", "b": "../ü/β \\ :0"}

    def renamed(source):
        model = model_from_text(source).clone_ir()
        for node in model.graph:
            node.outputs[0].name = names.get(node.outputs[0].name, node.outputs[0].name)
        return model

    model = Model(renamed(text))
    other = Model(renamed(text.replace("Relu(a)", "Neg(a)")), model.spec, (), "model", model.origin)
    samples = Source([{"x": rng.standard_normal((1, 4)).astype(np.float32)}])
    report = locate(model, convert(other, "onnxruntime", tmp_path / "b"), samples, reproducer=tmp_path / "case")
    assert report.first == names["b"]
    with np.load(tmp_path / "case" / "inputs.npz") as inputs:
        assert inputs.files == ["file"]


def test_no_failure_writes_no_reproducer(chain, samples, tmp_path):
    report = locate(chain, convert(chain, "onnxruntime", tmp_path / "b"), samples, reproducer=tmp_path / "case")
    assert report.reproducer is None
    assert not (tmp_path / "case").exists()


# --- parameters ---------------------------------------------------------------------------------------------------------


def differences(model, other, tmp_path, samples):
    bundle = convert(other, "onnxruntime", tmp_path / "b")
    stages = plan(model, set(bundle.tensor_names), next(iter(samples)).arrays).stages
    return parameters.compare(model, bundle, stages)


def test_equal_networks_have_no_differences(chain, samples, tmp_path):
    assert differences(chain, chain, tmp_path, samples) == parameters.Differences()


def test_a_weight_that_differs_is_named_with_its_place(chain, samples, tmp_path, model_from_text):
    found = differences(chain, damaged(chain, CHAIN.replace("{2.0}", "{2.5}"), model_from_text), tmp_path, samples)
    assert list(found.values) == ["a"]
    assert found.values["a"][0].startswith("1 of 1 values of `two` of")
    assert "2.5 instead of 2" in found.values["a"][0]


def test_an_absent_attribute_is_its_default(model_from_text, samples, tmp_path):
    text = f"{_HEAD} net (float[1, 4] x) => (float[1, 4] y) {{ y = LeakyRelu <alpha = 0.01> (x) }}"
    model = model_from_text(text)
    same = damaged(model, text.replace("<alpha = 0.01> ", ""), model_from_text)
    assert differences(model, same, tmp_path / "1", samples).values == {}
    other = damaged(model, text.replace("0.01", "0.2"), model_from_text)
    (said,) = differences(model, other, tmp_path / "2", samples).values["y"]
    assert said.startswith("attribute `alpha` of")
    assert said.endswith("is 0.2 instead of 0.01")


def test_exchanged_inputs_and_other_operators_are_seen(model_from_text, samples, tmp_path):
    text = f"{_HEAD} net (float[1, 4] x) => (float[1, 4] y) {{ a = Abs(x) b = Neg(x) y = Sub(a, b) }}"
    model = model_from_text(text)
    exchanged = differences(
        model, damaged(model, text.replace("(a, b)", "(b, a)"), model_from_text), tmp_path / "1", samples
    )
    assert len(exchanged.values["y"]) == 2
    assert "`b` instead of `a`" in exchanged.values["y"][0]
    other = differences(model, damaged(model, text.replace("Abs", "Relu"), model_from_text), tmp_path / "2", samples)
    assert other.values == {}
    assert other.operators["a"] == "the operators are `Relu` instead of `Abs`"


# --- patterns -------------------------------------------------------------------------------------------------------------


def best(expected, got):
    """The text of the pattern with the fewest fitted numbers that explains `got`."""
    tried = [h for h in patterns.patterns(expected, got, 1e-5) if h.residual <= 1e-5]
    return min(tried, key=lambda h: (h.fitted, h.residual)).text if tried else None


@pytest.fixture
def image(rng):
    return rng.standard_normal((1, 6, 5, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: 0.25 * x, "the output is 0.25 x the original's"),
        (lambda x: x + 3, "the output is the original's plus 3"),
        (lambda x: 2 * x - 1, "the output is 2 x the original's plus -1"),
        (lambda x: 0 * x, "the output is all zero"),
        (lambda x: x[:, [0, 2, 1, 3, 4, 5]], "channels 1 and 2 are swapped"),
        (lambda x: x[:, ::-1], "the channels are in reverse order"),
        (lambda x: x[:, [0, 3, 1, 4, 2, 5]], "the channels are interleaved, as by a shuffle of 2 groups"),
        (lambda x: x[:, [1, 2, 0, 3, 4, 5]], "3 channels are permuted; channel 0 holds what belongs to 1"),
        (lambda x: x.swapaxes(2, 3), "height and width are swapped (NCWH instead of NCHW)"),
        (lambda x: x[:, :, ::-1], "axis H is mirrored"),
        (lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape), "the values lie in the order NHWC, but are read as NCHW"),
        (lambda x: np.minimum(x, 1), "of the values, those above 1, are cut off there"),
        (lambda x: x * np.arange(1, 7).reshape(6, 1, 1), "each channel has its own factor, 1 to 6"),
        (lambda x: x + np.arange(6).reshape(6, 1, 1), "each channel has its own offset, "),
    ],
)
def test_patterns_are_recognized(image, change, text):
    assert text in best(image, np.asarray(change(image), np.float32))


def test_what_is_no_pattern_is_not_recognized(image, rng):
    assert best(image, rng.standard_normal(image.shape).astype(np.float32)) is None


def test_few_values_explain_nothing(rng):
    """Three numbers can always be fitted by a factor and an offset."""
    assert best(rng.standard_normal((1, 3)), rng.standard_normal((1, 3))) is None


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_rounded_values_are_recognized(image, name):
    from edgewright.locate.alternatives import rounded

    assert patterns.rounded_to(rounded(image, name)) == name
    assert patterns.rounded_to(image) is None
    assert patterns.rounded_to(np.zeros((4, 4), np.float32)) is None


def test_activations_are_what_onnx_says(model_from_text, rng, tolerance):
    """Each named activation against ONNX Runtime's operator of that name."""
    from edgewright import session

    x = rng.normal(0, 4, (1, 64)).astype(np.float32)
    formulas = {
        "relu": "Relu(x)", "sigmoid": "Sigmoid(x)", "tanh": "Tanh(x)", "elu": "Elu(x)", "softplus": "Softplus(x)",
        "hard-swish": "HardSwish(x)", "mish": "Mish(x)", "gelu (erf)": "Gelu(x)", "leaky relu 0.01": "LeakyRelu(x)",
        "gelu (tanh)": 'Gelu <approximate = "tanh"> (x)', "leaky relu 0.1": "LeakyRelu <alpha = 0.1> (x)",
        "hard-sigmoid (slope 0.2)": "HardSigmoid(x)",
    }  # fmt: skip
    for name, formula in formulas.items():
        model = model_from_text(f"{_HEAD} net (float[1, 64] x) => (float[1, 64] y) {{ y = {formula} }}")
        with session.open(model) as opened:
            expected = opened.run({"x": x})["y"]
        np.testing.assert_allclose(
            patterns.ACTIVATIONS[name](x.astype(np.float64)), expected,
            rtol=tolerance["float32"]["rtol"], atol=tolerance["float32"]["atol"],
        )  # fmt: skip


# --- limits ---------------------------------------------------------------------------------------------------------------


def test_limits_follow_precision_and_history(chain, tmp_path):
    bundle = convert(chain, "onnxruntime", tmp_path / "b")
    exact = original.limits(bundle)
    assert (exact.isolated, exact.cumulative, exact.exact) == (1e-5, 1e-5, True)
    assert exact.cumulative_at(1e-5) == pytest.approx(1e-4)
    assert exact.cumulative_at(1e-9) == 1e-5
    lossy = Step(kind="pass", name="p", lossy=True)
    narrow = Step(kind="pass", name="q", config={"per_channel": False}, lossy=True)
    for precision, history, layer, network in (
        ("fp16", (), 50, 35),
        ("bf16", (), 32, 17),
        ("int8", (), 25, None),
        ("int8", (narrow,), 20, None),
        ("fp32", (lossy,), 20, None),
    ):
        found = original.limits(replace(bundle, precision=precision, history=history))
        assert -20 * np.log10(found.isolated) == pytest.approx(layer)
        assert not found.exact
        assert found.isolated_at(1.0) == found.isolated
        if network is None:
            assert found.cumulative_at(0) == np.inf
        else:
            assert -20 * np.log10(found.cumulative_at(1.0)) == pytest.approx(network)


def test_the_reference_runtime_is_the_one_that_is_never_deployed():
    assert original.reference_runtime() == "reference"


def test_weights_with_a_name_of_their_own_are_compared_too(chain, samples, tmp_path):
    """The same number under another initializer's name is no difference."""
    copy = chain.clone_ir()
    tensor = ir.tensor(np.float32(2.0), name="renamed")
    value = ir.Value(name="renamed", type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    copy.graph.register_initializer(value)
    copy.graph.node(0).replace_input_with(1, value)
    other = Model(copy, chain.spec, (), chain.name, chain.origin)
    assert differences(chain, other, tmp_path, samples) == parameters.Differences()
