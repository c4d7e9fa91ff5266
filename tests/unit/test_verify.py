"""verify: pass, fail and undecided with their bounds, and everything it refuses to judge."""

import gc
import json
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest

from edgewright import metrics, registry
from edgewright.compress import compress
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model, Step
from edgewright.samples import Samples
from edgewright.spec import Spec
from edgewright.verify import verify
from edgewright.verify.seen import Distances

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
#: Scores are twice the input: the larger input wins.
ORIGINAL = f"""{_HEAD}
net (float[1, 2] x) => (float[1, 2] scores) <float two = {{2.0}}> {{ scores = Mul(x, two) }}"""
#: The second class gets 1 more: whoever leads by less than 0.5 loses.
BIASED = f"""{_HEAD}
net (float[1, 2] x) => (float[1, 2] scores) <float two = {{2.0}}, float[2] bias = {{0.0, 1.0}}> {{
    y = Mul(x, two)
    scores = Add(y, bias)
}}"""
SCALED = ORIGINAL.replace("{2.0}", "{1.0}")
DIVIDED = f"""{_HEAD}
net (float[1, 2] x) => (float[1, 2] scores) <float zero = {{0.0}}> {{ scores = Div(x, zero) }}"""
WIDER = f"""{_HEAD}
net (float[1, 2] x) => (float[1, 4] scores) {{ scores = Concat <axis = 1> (x, x) }}"""
RENAMED = ORIGINAL.replace("scores", "answer")
LOSSY = Step(kind="pass", name="round_weights", lossy=True, samples=("used",))


class Source:
    """Samples in memory, all of the role judge but those of the groups in `others`."""

    def __init__(self, samples, others=()):
        self._samples, self._others = tuple(samples), frozenset(others)

    def __len__(self):
        return len(self._samples)

    def __iter__(self):
        return iter(self._samples)

    @property
    def groups(self):
        return tuple(dict.fromkeys(sample.group for sample in self._samples))

    def role(self, *roles):
        kept = [s for s in self._samples if (s.group in self._others) != ("judge" in roles)]
        return Source(kept, self._others)


def leads(count, *, close=0, labels=None):
    """Samples whose first class leads by 1, of which the first `close` lead by 0.1 only: BIASED turns those."""
    return Source(
        Sample(f"{i:04d}", f"group{i}", {"x": np.array([[0.1 if i < close else 1.0, 0.0]], np.float32)},
               labels[i] if labels else None)
        for i in range(count)
    )  # fmt: skip


@pytest.fixture
def original(model_from_text):
    return model_from_text(ORIGINAL, spec=Spec(task="classify"), name="net")


@pytest.fixture
def bundle_of(original, model_from_text, tmp_path):
    """A bundle that claims to come from `original` but holds another network."""

    def make(text, *, lossy=False, runtime="onnxruntime", name="b", like=original):
        other = model_from_text(text, spec=like.spec)
        model = replace(like, ir=other.ir, history=(LOSSY,) if lossy else ())
        return convert(model, runtime, tmp_path / name)

    return make


def gate(report, name):
    return next(gate for gate in report.gates if gate.name == name)


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "reference"])
def test_an_unchanged_network_passes_on_every_runtime(original, tmp_path, runtime):
    bundle = convert(original, runtime, tmp_path / runtime)
    report = verify(original, bundle, leads(5))
    assert report.decision == "pass"
    assert [gate.name for gate in report.gates] == ["original", "numeric", "agreement"]
    assert report.samples == 5
    assert report.samples_needed == 0
    assert report.bundle_hash == bundle.hash
    assert report.outputs[0].rel_l2 <= 1e-5


def test_few_samples_decide_a_lossless_bundle_and_the_message_says_why(original, bundle_of):
    agreement = gate(verify(original, bundle_of(ORIGINAL), leads(3)), "agreement")
    assert agreement.decision == "pass"
    assert agreement.low < agreement.required
    assert "every step is lossless" in agreement.message
    assert "3 samples" in agreement.message


def test_a_lossy_bundle_passes_when_the_lower_bound_reaches_the_limit(original, bundle_of):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(300, close=1))
    agreement = gate(report, "agreement")
    assert report.decision == "pass"
    assert (agreement.low, agreement.high) == metrics.clopper_pearson(299, 300)
    assert agreement.value == 299 / 300
    assert agreement.low >= 0.98
    assert report.disagreements == ("0000",)


