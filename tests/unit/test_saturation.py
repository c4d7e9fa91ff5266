"""Saturation of int8 products: named where kernels really saturate, silent everywhere else; what bundles need, and say."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from edgewright import bundle as bundles
from edgewright import original, registry, session, target
from edgewright.bundle import Bundle
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.deploy.run import _why_not
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.load import load
from edgewright.metrics import rel_l2
from edgewright.model import Model, Step
from edgewright.records import VerifyReport
from edgewright.spec import Spec
from edgewright.target import CPUS, EXACT_INT8, any_of, host_features, unmet
from edgewright.verify import verify

NEED = any_of(EXACT_INT8)
INPUTS = 16
#: Class 0 leads by a third, with weights of 127; those of class 1 are small integers of a large scale, which fit anywhere.
#: Where pairs of products stop at 32767, class 0 loses half of its score for bright inputs, and class 1 wins.
WEIGHTS = {8: np.array([127, 31]), 7: np.array([63, 31])}
STEPS = {8: np.array([0.01, 0.03], np.float32), 7: np.array([1.27 / 63, 0.03], np.float32)}
INT8 = Step(kind="pass", name="quantize_static", lossy=True, samples=("used",))


class Source:
    """Samples in memory, all of the role judge."""

    def __init__(self, samples):
        self._samples = tuple(samples)

    def __len__(self):
        return len(self._samples)

    def __iter__(self):
        return iter(self._samples)

    @property
    def groups(self):
        return tuple(sample.group for sample in self._samples)

    def role(self, *roles):
        return self if "judge" in roles else Source(())


def photos(count, *, bright, rng):
    """Inputs of which the first `bright` make saturating sums, the others do not."""
    for i in range(count):
        low, high = (0.9, 1.0) if i < bright else (0.1, 0.4)
        yield Sample(f"{i:03d}", f"group{i}", {"x": rng.uniform(low, high, (1, INPUTS)).astype(np.float32)})


def float_network(make, bits=8):
    weights = WEIGHTS[bits] * STEPS[bits]
    values = ", ".join(f"{value:.6f}" for _ in range(INPUTS) for value in weights)
    return make(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[1, {INPUTS}] x) => (float[1, 2] y)
        <float[{INPUTS}, 2] w = {{{values}}}> {{ y = MatMul(x, w) }}""",
        spec=Spec(task="classify"),
        name="net",
    )


def quantized_network(make, bits=8, activation="uint8"):
    values = ", ".join(str(value) for _ in range(INPUTS) for value in WEIGHTS[bits])
    scales = ", ".join(f"{value:.6f}" for value in STEPS[bits])
    zero = 0 if activation == "uint8" else -128
    return make(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[1, {INPUTS}] x) => (float[1, 2] y)
        <float s = {{0.003921569}}, {activation} z = {{{zero}}}, int8[{INPUTS}, 2] w = {{{values}}}, float[2] ws = {{{scales}}},
         int8[2] wz = {{0, 0}}> {{
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            f = DequantizeLinear <axis = 1> (w, ws, wz)
            y = MatMul(d, f)
        }}""",
        spec=Spec(task="classify"),
        name="net",
    )


class OldKernels:
    """`net` as an AVX2 kernel computes it: pairs of products stop at 16 bits; `scale` makes other errors."""

    def __init__(self, bits, *, saturate=True, scale=1.0):
        self.bits, self.saturate, self.scale = bits, saturate, scale

    def run(self, inputs, /):
        x = np.clip(np.rint(inputs["x"] / np.float32(0.003921569)), 0, 255).astype(np.int32)
        products = x[:, :, None] * np.tile(WEIGHTS[self.bits], (INPUTS, 1))[None]
        pairs = products[:, 0::2] + products[:, 1::2]
        if self.saturate:
            pairs = np.clip(pairs, -32768, 32767)
        return {"y": (pairs.sum(1) * 0.003921569 * STEPS[self.bits] * self.scale).astype(np.float32)}

    def close(self):
        pass


@pytest.fixture
def on_cpu(monkeypatch):
    """Let this machine have the features of another."""

    def become(features):
        for module in (target, bundles):
            monkeypatch.setattr(module, "host_features", lambda: tuple(features))

    return become


@pytest.fixture
def kernels(monkeypatch):
    """Put other kernels in the place of ONNX Runtime's, for the bundle in a folder."""
    plugin = registry.get("runtimes", "onnxruntime")
    own = plugin.open

    def put(path, runner):
        monkeypatch.setattr(
            plugin,
            "open",
            lambda bundle, *, threads, cut=None: (
                runner if bundle.path == path else own(bundle, threads=threads, cut=cut)
            ),
        )

    return put


