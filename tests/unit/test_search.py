"""search: targets, layers in float, recipes, and a whole deployment with a search on a small network and on real weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgewright as ew
from edgewright.bench.stopwatch import Stopwatch
from edgewright.contracts import TimeRatio
from edgewright.deploy.searching import roll_back
from edgewright.errors import EdgewrightError
from edgewright.memo import Memo
from edgewright.recipe import Recipe
from edgewright.records import Candidate, DeployOutcome, Frontier, SearchPoint
from edgewright.report import frontier as section
from edgewright.search.bisection import next_target
from edgewright.search.precision import not_slower
from edgewright.search.recipes import mixed, pruning

SIZE, CLASSES = 16, 5


# --- which targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.97, 0.9, 0.83, 0.71, 0.6, 0.33])
def test_few_targets_find_the_smallest_time_within_the_budget(limit: float) -> None:
    tried: dict[float, bool] = {}
    while (asked := next_target(tried)) is not None:
        assert asked not in tried
        tried[asked] = asked >= limit
    assert len(tried) <= 7
    found = min((target for target, within in tried.items() if within), default=1.0)
    assert limit <= found <= limit + 0.06


def test_a_network_that_bears_everything_is_not_asked_for_the_impossible() -> None:
    tried: dict[float, bool] = {}
    while (asked := next_target(tried)) is not None:
        tried[asked] = True
    assert min(tried) > 0.2


# --- which layers -----------------------------------------------------------------------------------------------------


def clock_of(gains: Mapping[str, float]) -> Any:
    """Time of a network with layers in float, where int8 gains so much in each."""

    def measure(sets: Mapping[str, tuple[str, ...]]) -> dict[str, TimeRatio]:
        values = {name: 1 + sum(gains[layer] for layer in layers) for name, layers in sets.items()}
        return {name: TimeRatio(value, value - 0.01, value + 0.01) for name, value in values.items()}

    return measure


def test_layers_that_int8_makes_slower_go_back_to_float_and_no_others() -> None:
    layers = [f"layer-{index}" for index in range(24)]
    gains = {name: -0.01 if 12 <= index < 15 else 0.02 for index, name in enumerate(layers)}
    assert set(not_slower(layers, clock_of(gains))) == set(layers[12:15])


def test_where_int8_gains_everywhere_no_layer_goes_back() -> None:
    layers = [f"layer-{index}" for index in range(24)]
    assert not_slower(layers, clock_of(dict.fromkeys(layers, 0.02))) == ()
    assert not_slower(layers, clock_of(dict.fromkeys(layers, -0.02))) == tuple(layers)


def test_stretches_that_are_slower_together_are_not_combined() -> None:
    layers = [f"layer-{index}" for index in range(8)]

    def measure(sets: Mapping[str, tuple[str, ...]]) -> dict[str, TimeRatio]:
        values = {name: 0.9 if set(some) in ({"layer-0", "layer-1"}, {"layer-4", "layer-5"}) else 1.1
                  for name, some in sets.items()}  # fmt: skip
        return {name: TimeRatio(value, value, value) for name, value in values.items()}

    assert not_slower(layers, measure) == ("layer-0", "layer-1")


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_of_the_search_reads_back_as_it_was_written(tmp_path: Path) -> None:
    ratios = {'a "quoted" [[]0]\\name': 0.25, "é\n": 0.0}
    recipe = pruning(Recipe.named("int8"), {"spread": "given", "ratios": ratios}, "int8-pruned-85")
    recipe = mixed(recipe, "onnxruntime", ["conv/1", "conv/2"])
    recipe = dataclasses.replace(recipe, convert={"openvino": {"inference_precision": "f32", "n": 1, "on": True}})
    path = tmp_path / f"{recipe.name}.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    again = Recipe.read(path)
    assert again.to_mapping() == recipe.to_mapping()
    assert again.steps[-1].config["keep"] == ["conv/1", "conv/2"]
    names = [step.name for step in again.steps]
    assert names.index("prune_channels") < names.index("refit") < names.index("quantize_static")
    assert len(set(names)) == len(names)
    assert "macs" not in again.steps[names.index("prune_channels")].config


def test_a_memo_takes_what_cannot_be_read_as_not_known(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    assert memo.get(["a", 1]) is None
    memo.put(["a", 1], {"value": 2.5})
    assert memo.get(["a", 1]) == {"value": 2.5}
    assert memo.get(["a", 2]) is None
    next((tmp_path / "memo").iterdir()).write_text("{half")
    assert memo.get(["a", 1]) is None


# --- what became of it ------------------------------------------------------------------------------------------------


def point(name: str, **fields: Any) -> SearchPoint:
    known = {
        "recipe": name, "runtime": "r", "parent": "", "asked": None, "relative": (1.0, 1.0, 1.0), "latency_ms": 1.0,
        "agreement": 1.0, "drop": None, "within": True, "size_bytes": 10**6, "macs": None,
    }  # fmt: skip
    return SearchPoint(name=name, **{**known, **fields})


def test_the_frontier_is_what_no_other_point_beats() -> None:
    points = (
        point("whole", latency_ms=4.0), point("beaten", latency_ms=3.5, agreement=0.9),
        point("small", latency_ms=2.0, agreement=0.95, macs=5), point("tiny", latency_ms=1.0, agreement=0.5, macs=9),
    )  # fmt: skip
    found = Frontier(points=points, required=0.98, max_drop=None, samples=9, minutes=1.0, notes=("why",))
    assert [item.name for item in found.best] == ["tiny", "small", "whole"]
    assert Frontier.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert [item.name for item in section.pareto(points, lambda item: item.macs)] == ["small"]
    picture = str(section.chart(found, "small"))
    assert picture.count('class="mark chosen"') == 3
    assert picture.count("<circle") == 4 + 4 + 2


def test_what_is_not_faster_than_its_parent_is_rolled_back() -> None:
    def result(times: list[float]) -> Any:
        return dataclasses.make_dataclass("Result", ["telemetry"])({"during": {"round_medians_ms": times}})

    def candidate(name: str) -> Candidate:
        return Candidate(name=name, recipe=name, runtime="r", state="verified", reason="")

    drift = [1 + 0.1 * np.sin(index) for index in range(30)]
    wobble = [1 + 0.02 * (-1) ** index for index in range(30)]
    measured = {
        "int8": result(drift),
        "same": result([a * b for a, b in zip(drift, wobble, strict=True)]),
        "faster": result([0.9 * item for item in drift]),
    }
    judged = [candidate(name) for name in measured]
    found = {item.name: item for item in roll_back(judged, measured, {"same": "int8", "faster": "int8"})}
    assert {name: item.state for name, item in found.items()} == {
        "int8": "verified", "same": "rejected", "faster": "verified",
    }  # fmt: skip
    assert found["same"].reason.startswith("rolled back: takes 1.0")
    assert "int8" in found["same"].reason


# --- whole ------------------------------------------------------------------------------------------------------------

PLAN = ew.BenchPlan(min_runs=5, max_runs=20, max_seconds=0.3, min_seconds=0.05)
SEARCH = ew.SearchPlan(minutes=60, points=2, seconds=0.2)


@pytest.fixture(scope="module")
def network() -> ew.Model:
    """A stem and one wide layer, half of which repeats the other half, nearly; two groups of channels."""
    import onnx_ir as ir

    random = np.random.default_rng(3)
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,3,{SIZE},{SIZE}] image) => (float[1,{CLASSES}] logits)
        {{
          stem = Conv <pads = [1,1,1,1]> (image, w1)
          a = Relu (stem)
          wide = Conv <pads = [1,1,1,1]> (a, w2)
          b = Relu (wide)
          narrow = Conv <pads = [1,1,1,1]> (b, w3)
          c = Relu (narrow)
          p = GlobalAveragePool (c)
          f = Flatten (p)
          logits = Gemm <transB = 1> (f, fw)
        }}"""
    )
    shapes = {"w1": (8, 3, 3, 3), "w2": (192, 8, 3, 3), "w3": (8, 192, 3, 3), "fw": (CLASSES, 8)}
    weights = {name: random.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()}
    weights["w2"][64:] = weights["w2"][np.arange(128) % 64] + 0.001 * weights["w2"][64:]
    for value in [v for node in graph.graph for v in node.inputs if v is not None]:
        if value.name in weights and value.name not in graph.graph.initializers:
            array = weights[value.name].astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT
            graph.graph.register_initializer(value)
    spec = ew.Spec(inputs={"image": ew.ImageInput(size=(SIZE, SIZE))}, task="classify")
    return ew.Model(graph, spec, name="tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(4)
    for index in range(80):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((24, 24)).save(folder / f"photo-{index:02d}.png")
    return folder


def deployed(network: ew.Model, photos: Path, out: Path, **options: Any) -> DeployOutcome:
    known = {
        "runtimes": ("onnxruntime",), "recipes": ("float",), "min_agreement": 0.5, "search": SEARCH, "plan": PLAN,
        "layers": False,
    }  # fmt: skip
    return ew.deploy(network, ew.Samples.open(photos, network), out=out, **{**known, **options})


@pytest.fixture(scope="module")
def run(network: ew.Model, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DeployOutcome, Path]:
    out = tmp_path_factory.mktemp("run") / "x"
    return deployed(network, photos, out), out


def test_a_search_hands_on_what_is_faster_and_within_the_budget(run: tuple[DeployOutcome, Path]) -> None:
    outcome, out = run
    found = outcome.frontier
    assert found is not None
    pruned = [item for item in found.points if item.asked is not None]
    assert pruned
    assert {item.parent for item in pruned} == {"float-onnxruntime"}
    assert all(item.macs < found.points[0].macs for item in pruned)  # type: ignore[operator]
    fast = [item for item in pruned if item.within]
    assert fast, [(item.name, item.agreement) for item in pruned]
    proposed = [item for item in outcome.candidates if "pruned" in item.recipe]
    assert [item.recipe for item in proposed] == [min(fast, key=lambda item: item.relative[0]).recipe]
    assert proposed[0].state in ("chosen", "verified") or proposed[0].reason.startswith("rolled back")
    bundle = ew.Bundle.open(out / str(proposed[0].bundle))
    step = next(step for step in bundle.history if step.name == "prune_channels")
    assert step.config["spread"] == "given"


def test_the_page_shows_the_frontier(run: tuple[DeployOutcome, Path]) -> None:
    outcome, out = run
    page = (out / "report.html").read_text()
    assert "The search" in page
    assert outcome.frontier is not None
    for item in outcome.frontier.points:
        assert item.name in page
        assert not item.file or (out / item.file).is_file()
    assert DeployOutcome.from_json(json.loads((out / "outcome.json").read_text())).frontier == outcome.frontier


def test_a_search_goes_on_where_it_stopped(
    run: tuple[DeployOutcome, Path], network: ew.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, out = run
    copied = shutil.copytree(out, tmp_path / "copied")
    for name in ("edgewright.deploy.run", "edgewright.search.exploring"):
        monkeypatch.setattr(sys.modules[name], "compress", lambda *_, **__: pytest.fail("it compressed again"))
    monkeypatch.setattr(Stopwatch, "measure", lambda *_: pytest.fail("it measured again"))
    again = deployed(network, photos, copied)
    assert again.frontier is not None
    assert outcome.frontier is not None
    assert again.frontier.points == outcome.frontier.points


def test_an_interrupted_search_leaves_a_run_that_goes_on(
    run: tuple[DeployOutcome, Path], network: ew.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(run[1], tmp_path / "copied")
    for path in (copied / "memo").iterdir():
        if '"agreement"' in path.read_text():  # the points are asked for again, and the first answer is Ctrl-C
            path.unlink()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sys.modules["edgewright.search.scoring"].Scorer, "score", interrupt)
        deployed(network, photos, copied)
    assert not list(copied.rglob(".*"))
    assert deployed(network, photos, copied).chosen is not None


def test_a_network_without_prunable_groups_is_deployed_and_told_why(photos: Path, tmp_path: Path) -> None:
    import onnx_ir as ir

    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,3,{SIZE},{SIZE}] image) => (float[1,3] logits)
        {{
          p = GlobalAveragePool (image)
          logits = Flatten (p)
        }}"""
    )
    spec = ew.Spec(inputs={"image": ew.ImageInput(size=(SIZE, SIZE))}, task="classify")
    outcome = deployed(ew.Model(graph, spec, name="flat"), photos, tmp_path / "run")
    assert outcome.frontier is not None
    assert [item.name for item in outcome.frontier.points] == ["float-onnxruntime"]
    assert any("no layer makes channels" in note for note in outcome.frontier.notes)
    assert any("no pruning was found" in note for note in outcome.frontier.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overrides": {"prune_channels": {"macs": "0.5"}}}, "the search decides how much"),
        ({"recipes": ("size",)}, "nothing to search from"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_written(
    network: ew.Model, photos: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(EdgewrightError, match=said) as caught:
        deployed(network, photos, tmp_path / "run", **options)
    assert caught.value.code == "E103"
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_search_without_select_samples_says_so(network: ew.Model, photos: Path, tmp_path: Path) -> None:
    samples = ew.Samples.open(photos, network, roles="judge")
    with pytest.raises(EdgewrightError, match="role select") as caught:
        ew.deploy(network, samples, runtimes=("onnxruntime",), recipes=("float",), search=SEARCH, out=tmp_path / "run")
    assert caught.value.code == "E301"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"minutes": 0}, {"minutes": float("nan")}, {"points": 0}, {"seconds": -1}])
def test_a_plan_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError, match=next(iter(fields))):
        ew.SearchPlan(**fields)