def test_a_lossy_bundle_fails_when_the_upper_bound_misses_the_limit(original, bundle_of):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(100, close=20))
    agreement = gate(report, "agreement")
    assert report.decision == "fail"
    assert agreement.high < 0.98
    assert "80 %" in agreement.message
    assert "100 samples" in agreement.message
    assert len(report.disagreements) == 20
    assert report.samples_needed == 0


@pytest.mark.parametrize(("count", "close"), [(20, 0), (100, 1), (60, 3)])
def test_too_few_samples_are_undecided_and_say_how_many_more(original, bundle_of, count, close):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(count, close=close))
    assert report.decision == "undecided"
    assert report.samples_needed == metrics.samples_to_decide(count - close, count, 0.98)
    assert f"about {report.samples_needed} more samples" in gate(report, "agreement").message


def test_an_agreement_at_the_limit_is_never_decided(original, bundle_of):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(50, close=1))
    assert (report.decision, report.samples_needed) == ("undecided", -1)
    assert "no number of samples would decide" in gate(report, "agreement").message


def test_an_agreement_near_the_limit_asks_for_no_absurd_number(original, bundle_of):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(306, close=15), min_agreement=0.95)
    assert report.samples_needed > 100_000
    assert "more than 10000 more samples" in gate(report, "agreement").message


def test_more_than_fifty_disagreements_are_cut_off(original, bundle_of):
    report = verify(original, bundle_of(BIASED, lossy=True), leads(80, close=80))
    assert len(report.disagreements) == 50


def test_a_wrong_scale_fails_a_bundle_that_claims_to_be_lossless(original, bundle_of):
    """The winner is the same for every sample: only the numbers show it."""
    report = verify(original, bundle_of(SCALED), leads(300))
    assert report.decision == "fail"
    assert gate(report, "agreement").decision == "pass"
    numeric = gate(report, "numeric")
    assert (numeric.decision, numeric.value) == ("fail", 0.5)
    assert "`scores`" in numeric.message


@pytest.mark.parametrize("lossy", [False, True])
def test_nan_in_an_output_always_fails(original, bundle_of, lossy):
    report = verify(original, bundle_of(DIVIDED, lossy=lossy), leads(4))
    numeric = gate(report, "numeric")
    assert (report.decision, numeric.decision) == ("fail", "fail")
    assert "NaN or infinite" in numeric.message
    assert report.outputs[0].nans == 8
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(("text", "problem"), [(WIDER, "shape [1, 4] instead of [1, 2]"), (RENAMED, "cannot be read")])
def test_outputs_that_cannot_be_compared_fail(original, bundle_of, text, problem):
    report = verify(original, bundle_of(text, lossy=True), leads(4))
    assert report.decision == "fail"
    assert report.outputs[0].problem == problem
    assert problem in gate(report, "numeric").message
    assert report.samples == 1  # every further sample would say the same


def test_a_sample_that_is_nan_is_reported_not_blamed_on_the_bundle(original, bundle_of):
    samples = [*leads(3), Sample("broken", "g", {"x": np.array([[np.nan, 1.0]], np.float32)})]
    report = verify(original, bundle_of(ORIGINAL), Source(samples), min_agreement=0.5)
    numeric = gate(report, "numeric")
    assert numeric.decision == "pass"
    assert "the original itself gives NaN or infinity for 1 sample, first: broken" in numeric.message
    assert report.disagreements == ("broken",)


def test_fp16_reports_its_sqnr_and_is_decided_by_its_results(tmp_path, model_from_text, rng):
    weights = ", ".join(f"{value:.6f}" for value in rng.standard_normal(32))
    model = model_from_text(
        f"""{_HEAD}
        net (float[1, 8] x) => (float[1, 4] scores) <float[8, 4] w = {{{weights}}}> {{ scores = MatMul(x, w) }}""",
        spec=Spec(task="classify"),
    )
    bundle = convert(compress(model, "fp16"), "onnxruntime", tmp_path / "half")
    samples = Source(Sample(str(i), str(i), {"x": rng.standard_normal((1, 8)).astype(np.float32)}) for i in range(400))
    report = verify(model, bundle, samples)
    assert bundle.lossy
    assert report.decision == "pass"
    assert 50 < report.outputs[0].sqnr_db < 90
    assert "fp16 usually reaches 35 dB" in gate(report, "numeric").message


# --- metric drop ------------------------------------------------------------------------------------------------------