@pytest.fixture
def shipped(model_from_text, tmp_path):
    """An original and an int8 bundle that was made of it."""

    def make(bits=8, runtime="onnxruntime"):
        network = float_network(model_from_text, bits)
        small = replace(network, ir=quantized_network(model_from_text, bits).ir, history=(INT8,))
        return network, convert(small, runtime, tmp_path / "bundle")

    return make


def judged(network, bundle, rng, *, count=80, bright=60, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgewrightWarning)
        return verify(network, bundle, Source(photos(count, bright=bright, rng=rng)), **options)


class TestVerify:
    def test_names_saturation_and_the_weights_to_use(self, shipped, on_cpu, kernels, rng):
        network, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        kernels(bundle.path, OldKernels(8))
        report = judged(network, bundle, rng)
        found = report.saturation
        assert report.decision == "fail"
        assert (found.exact_agreement, found.samples) == (1.0, 64)
        assert found.agreement == 4 / 64
        assert found.rel_l2 > 0.1
        for part in (
            "computed exactly",
            "100 % (SQNR",
            "6.25 % (SQNR",
            "saturate",
            "7-bit weights",
            "avx512_vnni",
            found.command,
        ):
            assert part in found.message
        assert found.command.startswith("edgewright compress MODEL --recipe int8 --runtime onnxruntime --cpu host")
        assert VerifyReport.from_json(report.to_json()).saturation == found
        assert _why_not(report).endswith(found.message)

    def test_says_so_where_the_verdict_is_a_pass(self, shipped, on_cpu, kernels, rng):
        network, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        kernels(bundle.path, OldKernels(8))
        report = judged(network, bundle, rng, min_agreement=0.05)
        assert report.decision == "pass"
        assert report.saturation is not None

    @pytest.mark.parametrize(
        ("runner", "bright"),
        [
            (OldKernels(8), 0),  # full-range weights, but inputs too dark for it to happen
            (OldKernels(8, saturate=False), 60),
            (OldKernels(8, saturate=False, scale=1.008), 60),  # as far as rounding goes
        ],
        ids=["dark", "wide sums", "rounding"],
    )
    def test_is_silent_where_nothing_saturates(self, shipped, on_cpu, kernels, rng, runner, bright):
        network, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        kernels(bundle.path, runner)
        assert judged(network, bundle, rng, bright=bright).saturation is None

    def test_is_silent_where_exact_evaluation_is_no_better(self, shipped, on_cpu, kernels, monkeypatch, rng):
        network, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        kernels(bundle.path, OldKernels(8, saturate=False, scale=2.0))  # the same decisions
        wrong = type(
            "Wrong", (), {"run": lambda self, x: {"y": np.array([[0, 1]], np.float32)}, "close": lambda self: None}
        )
        monkeypatch.setattr(registry.get("runtimes", "onnxruntime"), "exact", lambda bundle, *, threads: wrong())
        assert judged(network, bundle, rng).saturation is None

    @pytest.mark.parametrize(("bits", "cpu"), [(7, "x86-64-v3"), (8, "x86-64-v4-vnni"), (8, "armv8")])
    def test_does_not_look_where_it_cannot_happen(self, shipped, on_cpu, monkeypatch, rng, bits, cpu):
        network, bundle = shipped(bits)
        on_cpu(CPUS[cpu])
        plugin = registry.get("runtimes", "onnxruntime")
        monkeypatch.setattr(plugin, "exact", lambda *args, **kwargs: pytest.fail("nothing can saturate here"))
        assert judged(network, bundle, rng).saturation is None

    def test_files_that_cannot_be_run_exactly_cost_a_note_only(self, shipped, on_cpu, monkeypatch, rng):
        def refuse(bundle, *, threads):
            raise EdgewrightError("E232", "no such mode")

        notes = []
        told = type("Told", (), {"update": lambda self, *args: None, "note": lambda self, text: notes.append(text)})
        network, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        monkeypatch.setattr(registry.get("runtimes", "onnxruntime"), "exact", refuse)
        report = judged(network, bundle, rng, progress=told())
        assert report.saturation is None
        assert notes == ["`bundle` may saturate on this CPU, but cannot be run without: no such mode"]


