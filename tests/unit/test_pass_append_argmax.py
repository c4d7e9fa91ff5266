"""Pass `append_argmax`: the same classes as from scores, on every runtime that has the operator; what is no map is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright import registry
from edgewright.errors import EdgewrightError
from edgewright.recipe import Recipe, RecipeStep
from edgewright.spec import Spec, TensorInput

Make = Callable[..., ew.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21]> '
SPEC = Spec({"x": TensorInput()}, "segment")
#: Three classes, the second and third equal: ties must go to the lower.
NET = HEAD + ("g (float[1,2,5,6] x) => (float[1,3,5,6] y) <float[3,2,1,1] w = {1, 0, 0, 1, 0, 1}> { y = Conv(x, w) }")


def recipe(**config: Any) -> Recipe:
    return Recipe("mine", steps=(RecipeStep("append_argmax", config),))


def samples(model: ew.Model, folder: Path, count: int = 40) -> ew.Samples:
    x = np.random.default_rng(0).standard_normal((count, 2, 5, 6)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    return ew.Samples.open(folder / "x.npz", model, roles="judge")


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime", "openvino", "litert"])
def test_the_same_classes_as_from_scores(runtime: str, model_from_text: Make, tmp_path: Path) -> None:
    if runtime not in registry.installed("runtimes"):
        pytest.skip(f"{runtime} is not installed")
    model = model_from_text(NET, spec=SPEC)
    judges = samples(model, tmp_path)
    bundle = ew.convert(ew.compress(model, recipe()), runtime, tmp_path / "bundle")
    (output,) = bundle.outputs
    assert (output.name, output.dtype, output.shape) == ("y", "int64", (1, 5, 6))
    report = ew.verify(model, bundle, judges, min_agreement=0.9)
    assert report.decision == "pass"
    (agreed,) = [gate for gate in report.gates if gate.name == "agreement"]
    assert agreed.value == 1.0
    with ew.open(bundle) as session:
        assert max(session.run(sample.arrays)["y"].max() for sample in judges) == 1  # never the third


def test_what_argmax_gives_is_judged_not_believed(model_from_text: Make, tmp_path: Path) -> None:
    """A bundle whose network is another must fail, though all its numbers are whole classes."""
    model = model_from_text(NET, spec=SPEC)
    other = model_from_text(NET.replace("{1, 0, 0, 1, 0, 1}", "{0, 1, 1, 0, 0, 1}"), spec=SPEC)
    step = ew.compress(model, recipe())
    broken = step.with_ir(ew.compress(other, recipe()).ir, step.history[-1])
    report = ew.verify(model, ew.convert(broken, "onnxruntime", tmp_path / "b"), samples(model, tmp_path))
    assert report.decision == "fail"


def test_scores_that_vanish_without_a_word_fail(model_from_text: Make, tmp_path: Path) -> None:
    """Only a step that says so may turn scores into classes."""
    model = model_from_text(NET, spec=SPEC)
    small = ew.compress(model, recipe())
    silent = model.with_ir(small.ir, small.history[-1].__class__(kind="pass", name="other", lossy=True))
    report = ew.verify(model, ew.convert(silent, "onnxruntime", tmp_path / "b"), samples(model, tmp_path))
    assert report.decision == "fail"


def test_locate_leaves_the_decided_output_out(model_from_text: Make, tmp_path: Path) -> None:
    text = NET.replace("{ y = Conv(x, w) }", "{ z = Relu(x)\n y = Conv(z, w) }")
    model = model_from_text(text, spec=SPEC)
    bundle = ew.convert(ew.compress(model, recipe()), "onnxruntime", tmp_path / "b")
    report = ew.locate(model, bundle, samples(model, tmp_path, count=2))
    assert report.first is None


def test_one_of_several_outputs(model_from_text: Make) -> None:
    text = HEAD + ("g (float[1,2,5,6] x) => (float[1,2,5,6] y, float[1,2,5,6] z) { y = Relu(x)\n z = Neg(y) }")
    model = model_from_text(text)
    small = ew.compress(model, recipe(output="y"))
    assert [(info.name, info.dtype, info.shape) for info in small.outputs] == [
        ("y", "int64", (1, 5, 6)),
        ("z", "float32", (1, 2, 5, 6)),
    ]
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)
    with ew.open(small, runtime="reference") as session:
        got = session.run({"x": x})
    assert np.array_equal(got["y"], np.maximum(x, 0).argmax(1))
    assert np.array_equal(got["z"], -np.maximum(x, 0)), "what reads the scores inside still does"
    with pytest.raises(EdgewrightError, match="must name one of the outputs: `y`, `z`") as caught:
        ew.compress(model, recipe())
    assert caught.value.code == "E103"
    with pytest.raises(EdgewrightError, match=r"did you mean|is not an output") as caught:
        ew.compress(model, recipe(output="yy"))
    assert caught.value.code == "E103"


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,2,5] x) => (float[1,2,5] y) { y = Relu(x) }",
        "g (float[1,1,5,6] x) => (float[1,1,5,6] y) { y = Sigmoid(x) }",
        "g (float[1,C,5,6] x) => (float[1,C,5,6] y) { y = Relu(x) }",
        "g (int64[1,2,5,6] x) => (int64[1,2,5,6] y) { y = Neg(x) }",
        "g (float[1,2,5,6] x) => (float[1,2,5,6] x) { }",
    ],
)
def test_what_is_no_map_of_scores_is_refused(text: str, model_from_text: Make) -> None:
    with pytest.raises(EdgewrightError, match=r"needs scores|needs two classes") as caught:
        ew.compress(model_from_text(HEAD + text), recipe())
    assert caught.value.code == "E212"


def test_twice_is_refused(model_from_text: Make) -> None:
    once = ew.compress(model_from_text(NET), recipe())
    with pytest.raises(EdgewrightError, match=r"`y` is int64\[1, 5, 6\]"):
        ew.compress(once, recipe())
