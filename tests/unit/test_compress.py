"""compress: the whole recipe is checked first, each step works on a copy, and the history says what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewright import registry
from edgewright import session as sessions
from edgewright.compress import compress
from edgewright.contracts import Role, Sample
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_array
from edgewright.model import Model
from edgewright.progress import Silent
from edgewright.recipe import Recipe, RecipeStep
from edgewright.spec import Spec
from edgewright.target import Target

BODY = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,3] x) => (float[1,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> { a = MatMul(x, w)  y = Relu(a) }"""
ROLES: tuple[Role, ...] = ("calibrate", "select", "judge")


@dataclass(frozen=True)
class Config:
    factor: float = 2.0


@dataclass(frozen=True)
class FewSamples:
    """Nine samples, three of each role; sample number n holds the value n."""

    kept: tuple[Role, ...] = ROLES

    def __iter__(self) -> Iterator[Sample]:
        for number in range(9):
            if ROLES[number % 3] in self.kept:
                yield Sample(f"s{number}", f"group{number}", {"x": np.full((1, 3), number, np.float32)})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sample.group for sample in self)

    def role(self, *roles: Role) -> FewSamples:
        return FewSamples(tuple(role for role in self.kept if role in roles))


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[tuple[str, int, int | None]] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def update(self, task: str, done: int, total: int | None) -> None:
        self.updates.append((task, done, total))


Install = Callable[..., Recipe]