def test_metric_drop_passes_and_fails_by_its_bounds(original, bundle_of):
    bundle = bundle_of(BIASED, lossy=True)
    good = verify(original, bundle, leads(600, close=1, labels=[0] * 600), max_drop=0.02)
    assert gate(good, "metric drop").decision == "pass"
    assert good.metric["top-1"] == (1.0, 599 / 600)
    bad = verify(original, bundle, leads(200, close=40, labels=[0] * 200), max_drop=0.02)
    drop = gate(bad, "metric drop")
    assert drop.decision == "fail"
    assert drop.value == pytest.approx(0.2)
    assert 0.02 < drop.low < 0.2 < drop.high


def test_metric_drop_of_few_equal_results_is_undecided(original, bundle_of):
    """A bootstrap of equal results has no width; three samples must not seem to prove anything."""
    report = verify(original, bundle_of(BIASED, lossy=True), leads(3, labels=[0] * 3), max_drop=0.02, min_agreement=0.2)
    drop = gate(report, "metric drop")
    assert (drop.value, drop.decision) == (0.0, "undecided")
    assert drop.high == metrics.unseen_share(3)


def test_metric_drop_can_be_a_gain(original, bundle_of):
    labels = [1] * 20 + [0] * 380
    report = verify(original, bundle_of(BIASED, lossy=True), leads(400, close=20, labels=labels), max_drop=0.0)
    drop = gate(report, "metric drop")
    assert drop.value < 0
    assert report.decision == "fail"  # by agreement, which is no accuracy


def test_metric_drop_needs_labels(original, bundle_of):
    labels = [0, None, 0]
    with pytest.raises(EdgewrightError, match=r"judge sample `0001` has no label") as caught:
        verify(original, bundle_of(ORIGINAL), leads(3, labels=labels), max_drop=0.1)
    assert caught.value.code == "E305"


def test_metric_drop_needs_a_task_with_a_metric(model_from_text, tmp_path):
    model = model_from_text(ORIGINAL)
    bundle = convert(model, "onnxruntime", tmp_path / "b")
    with pytest.raises(EdgewrightError, match=r"`tensor` has no metric"):
        verify(model, bundle, leads(3, labels=[0, 0, 0]), max_drop=0.1)


def test_metrics_count_the_labelled_samples_alone(original, bundle_of):
    report = verify(original, bundle_of(ORIGINAL), leads(4, labels=[0, None, 1, None]))
    assert report.metric["top-1"] == (0.5, 0.5)


# --- agreement that is no proportion ----------------------------------------------------------------------------------


@pytest.fixture
def graded(monkeypatch):
    """The task classify, agreeing by degrees: 1 less ten times the distance of the scores."""
    task = registry.get("tasks", "classify")

    def agreement(reference, results, spec):
        return float(
            np.mean([1 - min(1.0, 10 * abs(a.score - b.score)) for a, b in zip(reference, results, strict=True)])
        )

    monkeypatch.setattr(task, "PROPORTION", False)
    monkeypatch.setattr(task, "agreement", agreement)


@pytest.mark.usefixtures("graded")
def test_bootstrap_bounds_decide_where_agreement_is_no_proportion(original, bundle_of):
    bundle = bundle_of(BIASED, lossy=True)
    good = gate(verify(original, bundle, leads(250), min_agreement=0.4), "agreement")
    assert good.decision in ("pass", "fail")
    few = verify(original, bundle_of(ORIGINAL, lossy=True, name="same"), leads(3))
    agreement = gate(few, "agreement")
    assert (agreement.value, few.decision) == (1.0, "undecided")
    assert agreement.low == 1 - metrics.unseen_share(3)
    assert few.samples_needed == metrics.trials_needed(0.98) - 3


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(code, *arguments, **options):
    with pytest.raises(EdgewrightError) as caught:
        verify(*arguments, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_another_network_is_refused_with_both_hashes(original, bundle_of, model_from_text):
    stranger = model_from_text(SCALED, spec=original.spec, name="stranger")
    text = refused("E222", stranger, bundle_of(ORIGINAL), leads(3))
    assert original.origin[:12] in text
    assert stranger.origin[:12] in text


def test_a_compressed_copy_cannot_judge(original, bundle_of):
    copy = original.with_ir(original.ir, LOSSY)
    assert "round_weights" in refused("E222", copy, bundle_of(ORIGINAL, lossy=True), leads(3))


def test_samples_that_made_the_file_are_refused(original, bundle_of):
    samples = [*leads(3), Sample("seen-1", "used", {"x": np.zeros((1, 2), np.float32)}),
               Sample("seen-2", "used", {"x": np.zeros((1, 2), np.float32)})]  # fmt: skip
    text = refused("E304", original, bundle_of(BIASED, lossy=True), Source(samples))
    assert "2 of 5 judge samples" in text
    assert "`seen-1`" in text


def test_used_samples_of_another_role_do_not_matter(original, bundle_of):
    samples = [*leads(300), Sample("seen-1", "used", {"x": np.zeros((1, 2), np.float32)})]
    report = verify(original, bundle_of(ORIGINAL, lossy=True), Source(samples, others=["used"]))
    assert (report.decision, report.samples) == ("pass", 300)


def test_no_judge_samples_are_refused(original, bundle_of):
    bundle = bundle_of(ORIGINAL)
    refused("E301", original, bundle, Source([]))
    refused("E301", original, bundle, Source(leads(2), others=["group0", "group1"]))


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, math.nan])
def test_limits_outside_their_range_are_refused(original, bundle_of, value):
    bundle = bundle_of(ORIGINAL)
    refused("E103", original, bundle, leads(2), min_agreement=value)
    if value != 0:
        refused("E103", original, bundle, leads(2), max_drop=value)


