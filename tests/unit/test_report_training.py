"""The page's section on training: the curve and a sentence of each training, and nothing breaks it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edgewright.bundle import MANIFEST, Bundle
from edgewright.model import Step
from edgewright.records import Candidate, DeployOutcome, Environment
from edgewright.report import render
from edgewright.report.training import MOST_PARTS, chart, parts
from edgewright.spec import Spec

CURVE = [
    {"step": 0, "seconds": 0.0, "loss": None, "agreement": 0.5, "select_loss": 2.0},
    {"step": 10, "seconds": 60.0, "loss": 1.5, "agreement": 0.75, "select_loss": 1.0},
    {"step": 20, "seconds": 120.0, "loss": 1.2, "agreement": 0.7, "select_loss": 0.9},
]
TOLD = {"steps": 20, "seconds": 120.0, "samples": 40, "before": 0.5, "after": 0.75, "kept_step": 10, "curve": CURVE}


def deployed(run: Path, *told: Any) -> DeployOutcome:
    items = []
    for number, stats in enumerate(told):
        name = f"small-runtime{number}"
        step = Step(kind="pass", name="distil", lossy=True, stats=stats)
        bundle = Bundle(
            path=run / name, name=name, runtime=f"runtime{number}", runtime_version="1", precision="fp32",
            spec=Spec(), inputs=(), outputs=(), tensor_names={}, files={}, history=(step,),
        )  # fmt: skip
        bundle.path.mkdir(parents=True)
        (bundle.path / MANIFEST).write_text(json.dumps(bundle.to_json()), encoding="utf-8")
        items.append(Candidate(name=name, recipe="x", runtime=bundle.runtime, state="verified", reason="", bundle=name))
    return DeployOutcome(
        model_name="net", origin="a" * 64, chosen=None, candidates=tuple(items), speedup=None,
        budget={"min_agreement": 0.98, "max_drop": None}, threads=1, samples={}, skipped=(), command="", seed=0,
        environment=Environment.here(),
    )  # fmt: skip


def test_the_curve_is_on_the_page_once_for_all_that_hold_its_result(tmp_path: Path) -> None:
    outcome = deployed(tmp_path, TOLD, TOLD)
    (part,) = parts(outcome, tmp_path)
    assert len(part.items) == 2
    assert "20 steps in 2.0 minutes on 40 calibrate samples, without labels" in part.sentence
    assert "50.0 % before, 75.0 % after; the weights of step 10 were kept" in part.sentence
    page = render(outcome, tmp_path)
    assert page.count("<h2>Training</h2>") == 1
    assert str(chart(part)) in page
    assert chart(part).count("<polyline") == 2


def test_without_training_there_is_no_section(tmp_path: Path) -> None:
    assert "<h2>Training</h2>" not in render(deployed(tmp_path, {"groups": 3}), tmp_path)


def test_many_trainings_are_cut_off(tmp_path: Path) -> None:
    outcome = deployed(tmp_path, *({**TOLD, "samples": number} for number in range(MOST_PARTS + 2)))
    assert render(outcome, tmp_path).count("Trained to say") == MOST_PARTS


@pytest.mark.parametrize(
    "junk", [None, "text", math.nan, math.inf, True, [], {}, [[1]], 10**400, -(2**70), "</svg><script>", -5]
)
def test_nothing_in_a_history_breaks_the_page(junk: Any, tmp_path: Path) -> None:
    rows = [{**row, key: junk} for row in CURVE for key in row]
    told = [{**TOLD, key: junk} for key in TOLD] + [{**TOLD, "curve": [*CURVE, *rows, junk]}]
    page = render(deployed(tmp_path, *told), tmp_path)
    assert "<script>" not in page
    assert "nan" not in page.split("<h2>Training</h2>")[-1].split("</section>")[0]
