"""The report page: complete, self-contained, safe against names, and fit to look at in a real browser."""

from __future__ import annotations

import dataclasses
import html.parser
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewright.errors import EdgewrightError
from edgewright.records import (
    BenchResult,
    Candidate,
    DeployOutcome,
    Environment,
    Gate,
    InspectReport,
    Layer,
    LayerCost,
    LocateReport,
    TensorError,
    Timing,
    VerifyReport,
)
from edgewright.report import charts, read_outcome, render, report


def gate(value: float, low: float, decision: str = "pass") -> Gate:
    message = f"agreement {100 * value:.1f} % ({100 * low:.1f}-100.0), required 98.0 % (300 samples)"
    return Gate(name="agreement", decision=decision, value=value, low=low, high=1.0, required=0.98, message=message)  # type: ignore[arg-type]


def candidate(
    name: str, ms: float | None, value: float, low: float, state: str = "verified", decision: str = "pass"
) -> Candidate:
    recipe, _, runtime = name.partition("-")
    verdict = VerifyReport(
        bundle_hash="b" * 64,
        bundle_name=name,
        origin="a" * 64,
        decision=decision,
        gates=(gate(value, low, decision),),  # type: ignore[arg-type]
        outputs=(TensorError(name="logits", rel_l2=1e-6, sqnr_db=120.0),),
        samples=300,
        samples_needed=0,
        agreement="same top-1 class",
        metric={"top-1": (0.882, 0.88)},
        disagreements=("017.jpg",),
        seed=0,
        environment=Environment.here(),
    )
    bench: tuple[BenchResult, ...] = ()
    if ms is not None:
        timing = Timing(
            median_ms=ms, low_ms=ms * 0.98, high_ms=ms * 1.03, p90_ms=ms * 1.1, p99_ms=ms * 1.4, mean_ms=ms, runs=240
        )
        bench = (
            BenchResult(
                bundle_hash="b" * 64,
                bundle_name=name,
                runtime=runtime,
                precision="fp32",
                threads=1,
                infer=timing,
                pre=timing,
                post=timing,
                peak_memory_bytes=142_000_000,
                load_ms=80.0,
                size_bytes=18_600_000,
                trust="trusted",
                reasons=(),
                telemetry={"steal_percent": 0.0},
            ),
        )
    return Candidate(
        name=name,
        recipe=recipe,
        runtime=runtime,
        state=state,
        reason="measured",
        bundle=f"bundles/{name}",  # type: ignore[arg-type]
        size_bytes=18_600_000,
        precision="fp32",
        verify=verdict,
        bench=bench,
    )


@pytest.fixture
def outcome() -> DeployOutcome:
    items = (
        candidate("float-openvino", 9.4, 1.0, 0.987, "chosen"),
        candidate("float-onnxruntime", 11.2, 1.0, 0.987),
        candidate("original-onnxruntime", 12.5, 1.0, 0.987),
        candidate("original-openvino", 12.9, 1.0, 0.987),
        candidate("fp16-openvino", 9.2, 0.96, 0.93, "rejected", "fail"),
        dataclasses.replace(
            candidate("fp16-onnxruntime", None, 1.0, 0.9, "failed"),
            verify=None,
            bundle=None,
            reason="`onnxruntime` cannot run 1 of 3 nodes <script>alert(1)</script>",
        ),
    )
    return DeployOutcome(
        model_name="net <b>&",
        origin="a" * 64,
        chosen="float-openvino",
        candidates=items,
        speedup=(1.33, 1.29, 1.37),
        budget={"min_agreement": 0.98, "max_drop": None, "threads": 1},
        threads=1,
        samples={"calibrate": 120, "select": 80, "judge": 300},
        skipped=(("bad.jpg", "truncated"),),
        command="edgewright deploy net.onnx --samples photos",
        seed=0,
        environment=Environment.here(),
        notes=("a note",),
    )


def layer_evidence(rng: np.random.Generator, count: int = 90) -> tuple[LocateReport, InspectReport]:
    names = [f"/blocks/{i}/conv" for i in range(count)]
    layers = tuple(
        Layer(
            name=name,
            node=name,
            op_type="Conv",
            noise_floor=2e-7,
            passed=i != 40,
            isolated=TensorError(
                name=name, rel_l2=3e-7, sqnr_db=float(125 + 10 * rng.random() - (60 if i == 40 else 0))
            ),
            cumulative=TensorError(
                name=name, rel_l2=9e-7, sqnr_db=float(118 + 5 * rng.random() - (40 if i >= 40 else 0))
            ),
        )
        for i, name in enumerate(names)
    )
    costs = tuple(
        LayerCost(
            name=name,
            node=name,
            op_type="Conv",
            shape=(1, 32, 56, 56),
            macs=int(4e6 * rng.random()),
            parameter_bytes=4096,
            activation_bytes=200_000,
            time_ms=float(rng.random() * 0.4),
            bound="compute" if i % 3 else "memory",
            efficiency=0.6,
        )
        for i, name in enumerate(names)
    )
    located = LocateReport(
        bundle_hash="b",
        bundle_name="float-openvino",
        stage="net -> openvino 2026.4 fp32",
        layers=layers,
        first=names[40],
        fused=(),
        cause="channels 3 and 17 are swapped",
        reproducer=None,
        samples=2,
        seed=0,
        environment=Environment.here(),
    )
    inspected = InspectReport(
        model_hash="a",
        name="net",
        inputs=("image float32[1, 3, 224, 224]",),
        outputs=("logits",),
        parameters=4_650_000,
        weight_bytes=18_600_000,
        macs=407_000_000,
        layers=costs,
        operators={"Conv": count},
        runtimes={},
        peak_gflops=99.0,
        bandwidth_gbs=12.0,
    )
    return located, inspected