def test_files_that_changed_after_they_were_made_are_refused(original, bundle_of):
    bundle = bundle_of(ORIGINAL)
    path = bundle.path / next(iter(bundle.files))
    path.write_bytes(path.read_bytes() + b"\0")
    refused("E220", original, bundle, leads(2))


def test_samples_that_do_not_fit_are_refused(original, bundle_of):
    wrong = Source([Sample("s", "g", {"x": np.zeros((1, 3), np.float32)})])
    refused("E230", original, bundle_of(ORIGINAL), wrong)


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_verdict_is_kept_as_evidence(original, bundle_of):
    bundle = bundle_of(ORIGINAL)
    first = verify(original, bundle, leads(3))
    verify(original, bundle.path, leads(4))
    kept = bundle.evidence("verify")
    assert [document["samples"] for document in kept] == [3, 4]
    assert kept[0] == json.loads(json.dumps(first.to_json()))
    assert all(document["bundle_hash"] == bundle.hash for document in kept)


def test_nothing_is_kept_of_a_sample_but_its_result(original, bundle_of):
    alive: list[weakref.ref] = []
    most = 0

    class Streaming(Source):
        def __iter__(self):
            nonlocal most
            for sample in super().__iter__():
                array = sample.arrays["x"].copy()
                alive.append(weakref.ref(array))
                yield replace(sample, arrays={"x": array})
                del array
                gc.collect()
                most = max(most, sum(ref() is not None for ref in alive))

        def role(self, *roles):
            return self

    report = verify(original, bundle_of(ORIGINAL), Streaming(leads(40)))
    assert report.samples == 40
    assert most <= 3


def test_agreement_is_never_called_accuracy(original, bundle_of):
    text = json.dumps(verify(original, bundle_of(ORIGINAL), leads(3)).to_json())
    assert "accura" not in text


def test_real_samples_of_arrays(original, bundle_of, tmp_path, rng):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for number in range(12):
        np.savez(folder / f"{number}.npz", x=rng.standard_normal((1, 2)).astype(np.float32))
    samples = Samples.open(folder, original, roles="judge")
    report = verify(original, bundle_of(ORIGINAL), samples, threads=2)
    assert (report.decision, report.samples) == ("pass", 12)


def test_progress_counts_the_judge_samples(original, bundle_of):
    seen = []

    class Recorder:
        def update(self, task, done, total):
            seen.append((task, done, total))

        def note(self, message):
            raise AssertionError(message)

    verify(original, bundle_of(ORIGINAL), leads(3), progress=Recorder())
    assert seen == [("verify", done, 3) for done in range(4)]


def test_a_model_without_name_or_spec_is_judged_as_bare_arrays(model_from_text, tmp_path):
    model = model_from_text(ORIGINAL)
    assert isinstance(model, Model)
    report = verify(model, convert(model, "onnxruntime", tmp_path / "b"), leads(2))
    assert report.decision == "pass"
    assert "SQNR" in report.agreement


def test_samples_of_one_source_count_as_one(original, bundle_of):
    """64 crops of each of 3 photos prove what 3 photos prove, however well they agree."""
    samples = [
        Sample(f"crop{photo}-{crop}", f"photo{photo}", sample.arrays)
        for photo in range(3)
        for crop, sample in enumerate(leads(64))
    ]
    report = verify(original, bundle_of(ORIGINAL, lossy=True), Source(samples), min_agreement=0.9)
    agreement = gate(report, "agreement")
    assert agreement.value == 1.0
    assert agreement.low == pytest.approx(metrics.clopper_pearson(3, 3)[0])
    assert (report.decision, report.samples) == ("undecided", 192)
    assert "192 samples of 3 sources" in agreement.message
    assert "more sources would decide" in agreement.message