class TestForeignFile:
    """A full-range file that a user brings: the file as it came is the original."""

    @pytest.fixture
    def foreign(self, model_from_text, tmp_path):
        model = quantized_network(model_from_text)
        return model, convert(model, "onnxruntime", tmp_path / "bundle")

    def test_is_judged_by_what_it_says_exactly(self, foreign, on_cpu, kernels, rng):
        model, bundle = foreign
        on_cpu(CPUS["x86-64-v3"])
        kernels(bundle.path, OldKernels(8))
        report = judged(model, bundle, rng)
        assert report.decision == "fail"
        assert report.saturation.exact_agreement == 1.0
        assert (
            "the original itself is quantized so: make 7-bit weights of the float network" in report.saturation.message
        )
        assert "compress FLOAT_MODEL" in report.saturation.command

    @pytest.mark.skipif(bool(unmet([NEED], host_features())), reason="needs a CPU that multiplies int8 exactly")
    def test_passes_as_it_is_where_nothing_saturates(self, foreign, rng):
        model, bundle = foreign
        report = judged(model, bundle, rng, count=3)
        assert (report.decision, report.saturation) == ("pass", None)

    @pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
    def test_real_file_is_recorded_and_evaluated_exactly(self, data, architectures, on_cpu, tmp_path, runtime):
        import onnx

        proto = architectures.load_filled(data / "architectures" / "resnet18_qdq.onnx")
        inputs = architectures.example_inputs(proto)
        onnx.save(proto, tmp_path / "net.onnx")
        model = load(tmp_path / "net.onnx")
        bundle = convert(model, runtime, tmp_path / "bundle")
        assert bundle.cpu_features == (NEED,)
        with session.open(model, runtime="reference") as opened:
            expected = opened.run(inputs)
        on_cpu(CPUS["x86-64-v3"])
        with session.open(bundle, exact=True) as opened:
            for name, value in opened.run(inputs).items():
                assert rel_l2(expected[name], value) <= original.QUANTIZED_REL_L2


def test_the_command_line_shows_it(shipped, model_from_text, on_cpu, kernels, rng, tmp_path, monkeypatch, capsys):
    from edgewright.cli import main

    network, bundle = shipped()
    network.save(tmp_path / "net.onnx")
    arrays = [sample.arrays["x"] for sample in photos(40, bright=30, rng=rng)]
    np.savez(tmp_path / "samples.npz", x=np.concatenate(arrays))
    on_cpu(CPUS["x86-64-v3"])
    kernels(bundle.path, OldKernels(8))
    command = ["verify", str(tmp_path / "net.onnx"), str(bundle.path), "--samples", str(tmp_path / "samples.npz")]
    monkeypatch.setattr(sys, "argv", ["edgewright", *command, "--roles", "judge"])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        warnings.simplefilter("ignore", EdgewrightWarning)
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 1
    assert "saturates" in out.replace("\n", " ")
    assert "hint: edgewright compress MODEL --recipe int8" in err