class _Balanced(html.parser.HTMLParser):
    VOID = frozenset({"meta", "br", "i", "img", "rect", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page_is_whole_and_balanced(outcome: DeployOutcome, tmp_path: Path) -> None:
    page = render(outcome, tmp_path)
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    for text in (
        "float-openvino",
        "1.33",
        "same top-1 class",
        "edgewright deploy net.onnx",
        "bad.jpg",
        "a note",
        "88.0 %",
    ):
        assert text in page


def test_page_needs_no_network_and_escapes_names(outcome: DeployOutcome, tmp_path: Path) -> None:
    page = render(outcome, tmp_path)
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)""", page)
    assert "<script" not in page
    assert "net &lt;b&gt;&amp;" in page


def test_outcome_without_winner(outcome: DeployOutcome, tmp_path: Path) -> None:
    lost = dataclasses.replace(
        outcome,
        chosen=None,
        speedup=None,
        candidates=tuple(c for c in outcome.candidates if c.state in {"rejected", "failed"}),
    )
    assert "No candidate is within the budget" in render(lost, tmp_path)


def test_report_reads_what_deploy_wrote(outcome: DeployOutcome, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps(outcome.to_json()), encoding="utf-8")
    assert read_outcome(tmp_path).to_json() == outcome.to_json()
    path = report(tmp_path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_name": 3}', '"text"', "nul\x00"])
def test_malformed_outcome_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(content, encoding="utf-8")
    with pytest.raises(EdgewrightError, match="not a deploy outcome"):
        report(tmp_path)


def test_missing_outcome_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError) as caught:
        report(tmp_path)
    assert caught.value.code == "E104"
    assert "edgewright deploy" in (caught.value.hint or "")


def test_unwritable_page(outcome: DeployOutcome, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps(outcome.to_json()), encoding="utf-8")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(EdgewrightError) as caught:
        report(tmp_path, out=tmp_path / "file" / "page.html")
    assert caught.value.code == "E105"


def test_layer_chart_marks_the_failing_layer(rng: np.random.Generator) -> None:
    located, inspected = layer_evidence(rng)
    chart = charts.layers(located, inspected)
    assert chart is not None
    assert chart.count('class="layer failed"') == 1
    assert chart.count('class="layer passed"') == 89
    assert charts.layers(None, inspected) is None


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 420])
def test_page_in_a_real_browser(
    outcome: DeployOutcome, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    from PIL import Image

    module = sys.modules["edgewright.report"]  # `edgewright.report` itself is the verb
    monkeypatch.setattr(module, "_layers", lambda chosen, run: layer_evidence(rng))
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render(outcome, tmp_path), encoding="utf-8")
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},3200",
            f"--screenshot={shot}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = np.asarray(Image.open(shot).convert("RGB"), np.float32)
    assert picture.shape[1] == width
    # The page is drawn: the accent colour of the chosen candidate and the failing layer's red are on it.
    for colour in ((11, 110, 79), (179, 38, 30)):
        assert (np.abs(picture - np.array(colour)).max(axis=-1) < 12).sum() > 20
    assert (np.abs(picture - picture[0, 0]).max(axis=-1) > 30).mean() > 0.02


@pytest.mark.parametrize(("count", "text"), [(1, "1 sample:"), (3, "3 samples:"), (50, "50 or more samples:")])
def test_disagreements_are_counted_in_words(outcome: DeployOutcome, tmp_path: Path, count: int, text: str) -> None:
    first = outcome.candidates[0]
    assert first.verify is not None
    ids = tuple(f"{index}.jpg" for index in range(count))
    item = dataclasses.replace(first, verify=dataclasses.replace(first.verify, disagreements=ids))
    assert text in render(dataclasses.replace(outcome, candidates=(item,)), tmp_path)


def test_page_says_what_a_reader_can_use(outcome: DeployOutcome, tmp_path: Path) -> None:
    page = render(outcome, tmp_path)
    assert "<code>onnxruntime</code> cannot run" in page  # names in backticks are code
    assert "3 more that pass" in page  # verdicts that only repeat the good news are folded
    many = dataclasses.replace(outcome, notes=tuple(f"note {index}" for index in range(9)))
    assert "9 notes on the measurement" in render(many, tmp_path)
    even = dataclasses.replace(outcome, speedup=(1.01, 1.001, 1.02))
    assert "As fast as the unmodified network" in render(even, tmp_path)  # 1.001 would be printed as 1.00


@pytest.mark.parametrize("count", [1, 2, 20])
def test_charts_grow_with_the_candidates(outcome: DeployOutcome, count: int) -> None:
    long = "prune-and-distil-with-a-name-of-great-length"
    items = tuple(candidate(f"{long}-{i}-onnxruntime", 5.0 + i, 0.99, 0.9) for i in range(count))
    chart, bars = (draw(dataclasses.replace(outcome, candidates=items)) for draw in (charts.trade_off, charts.latency))
    assert bars is not None
    assert bars.count("<rect") == count
    assert (chart is None) == (count < 2)
    if chart is not None:
        height = float(re.findall(r'viewBox="0 0 \d+ ([\d.]+)"', chart)[0])
        places = [float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', chart)]
        assert max(places) < height
        assert all(after - before > 12 for before, after in itertools.pairwise(places))
        names = re.findall(r'class="name"[^>]*>([^<]*)<', chart)
        assert max(map(len, names)) <= 22