def test_a_quantized_original_that_was_only_converted_passes_with_few_samples(model_from_text, tmp_path):
    text = ORIGINAL.replace(
        "scores = Mul(x, two)", "y = Mul(x, two) q = QuantizeLinear(y, s, z) scores = DequantizeLinear(q, s, z)"
    )
    text = text.replace("<float two = {2.0}>", "<float two = {2.0}, float s = {0.1}, uint8 z = {128}>")
    model = model_from_text(text, spec=Spec(task="classify"), name="net")
    assert model.precision == "int8"
    report = verify(model, convert(model, "onnxruntime", tmp_path / "same"), leads(3))
    assert report.decision == "pass"
    broken = replace(model, ir=model_from_text(text.replace("{0.1}", "{0.3}")).ir)
    assert verify(model, convert(broken, "onnxruntime", tmp_path / "broken"), leads(3)).decision == "undecided"


def test_rounding_at_the_far_end_of_a_sigmoid_is_no_disagreement_of_the_original(model_from_text):
    from edgewright import original as judge
    from edgewright.verify.gates import original_gate

    model = model_from_text(ORIGINAL)
    assert [g.decision for g in original_gate(model, {"scores": judge.Noise(0.2, 9e-8)})] == ["pass"]
    assert [g.decision for g in original_gate(model, {"scores": judge.Noise(0.2, 9e-3)})] == ["fail"]
    assert list(original_gate(model, {})) == []


def test_the_noise_floor_is_measured_once_for_the_same_network_and_samples(original, model_from_text, monkeypatch):
    from edgewright import original as judge

    opened = []
    right = judge.session.open
    monkeypatch.setattr(
        judge.session, "open", lambda model, **options: opened.append(options["runtime"]) or right(model, **options)
    )
    judge._floors.clear()
    first, again = (judge.noise_floor(original, leads(5)) for _ in range(2))
    assert first == again
    assert opened == ["onnxruntime", "reference"]
    judge.noise_floor(original, leads(5, close=1))  # other samples
    judge.noise_floor(model_from_text(BIASED, spec=Spec(task="classify")), leads(5))  # another network
    assert len(opened) == 6


@pytest.mark.parametrize(("loud", "decision"), [("0002", "pass"), ("0001", "fail")])
def test_a_sample_beyond_the_limit_is_held_against_its_own_rounding(
    original, model_from_text, tmp_path, monkeypatch, loud, decision
):
    """Sample 2 differs most; only where two exact evaluations of it differ as well is that rounding."""
    from edgewright import original as judge

    asked = []

    def floor(model, samples, *, threads=1):
        ids = [sample.id for sample in samples]
        asked.append(ids)
        return {"scores": judge.Noise(1e-4 if ids == [loud] else 1e-7, 1.0)}

    monkeypatch.setattr(judge, "noise_floor", floor)
    text = ORIGINAL.replace("<float two = {2.0}>", "<float two = {2.0}, float[2] bias = {0.0003, 0.0}>")
    text = text.replace("scores = Mul(x, two)", "y = Mul(x, two) scores = Add(y, bias)")
    near = convert(replace(original, ir=model_from_text(text).ir), "onnxruntime", tmp_path / "near")
    samples = Source(
        Sample(f"{i:04d}", f"group{i}", {"x": np.array([[1.0 if i == 2 else 2.0, 0.0]], np.float32)}) for i in range(5)
    )
    gate = next(gate for gate in verify(original, near, samples).gates if gate.name == "numeric")
    assert gate.decision == decision
    assert asked == [["0000", "0001", "0002", "0003", "0004"], ["0002"]]


def test_distances_are_held_against_the_usual_size_of_an_output() -> None:
    found = Distances()
    usual, empty = np.full(100, 3.0, np.float32), np.full(100, 1e-7, np.float32)
    pairs = {"usual": (usual, usual * np.float32(1.001)), "empty": (empty, empty * 2)}
    for name, (x, y) in pairs.items():
        found.note(name, metrics.tensor_error("y", x, y), x, y)
    value, sample = found.worst
    assert sample == "usual"
    assert value == pytest.approx(1e-3, rel=1e-2)
    alone = Distances()
    alone.note("empty", metrics.tensor_error("y", empty, empty * 2), empty, empty * 2)
    assert alone.worst == (
        pytest.approx(1),
        "empty",
    )  # an output that is small in every sample is judged by its own size
    zero = Distances()
    zero.note("zero", metrics.tensor_error("y", empty * 0, empty), empty * 0, empty)
    assert zero.worst[0] == math.inf