class TestNeeds:
    @pytest.mark.parametrize("activation", ["uint8", "int8"])
    @pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
    @pytest.mark.parametrize(("bits", "needs"), [(8, (NEED,)), (7, ())])
    def test_are_recorded_by_the_weights(self, model_from_text, tmp_path, runtime, bits, needs, activation):
        bundle = convert(quantized_network(model_from_text, bits, activation), runtime, tmp_path / "b")
        assert bundle.cpu_features == needs

    def test_are_none_where_sums_are_wide_on_every_cpu(self, model_from_text, tmp_path):
        assert convert(quantized_network(model_from_text), "reference", tmp_path / "b").cpu_features == ()

    def test_are_none_for_float(self, model_from_text, tmp_path):
        assert convert(float_network(model_from_text), "onnxruntime", tmp_path / "b").cpu_features == ()

    def test_an_old_cpu_is_warned_with_what_to_do(self, shipped, on_cpu):
        _, bundle = shipped()
        on_cpu(CPUS["x86-64-v3"])
        with pytest.warns(EdgewrightWarning) as caught:
            opened = Bundle.open(bundle.path)
        (warning,) = caught
        for part in (
            "asimd or avx512_vnni or avx_vnni",
            "may saturate",
            "7-bit",
            "edgewright compress MODEL --recipe int8",
        ):
            assert part in str(warning.message)
        assert opened.unmet_features == (NEED,)
        assert opened.may_saturate

    @pytest.mark.parametrize(
        "features", [*(CPUS[name] for name in ("x86-64-v3-vnni", "x86-64-v4-vnni", "armv8", "armv8.2-dotprod")), ()]
    )
    def test_one_of_them_is_enough(self, shipped, on_cpu, features):
        _, bundle = shipped()
        on_cpu(features)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opened = Bundle.open(bundle.path)
        assert opened.unmet_features == ()
        assert opened.may_saturate == (not features)  # a system that does not tell is measured

    def test_a_seven_bit_bundle_is_opened_silently(self, shipped, on_cpu):
        _, bundle = shipped(7)
        on_cpu(CPUS["x86-64-v3"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not Bundle.open(bundle.path).may_saturate


@pytest.mark.parametrize(
    ("needs", "features", "left"),
    [
        ((), ("avx2",), ()),
        (("avx2",), ("avx2", "fma"), ()),
        (("fma", "avx2"), (), ("avx2", "fma")),
        (("a|b", "c"), ("b",), ("c",)),
        (("a|b", "a|b"), ("c",), ("a|b",)),
        (("ab",), ("a", "b"), ("ab",)),
    ],
)
def test_unmet_needs(needs, features, left):
    assert unmet(needs, features) == left


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exact_evaluation_gives_the_files_own_answers(shipped, on_cpu, rng, tolerance, runtime):
    _, bundle = shipped(runtime=runtime)
    on_cpu(CPUS["x86-64-v3"])
    with session.open(bundle, exact=True) as exact:
        for sample in photos(4, bright=2, rng=rng):
            expected = OldKernels(8, saturate=False).run(sample.arrays)["y"]
            np.testing.assert_allclose(
                exact.run(sample.arrays)["y"],
                expected,
                rtol=tolerance["float32"]["rtol"],
                atol=tolerance["float32"]["atol"],
            )


def test_a_float_network_is_never_opened_otherwise(model_from_text, on_cpu, monkeypatch, rng):
    on_cpu(CPUS["x86-64-v3"])
    monkeypatch.setattr(registry.get("runtimes", "onnxruntime"), "exact", lambda *a, **k: pytest.fail("not for floats"))
    with session.open(float_network(model_from_text), exact=True) as opened:
        assert isinstance(opened.run({"x": np.ones((1, INPUTS), np.float32)})["y"], np.ndarray)


def test_a_model_that_is_quantized_is_opened_exactly_on_an_old_cpu(model_from_text, on_cpu, monkeypatch):
    asked = []
    plugin = registry.get("runtimes", "onnxruntime")
    own = plugin.exact
    monkeypatch.setattr(
        plugin, "exact", lambda bundle, *, threads: asked.append(threads) or own(bundle, threads=threads)
    )
    model = quantized_network(model_from_text)
    assert isinstance(model, Model)
    for cpu in ("x86-64-v4-vnni", "x86-64-v3"):
        on_cpu(CPUS[cpu])
        session.open(model, exact=True, threads=2).close()
    assert asked == [2]