@pytest.fixture
def model() -> Model:
    return Model(ir.from_onnx_text(BODY))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make passes out of functions: install(name=function) gives a recipe of them."""
    right = registry.get
    made: dict[str, Any] = {}

    def get(kind: str, name: str) -> Any:
        return made[name] if kind == "passes" and name in made else right(kind, name)

    monkeypatch.setattr(registry, "get", get)

    def install(*, needs_samples: bool = False, **passes: Callable[..., Any]) -> Recipe:
        for name, function in passes.items():
            made[name] = SimpleNamespace(
                LOSSY=True, NEEDS_SAMPLES=needs_samples, Config=Config, apply=function, EXTRA=None
            )
        return Recipe("mine", steps=tuple(RecipeStep(name) for name in passes))

    return install


def scale_weight(ir_model: ir.Model, config: Config, context: Any) -> dict[str, Any]:
    value = ir_model.graph.initializers["w"]
    array = constant_array(value)
    assert array is not None
    value.const_value = ir.tensor(array * np.float32(config.factor))
    return {"scaled": 1}


def test_history_and_copies(model: Model, install: Install) -> None:
    before = model.hash
    small = compress(model, install(scale_weight=scale_weight))
    assert [(step.kind, step.name, step.lossy, step.samples) for step in small.history] == [
        ("pass", "scale_weight", True, ())
    ]
    assert small.history[0].config == {"factor": 2.0}
    assert small.history[0].stats == {"scaled": 1}
    assert small.hash != before
    assert small.origin == before
    assert Model(model.ir).hash == before, "the original's graph is not changed"
    assert constant_array(model.ir.graph.initializers["w"])[0, 1] == 2  # type: ignore[index]


def test_original_has_no_steps(model: Model) -> None:
    same = compress(model, "original")
    assert same.hash == model.hash
    assert same.history == ()


def test_shapes_are_inferred_after_each_step(model: Model, install: Install) -> None:
    def forget(ir_model: ir.Model, config: Config, context: Any) -> dict[str, Any]:
        ir_model.graph[0].outputs[0].shape = ir.Shape([7, 7])
        return {}

    small = compress(model, install(forget=forget))
    assert small.ir.graph[0].outputs[0].shape == ir.Shape([1, 2])


def test_overrides_and_their_mistakes(model: Model, install: Install) -> None:
    recipe = install(scale_weight=scale_weight)
    small = compress(model, recipe, overrides={"scale_weight": {"factor": "3"}})
    assert small.history[0].config == {"factor": 3.0}
    for overrides, message in (
        ({"scale_wieght": {"factor": 1}}, "did you mean `scale_weight`"),
        ({"fold_constants": {}}, "has no pass `fold_constants`"),
        ({"scale_weight": {"factr": 1}}, "did you mean `factor`"),
        ({"scale_weight": {"factor": "much"}}, "must be a number"),
    ):
        with pytest.raises(EdgewrightError, match=message) as caught:
            compress(model, recipe, overrides=overrides)
        assert caught.value.code == "E103"


def test_the_whole_recipe_is_checked_before_its_first_step(
    model: Model, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    first = install(first=lambda *_: ran.append("first") or {}).steps
    hungry = install(needs_samples=True, hungry=lambda *_: {}).steps
    for later, code in (
        (RecipeStep("no_such_pass"), "E101"),
        (RecipeStep("to_float16", {"keep": 3.5}), "E103"),
        (RecipeStep("fold_constants", {"max_growth_bytes": -1}), "E103"),
        (hungry[0], "E301"),
    ):
        with pytest.raises(EdgewrightError) as caught:
            compress(model, Recipe("mine", steps=(*first, later)))
        assert caught.value.code == code
    right = registry.get

    def missing(kind: str, name: str) -> Any:
        if name == "hungry":
            raise EdgewrightError("E102", "pass `hungry` needs `torch`, which is not installed")
        return right(kind, name)

    monkeypatch.setattr(registry, "get", missing)
    with pytest.raises(EdgewrightError) as caught:
        compress(model, Recipe("mine", steps=(*first, *hungry)), FewSamples())
    assert caught.value.code == "E102"
    assert ran == []


def test_unknown_recipe(model: Model) -> None:
    with pytest.raises(EdgewrightError, match="did you mean `fp16`"):
        compress(model, "fp61")


def test_target_must_fit_the_recipe(model: Model, install: Install) -> None:
    seen: list[Target] = []
    step = install(look=lambda graph, config, context: seen.append(context.target) or {}).steps
    only = Recipe("mine", steps=step, runtimes=("openvino",))
    compress(model, only)
    compress(model, only, target=Target("openvino", "x86-64-v3"))
    compress(model, Recipe("mine", steps=step))
    assert [target.runtime for target in seen] == ["openvino", "openvino", "onnxruntime"]
    with pytest.raises(EdgewrightError, match="is for `openvino`, but the target is `onnxruntime`") as caught:
        compress(model, only, target=Target("onnxruntime"))
    assert caught.value.code == "E103"
    with pytest.raises(EdgewrightError, match="did you mean `onnxruntime`") as caught:
        compress(model, "float", target=Target("onxruntime"))
    assert caught.value.code == "E101"


def test_passes_see_calibrate_and_select_only_and_what_they_read_is_recorded(model: Model, install: Install) -> None:
    def read_one(graph: ir.Model, config: Config, context: Any) -> dict[str, Any]:
        assert len(context.samples) == 6
        assert len(context.samples.groups) == 6
        next(iter(context.samples.role("select")))
        return {}

    def read_all(graph: ir.Model, config: Config, context: Any) -> dict[str, Any]:
        return {"read": [sample.id for sample in context.samples]}

    def read_none(graph: ir.Model, config: Config, context: Any) -> dict[str, Any]:
        assert len(context.samples.role("judge")) == 0
        return {}

    recipe = install(needs_samples=True, read_one=read_one, read_all=read_all, read_none=read_none)
    steps = compress(model, recipe, FewSamples()).history
    assert steps[0].samples == ("group1",)
    assert steps[1].samples == ("group0", "group1", "group3", "group4", "group6", "group7")
    assert steps[1].stats == {"read": ["s0", "s1", "s3", "s4", "s6", "s7"]}
    assert steps[2].samples == ()


def test_samples_of_other_roles_are_none(model: Model, install: Install) -> None:
    recipe = install(needs_samples=True, hungry=lambda *_: {})
    for samples, message in ((None, "none were given"), (FewSamples().role("judge"), "roles calibrate and select")):
        with pytest.raises(EdgewrightError, match=message) as caught:
            compress(model, recipe, samples)
        assert caught.value.code == "E301"


def test_context_gives_format_seed_and_progress(model: Model, install: Install) -> None:
    seen: list[Any] = []

    def look(graph: ir.Model, config: Config, context: Any) -> None:
        seen.extend((context.seed, context.quant_format.activation_dtype))
        context.progress.note("hello")

    notes = Notes()
    compress(model, install(look=look), seed=5, progress=notes)
    assert seen[0] == 5
    assert seen[1] in ("uint8", "int8")
    assert notes.notes == ["hello"]
    assert notes.updates == [("compress", 0, 1), ("compress", 1, 1)]


@pytest.mark.parametrize(
    ("task", "samples", "expected"),
    [("segment", 20, 0.98), ("classify", 20, 0.95), ("classify", 50, 0.98), ("classify", 500, 0.98)],
)
def test_what_select_samples_must_show(
    model: Model, install: Install, task: str, samples: int, expected: float
) -> None:
    """Where results agree or do not, one sample alone never decides."""
    seen: list[float] = []

    def look(graph: ir.Model, config: Config, context: Any) -> None:
        seen.append(context.required(samples))

    compress(replace(model, spec=Spec(task=task)), install(look=look), min_agreement=0.98)
    assert seen == [pytest.approx(expected)]


def test_a_runtime_without_int8_has_no_format(model: Model, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get("runtimes", "onnxruntime")
    monkeypatch.setattr(plugin, "quant_format", lambda target: None)
    with pytest.raises(EdgewrightError) as caught:
        compress(model, install(look=lambda graph, config, context: {"form": context.quant_format}))
    assert caught.value.code == "E211"


def test_run_shows_any_tensor_of_any_state_and_opens_each_once(
    model: Model, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    right = sessions.open

    def counting(*args: Any, **options: Any) -> Any:
        opened.append(right(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sessions, "open", counting)
    feeds = {"x": np.ones((1, 3), np.float32)}
    results: list[np.ndarray] = []

    def measure(graph: ir.Model, config: Config, context: Any) -> None:
        original = graph.clone()
        results.append(context.run(graph, feeds)["y"])
        results.append(context.run(graph, feeds, ["a"])["a"])
        scale_weight(graph, config, context)
        results.append(context.run(graph, feeds)["y"])
        results.append(context.run(original, feeds)["y"])
        graph.graph[1].op_type = "Neg"
        results.append(context.run(graph, feeds)["y"])

    compress(model, install(measure=measure))
    assert [array.tolist() for array in results] == [[[9, 12]], [[9, 12]], [[18, 24]], [[9, 12]], [[-18, -24]]]
    runtimes = [session.bundle.runtime for session in opened]
    assert runtimes.count("reference") == 1
    assert len(runtimes) == 4
    for session in opened:
        assert not session.bundle.path.exists(), "every session is closed in the end"


def test_run_refuses_wrong_inputs(model: Model, install: Install) -> None:
    recipe = install(look=lambda graph, config, context: context.run(graph, {"z": np.ones(3, np.float32)}))
    with pytest.raises(EdgewrightError) as caught:
        compress(model, recipe)
    assert caught.value.code == "E230"


def test_a_wrong_exact_runtime_is_found(model: Model, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    right = sessions.Session.run

    def wrong(self: Any, inputs: Any, outputs: Any = None) -> Any:
        results = right(self, inputs, outputs)
        factor = 1 if self.bundle.runtime == "reference" else 1.01
        return {name: array * factor for name, array in results.items()}

    monkeypatch.setattr(sessions.Session, "run", wrong)
    feeds = {"x": np.ones((1, 3), np.float32)}
    with pytest.raises(EdgewrightError, match="does not agree with the reference") as caught:
        compress(model, install(look=lambda graph, config, context: context.run(graph, feeds)))
    assert caught.value.code == "E232"


def test_what_the_reference_cannot_run_is_said(model: Model, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.contracts import Problem

    plugin = registry.get("runtimes", "reference")
    monkeypatch.setattr(plugin, "supports", lambda graph: (Problem("n", "MatMul", "not today"),))
    notes = Notes()
    feeds = {"x": np.ones((1, 3), np.float32)}

    def run_twice(graph: ir.Model, config: Config, context: Any) -> None:
        context.run(graph, feeds)
        context.run(graph, feeds)

    compress(model, install(run_twice=run_twice), progress=notes)
    assert len(notes.notes) == 1
    assert "not checked against the reference" in notes.notes[0]


def test_a_pass_that_renames_the_interface_is_our_bug(model: Model, install: Install) -> None:
    def rename(graph: ir.Model, config: Config, context: Any) -> None:
        graph.graph.outputs[0].name = "z"

    with pytest.raises(AssertionError, match="changed the outputs"):
        compress(model, install(rename=rename))


def test_sessions_close_when_a_pass_fails(model: Model, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    right = sessions.open
    monkeypatch.setattr(sessions, "open", lambda *a, **o: opened.append(right(*a, **o)) or opened[-1])

    def fail(graph: ir.Model, config: Config, context: Any) -> None:
        context.run(graph, {"x": np.ones((1, 3), np.float32)})
        raise EdgewrightError("E212", "no")

    with pytest.raises(EdgewrightError, match="no"):
        compress(model, install(fail=fail))
    assert opened
    assert all(not session.bundle.path.exists() for session in opened)


def test_compressing_in_two_goes_is_one(model: Model) -> None:
    once = compress(model, "fp16")
    twice = compress(compress(model, "float"), "fp16")
    assert once.hash == twice.hash
    assert len(twice.history) == 7
    assert once.lossy
    assert not compress(model, "float").lossy


def test_history_survives_a_file(model: Model, tmp_path: Any) -> None:
    from edgewright.load import load

    small = compress(model, "fp16")
    again = load(small.save(tmp_path / "small.onnx"))
    assert again.hash == small.hash
    assert [step.name for step in again.history][-4:] == [step.name for step in small.history]
    assert again.origin == model.hash


@pytest.mark.parametrize("value", [0, -0.5, 1.01, float("nan")])
def test_min_agreement_must_be_a_share(model: Model, value: float) -> None:
    with pytest.raises(EdgewrightError, match="must be above 0 and at most 1") as caught:
        compress(model, "original", min_agreement=value)
    assert caught.value.code == "E103"
