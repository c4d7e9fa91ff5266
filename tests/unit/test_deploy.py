"""The picker on synthetic measurements, and deploy end to end on a small network."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright import registry
from edgewright.bench.pairs import ratio
from edgewright.deploy import candidates
from edgewright.deploy.choice import pick, rank, speedup
from edgewright.errors import EdgewrightError
from edgewright.recipe import Recipe, RecipeStep
from edgewright.records import BenchResult, Candidate, Timing

PLAN = ew.BenchPlan(min_runs=10, max_runs=40, max_seconds=0.5)


def result(name: str, rounds: list[float], size_bytes: int = 1_000_000) -> BenchResult:
    median = float(np.median(rounds))
    timing = Timing(
        median_ms=median, low_ms=median, high_ms=median, p90_ms=median, p99_ms=median, mean_ms=median, runs=99
    )
    return BenchResult(
        bundle_hash="h",
        bundle_name=name,
        runtime="r",
        precision="fp32",
        threads=1,
        infer=timing,
        pre=None,
        post=None,
        peak_memory_bytes=1,
        load_ms=1.0,
        size_bytes=size_bytes,
        trust="trusted",
        reasons=(),
        telemetry={"during": {"round_medians_ms": rounds}},
    )


def judged(name: str, precision: str = "fp32", state: str = "verified") -> Candidate:
    recipe, _, runtime = name.partition("-")
    return Candidate(name=name, recipe=recipe, runtime=runtime, state=state, reason="", precision=precision)  # type: ignore[arg-type]


@pytest.fixture
def noise(rng: np.random.Generator) -> Any:
    """Rounds around a median, with a slow drift that all share: only pairing tells small differences apart."""
    drift = 1 + 0.3 * np.abs(np.sin(np.arange(40) / 6))
    return lambda ms, spread=0.01: list(ms * drift * (1 + spread * rng.standard_normal(40)))


class TestPick:
    def test_fastest_verified(self, noise: Any) -> None:
        measured = {n: result(n, noise(ms)) for n, ms in (("original-a", 10.0), ("float-a", 8.0), ("fp16-a", 5.0))}
        items = [judged("original-a"), judged("float-a"), judged("fp16-a", "fp16", "rejected")]
        assert pick(items, measured) == "float-a"

    def test_as_fast_prefers_exact_then_small(self, noise: Any) -> None:
        rounds = noise(8.0)
        again = [value * (1.001 if i % 2 else 0.999) for i, value in enumerate(rounds)]
        measured = {"fp16-a": result("fp16-a", rounds, 1_000_000), "float-a": result("float-a", again, 2_000_000)}
        items = [judged("fp16-a", "fp16"), judged("float-a")]
        assert pick(items, measured) == "float-a"
        items = [judged("fp16-a"), judged("float-a")]
        assert pick(items, measured) == "fp16-a"

    def test_slower_by_more_than_noise_is_not_a_tie(self, noise: Any) -> None:
        measured = {"fp16-a": result("fp16-a", noise(8.0)), "float-a": result("float-a", noise(8.4))}
        assert pick([judged("fp16-a", "fp16"), judged("float-a")], measured) == "fp16-a"

    def test_nothing_verified(self, noise: Any) -> None:
        assert pick([judged("fp16-a", "fp16", "rejected")], {"fp16-a": result("fp16-a", noise(1.0))}) is None
        assert pick([], {}) is None

    def test_speedup_pairs_rounds(self, noise: Any) -> None:
        measured = {
            "original-a": result("original-a", noise(12.0)),
            "original-b": result("original-b", noise(10.0)),
            "float-a": result("float-a", noise(8.0)),
        }
        items = [judged(name) for name in measured]
        found = speedup("float-a", items, measured)
        assert found is not None
        value, low, high = found
        assert low <= value <= high
        assert 1.2 < low < high < 1.3  # 10 / 8, in spite of a drift of 30 %
        assert ratio(measured["float-a"], measured["float-a"]) == (1.0, 1.0, 1.0)

    def test_one_that_left_before_the_machine_got_slow_is_not_the_fastest(self) -> None:
        measured = {
            "original-a": result("original-a", [14.0] * 12),
            "float-a": result("float-a", [10.0] * 12 + [20.0] * 50),
        }
        items = [judged(name) for name in measured]
        assert pick(items, measured) == "float-a"
        assert speedup("float-a", items, measured) == (1.4, 1.4, 1.4)

    def test_rank_says_why(self, noise: Any) -> None:
        measured = {"original-a": result("original-a", noise(10.0)), "float-a": result("float-a", noise(8.0))}
        items = [judged("original-a"), judged("float-a"), judged("fp16-a", state="failed")]
        ranked = rank(items, measured, "float-a")
        assert [item.state for item in ranked] == ["chosen", "verified", "failed"]
        assert "takes 1.2" in ranked[1].reason

    def test_rank_says_why_among_equally_fast(self, noise: Any) -> None:
        rounds = noise(8.0)
        again = [value * (1.001 if i % 2 else 0.999) for i, value in enumerate(rounds)]
        measured = {
            "float-a": result("float-a", rounds, 2_000_000),
            "fp16-a": result("fp16-a", again, 1_000_000),
            "float-b": result("float-b", again, 3_000_000),
            "float-c": result("float-c", again, 2_000_100),
        }
        items = [judged(name, "fp16" if name == "fp16-a" else "fp32") for name in measured]
        chosen = pick(items, measured)
        why = {item.name: item.reason for item in rank(items, measured, chosen)}
        assert chosen is not None
        assert chosen in {"float-a", "float-c"}
        assert why.pop(chosen) == "fastest within the budget; more exact and smaller where speed is the same"
        assert why.pop("fp16-a").endswith("but less exact")
        assert why.pop("float-b").endswith("but larger")
        assert next(iter(why.values())).endswith("x its time)")


CLASSES, SIZE = 5, 16


@pytest.fixture(scope="module")
def network() -> ew.Model:
    """conv - batch norm - relu - pool - linear, symbolic batch, photos in, five classes out."""
    import onnx_ir as ir

    random = np.random.default_rng(3)
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,3,{SIZE},{SIZE}] image) => (float[N,{CLASSES}] logits)
        {{
          c = Conv <pads = [1,1,1,1]> (image, w)
          b = BatchNormalization (c, scale, bias, mean, var)
          r = Relu (b)
          p = GlobalAveragePool (r)
          f = Flatten (p)
          logits = Gemm <transB = 1> (f, fw, fb)
        }}"""
    )
    weights = {
        "w": random.standard_normal((8, 3, 3, 3)),
        "scale": random.uniform(0.5, 2, 8),
        "bias": random.standard_normal(8),
        "mean": random.standard_normal(8),
        "var": random.uniform(0.5, 2, 8),
        "fw": random.standard_normal((CLASSES, 8)),
        "fb": random.standard_normal(CLASSES),
    }
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
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(4)
    for index in range(60):
        pixels = random.integers(0, 256, (24, 24, 3), np.uint8)
        pixels[..., index % 3] //= 4
        Image.fromarray(pixels).save(folder / f"photo-{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def outcome(network: ew.Model, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("run") / "x"
    samples = ew.Samples.open(photos, network)
    return ew.deploy(
        network, samples, runtimes=("onnxruntime",), out=out, plan=PLAN, command="edgewright deploy tiny"
    ), out


@pytest.fixture
def copied(outcome: tuple[Any, Path], tmp_path: Path) -> tuple[Any, Path]:
    """The outcome, and a copy of its run to work on: the others see the run as it was."""
    found, out = outcome
    return found, shutil.copytree(out, tmp_path / "copied")


def test_deploy_hands_back_a_verified_bundle(outcome: tuple[Any, Path]) -> None:
    found, out = outcome
    assert found.chosen is not None
    chosen = found.candidates[0]
    assert (chosen.state, chosen.name) == ("chosen", found.chosen)
    bundle = ew.Bundle.open(out / chosen.bundle)
    assert bundle.hash == chosen.verify.bundle_hash
    assert chosen.verify.decision == "pass"
    assert {item.name for item in found.candidates} >= {"original-onnxruntime", "float-onnxruntime"}
    assert all(item.reason for item in found.candidates)


def test_deploy_writes_what_the_report_needs(outcome: tuple[Any, Path]) -> None:
    found, out = outcome
    assert json.loads((out / "outcome.json").read_text())["chosen"] == found.chosen
    page = (out / "report.html").read_text()
    assert "Layer by layer" in page
    assert "edgewright deploy tiny" in page


def test_deploy_goes_on_where_it_stopped(
    copied: tuple[Any, Path], network: ew.Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = copied
    before = {path: path.stat().st_mtime_ns for path in (out / "bundles").glob("*/bundle.json")}
    calls: list[str] = []
    run = sys.modules["edgewright.deploy.run"]
    monkeypatch.setattr(run, "verify", lambda *a, **k: calls.append("verify"))
    monkeypatch.setattr(run, "convert", lambda *a, **k: calls.append("convert"))
    again = ew.deploy(network, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=out, plan=PLAN)
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {c.name for c in again.candidates} == {c.name for c in found.candidates}


def test_the_verified_race_and_the_unmodified_race(
    copied: tuple[Any, Path], network: ew.Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    module = sys.modules["edgewright.deploy"]
    monkeypatch.setattr(module, "bench", lambda bundles, *a, race, **k: seen.append((bundles, race)) or ())
    found = ew.deploy(network, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=copied[1], plan=PLAN)
    ((bundles, race),) = seen
    assert race == ({c.name for c in found.candidates if c.state == "verified"}, {"original-onnxruntime"})
    assert {bundle.name for bundle in bundles} == {c.name for c in found.candidates if c.verify}


def test_damaged_bundle_is_made_again(copied: tuple[Any, Path], network: ew.Model, photos: Path) -> None:
    _, out = copied
    victim = out / "bundles" / "float-onnxruntime" / "model.onnx"
    victim.write_bytes(victim.read_bytes()[:-7])
    ew.deploy(network, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=out, plan=PLAN, layers=False)
    ew.Bundle.open(victim.parent)


def test_folder_of_another_network_is_refused(copied: tuple[Any, Path], network: ew.Model, photos: Path) -> None:
    _, out = copied
    other = network.with_spec(dataclasses.replace(network.spec, options={"top": 3}))
    with pytest.raises(EdgewrightError, match="another network"):
        ew.deploy(other, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=out, plan=PLAN)


def test_folder_with_something_else_is_refused(network: ew.Model, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EdgewrightError) as caught:
        ew.deploy(network, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=tmp_path, plan=PLAN)
    assert caught.value.code == "E105"
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_pass_that_breaks_the_network_is_rejected_with_its_reason(
    network: ew.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative test of the whole pipeline: a broken lossless pass must not be deployed, however fast it is."""
    plugin = registry.get("passes", "fold_batchnorm")
    whole = plugin.apply

    def broken(ir_model: Any, config: Any, context: Any) -> Any:
        import onnx_ir as ir

        stats = whole(ir_model, config, context)
        value = next(v for v in ir_model.graph.initializers.values() if v.const_value.numpy().ndim == 4)
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
        return stats

    monkeypatch.setattr(plugin, "apply", broken)
    recipe = Recipe("broken", "scales a weight", (RecipeStep("fold_batchnorm"),))
    found = ew.deploy(
        network,
        ew.Samples.open(photos, network),
        runtimes=("onnxruntime",),
        recipes=(recipe,),
        out=tmp_path / "x",
        plan=PLAN,
        layers=False,
    )
    by_name = {item.name: item for item in found.candidates}
    assert by_name["broken-onnxruntime"].state == "rejected"
    assert found.chosen == "original-onnxruntime"


def test_a_bug_in_one_candidate_does_not_end_the_run(
    network: ew.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(ir_model: Any, config: Any, context: Any) -> Any:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(registry.get("passes", "fold_batchnorm"), "apply", crash)
    found = ew.deploy(
        network,
        ew.Samples.open(photos, network),
        runtimes=("onnxruntime",),
        recipes=("float",),
        out=tmp_path / "x",
        plan=PLAN,
        layers=False,
    )
    failed = next(item for item in found.candidates if item.name == "float-onnxruntime")
    assert failed.state == "failed"
    assert "ZeroDivisionError" in failed.reason
    assert "boom" in (tmp_path / "x" / "failures.log").read_text()
    assert found.chosen == "original-onnxruntime"


def test_a_full_disk_ends_the_run_and_says_how_to_go_on(
    network: ew.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> Any:
        raise EdgewrightError("E105", "`model.onnx` cannot be written: No space left on device")

    monkeypatch.setattr(sys.modules["edgewright.deploy.run"], "convert", full)
    with pytest.raises(EdgewrightError) as caught:
        ew.deploy(network, ew.Samples.open(photos, network), runtimes=("onnxruntime",), out=tmp_path / "x", plan=PLAN)
    assert caught.value.code == "E105"
    assert "same command" in (caught.value.hint or "")


def test_too_few_samples_name_an_option_that_exists(network: ew.Model, photos: Path, tmp_path: Path) -> None:
    from edgewright.cli.deploy_command import command

    few = ew.Samples.open(photos, network, roles="calibrate")
    with pytest.raises(EdgewrightError, match="none of 60 samples has the role judge") as caught:
        ew.deploy(network, few, out=tmp_path / "x", plan=PLAN)
    assert "--roles judge" in (caught.value.hint or "")
    assert "--roles" in {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"min_agreement": 0.0}, "E103"),
        ({"min_agreement": 1.5}, "E103"),
        ({"max_drop": -0.1}, "E103"),
        ({"max_drop": 0.01}, "E305"),
        ({"runtimes": ("tensorrt",)}, "E101"),
        ({"recipes": ("int7",)}, "E101"),
        ({"cpu": "z80"}, "E101"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    network: ew.Model, photos: Path, tmp_path: Path, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(EdgewrightError) as caught:
        ew.deploy(network, ew.Samples.open(photos, network), out=tmp_path / "x", plan=PLAN, **arguments)
    assert caught.value.code == code
    assert not (tmp_path / "x").exists()


def test_the_unmodified_model_is_always_a_candidate() -> None:
    names = [item.name for item in candidates(runtimes=("onnxruntime",), recipes=("float",))]
    assert names == ["original-onnxruntime", "float-onnxruntime"]


def test_a_runtime_for_some_operators_is_tried_for_these_or_where_a_recipe_names_it() -> None:
    names = [item.name for item in candidates(recipes=(Recipe("own", "", (), runtimes=("native", "onnxruntime")),))]
    assert {"own-native", "own-onnxruntime"} == {name for name in names if name.startswith("own")}
    assert "original-native" not in names
    assert "original-native" in [item.name for item in candidates(recipes=("float",), domains={"edgewright"})]


def test_a_recipe_that_changes_nothing_shares_the_verdict(
    model_from_text: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = model_from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }', name="bare"
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((20, 4)).astype(np.float32))
    recipe = Recipe("same", "nothing", ())
    found = ew.deploy(
        model,
        ew.Samples.open(tmp_path / "x.npz", model),
        runtimes=("onnxruntime",),
        recipes=(recipe,),
        out=tmp_path / "x",
        plan=PLAN,
        layers=False,
    )
    twin = found.candidates[1]
    assert (twin.state, twin.reason, twin.bench) == ("verified", "the same files as original-onnxruntime", ())
    assert found.chosen == "original-onnxruntime"
