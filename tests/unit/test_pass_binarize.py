"""passes/binarize and the recipe `binary`: a float network becomes one of signs, and ships what was judged."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from tests.unit.test_pass_distil import Drawn, network, stats  # noqa: E402

import edgewright as ew  # noqa: E402
from edgewright.cli.short_options import expand  # noqa: E402
from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.graph.dataflow import add_initializer, constant_array  # noqa: E402
from edgewright.model import Model  # noqa: E402
from edgewright.passes import binarize  # noqa: E402
from edgewright.passes.binarize._statistics import Moments  # noqa: E402
from edgewright.recipe import Recipe  # noqa: E402

QUICK: dict[str, Any] = {"steps": 40, "batch": 8, "evaluations": 3, "least_products": 16, "rate": 0.005}
#: A convolution with a stride, and a linear layer whose weights lie the other way round; no way around either.
BODY = """a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(b, w2, b2)
    e = Relu(c)
    f = GlobalAveragePool(e)
    h = Flatten(f)
    i = MatMul(h, h)
    g = Relu(i)
    y = Gemm<transB = 1>(g, w3, b3)"""


def body() -> Model:
    """`BODY` with a Gemm in place of its MatMul, by weights of its own."""

    model = network(BODY)
    graph = model.clone_ir()
    node = next(node for node in graph.graph if node.op_type == "MatMul")
    weight = np.random.default_rng(5).standard_normal((8, 8)).astype(np.float32)
    node.op_type = "Gemm"
    node.replace_input_with(1, add_initializer(graph.graph, "w4", weight))
    return Model(graph, model.spec)


def binary(model: Model | None = None, samples: Any = None, *, last: str | None = None, **options: Any) -> Model:
    given = {"binarize": {**QUICK, **options}}
    return ew.compress(model or network(), Recipe.named("binary"), samples or Drawn(), overrides=given, last=last)


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph)


def outputs(model: Model, runtime: str = "reference") -> np.ndarray:
    with ew.open(model, runtime=runtime, threads=1) as session:
        return np.concatenate([session.run(sample.arrays)["y"] for sample in Drawn(12)])


def test_a_network_becomes_binary_and_is_lowered() -> None:
    small = binary()
    assert operators(small) >= Counter({"PackSigns": 1, "BinaryConv": 1, "Conv": 1, "Gemm": 1})
    found = small.history[-2].stats
    assert found["binary"] == ["c"]
    assert set(found["float"]) == {"it is a first layer", "it is a last layer"}
    assert found["after"] >= found["before"]
    assert found["curve"][-1]["select_loss"] < found["curve"][0]["select_loss"]
    assert small.lossy
    assert outputs(small, "onnxruntime").shape == (12, 5)


def test_what_ships_is_what_was_judged(monkeypatch: pytest.MonkeyPatch, tolerance: dict[str, dict[str, float]]) -> None:
    """The trained graph, the one of standard operators and the lowered one say the same."""
    from edgewright.learn.network import Network

    trained = []
    real = binarize.settle
    monkeypatch.setattr(
        binarize, "settle", lambda graph, ede: (trained.append(Network(graph).eval()), real(graph, ede))
    )
    model = body()
    small = binary(model, steps=6, least_products=8)
    plain = binary(model, steps=6, least_products=8, last="binarize")
    assert small.history[-2].stats["binary"] == ["c", "i"]
    assert {**operators(small)}.items() >= {"BinaryConv": 1, "BinaryLinear": 1, "PackSigns": 2}.items()
    with torch.no_grad():
        given = torch.cat([torch.from_numpy(sample.arrays["x"]) for sample in Drawn(12)])
        wanted = trained[0]({"x": given}, ("y",))["y"].numpy()
    limit = tolerance["float32"]
    for made in (plain, small):
        np.testing.assert_allclose(outputs(made), wanted, rtol=limit["rtol"], atol=limit["atol"])


def test_padding_and_thresholds_come_from_what_the_layer_reads() -> None:
    """After a Relu all is above 0: thresholds lie in the middle of it, and zeros at the border count as -1."""
    plain = binary(last="binarize", steps=1, rate=1e-6)
    nodes = {node.op_type: node for node in plain.ir.graph}
    threshold, border = constant_array(nodes["Less"].inputs[1]), constant_array(nodes["Pad"].inputs[2])
    assert threshold is not None
    assert border is not None
    assert threshold.shape == (8, 1, 1)
    assert (threshold > 0).all()
    assert border == -1


def test_thresholds_of_zero_after_a_relu_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"last": "binarize", "steps": 30, "ede_least": 10.0}
    right = stats(binary(body(), **given))["curve"][-1]["select_loss"]
    monkeypatch.setattr(Moments, "mean", property(lambda self: np.zeros(8, np.float32)))
    wrong = stats(binary(body(), **given))["curve"][-1]["select_loss"]
    assert wrong > 1.5 * right


def test_a_training_goes_on_where_it_was_left(tmp_path: Path) -> None:
    whole = binary(steps=6, state=tmp_path / "one")
    again = binary(steps=6, state=tmp_path / "one")
    assert again.hash == whole.hash
    assert stats_of_training(again)["steps"] == 6
    with pytest.raises(EdgewrightError, match="E502"):
        binary(steps=7, state=tmp_path / "one")


def stats_of_training(model: Model) -> Any:
    return model.history[-2].stats


def test_select_samples_judge_binary_weights_while_they_are_float() -> None:
    """What is kept is the best of networks that could ship: in a training that ends float, the last judgement is of signs."""
    small = binary(steps=8, float_part=0.9, last="binarize")
    point = small.history[-1].stats["curve"][-1]
    with (
        ew.open(small, runtime="reference", threads=1) as session,
        ew.open(network(), runtime="reference", threads=1) as first,
    ):
        same = [
            session.run(s.arrays)["y"].argmax() == first.run(s.arrays)["y"].argmax() for s in Drawn().role("select")
        ]
    kept = next(p for p in small.history[-1].stats["curve"] if p["step"] == small.history[-1].stats["kept_step"])
    assert point["agreement"] is not None
    assert np.mean(same) == pytest.approx(kept["agreement"])


def test_relus_behind_binary_layers_learn_slopes() -> None:
    with_slopes, without = binary(last="binarize", prelu=True), binary(last="binarize")
    assert operators(with_slopes)["PRelu"] == 1
    assert operators(without)["PRelu"] == 0
    assert operators(with_slopes)["Relu"] == operators(without)["Relu"] - 1
    node = next(node for node in with_slopes.ir.graph if node.op_type == "PRelu")
    slope = constant_array(node.inputs[1])
    assert slope is not None
    assert slope.any()


def test_samples_that_are_not_finite_are_named() -> None:
    with pytest.raises(EdgewrightError, match=r"cannot learn from `x`: .* for sample `s0`") as caught:
        binary(samples=Drawn(spoiled=True))
    assert caught.value.code == "E212"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"float_layers": ("nothing",)}, "E103", "nothing"),
        ({"float_layers": ("c",)}, "E212", "asked to stay float"),
        ({"least_products": 1000}, "E212", "fewer than 1000 terms"),
        ({"least_products": 0}, "E103", "least_products"),
        ({"ede_least": 0.0}, "E103", "EDE"),
        ({"float_part": 1.0}, "E103", "float_part"),
        ({"batch_statistics": False}, "E103", "batch_statistics"),
        ({"rate": 0.0}, "E103", "binarize.rate"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(EdgewrightError, match=words) as caught:
        binary(**options)
    assert caught.value.code == code


def test_graphs_and_samples_that_do_not_fit_are_refused() -> None:
    small = binary(steps=2)
    with pytest.raises(EdgewrightError) as caught:
        binary(small, steps=2)
    assert caught.value.code == "E212"
    with pytest.raises(EdgewrightError) as caught:
        binary(samples=Drawn(roles=("select",)))
    assert caught.value.code == "E301"


@pytest.mark.slow
def test_a_real_network_of_many_layers(data: Path) -> None:
    """EfficientNet-Lite0 with its weights: all but depthwise, first and last layers, and what ships is what was trained."""
    model = ew.load("zoo:efficientnet-lite0")
    samples = ew.Samples.open(data / "imagenet-sample", model, limit=24)
    small = ew.compress(
        model, "binary", samples, overrides={"binarize": {"steps": 1, "batch": 2, "evaluations": 1, "features": 0.0}}
    )
    found = small.history[-2].stats
    assert len(found["binary"]) == 26
    assert {reason: item["count"] for reason, item in found["float"].items()} == {
        "it is a first layer": 1,
        "it is a last layer": 1,
        "its dot products have fewer than 64 terms": 22,
    }
    assert small.history[-1].stats["lowered"] == {"BinaryConv": 25, "BinaryConvSigns": 1, "PackSigns": 25}
    sizes = small.history[-1].stats["weight_bytes"]
    assert sizes["after"] < sizes["before"] / 30


def test_an_option_of_two_passes_belongs_to_the_one_that_the_recipe_runs() -> None:
    given = ["--recipe", "binary", "--minutes", "5"]
    assert expand(given, {"--recipe"}) == ["--recipe", "binary", "--set", "binarize.minutes=5"]
    assert expand(["--recipe=binary", "--rate=0.1"], {"--recipe"}) == ["--recipe=binary", "--set", "binarize.rate=0.1"]
    for recipe in ("float", "unheard"):
        with pytest.raises(EdgewrightError, match="could belong to: binarize, distil"):
            expand(["--recipe", recipe, "--minutes", "5"], {"--recipe"})


def test_the_command_says_that_a_result_is_another_network(tmp_path: Path) -> None:
    network().save(tmp_path / "net.onnx")
    (tmp_path / "arrays").mkdir()
    for sample in Drawn():
        np.savez(tmp_path / "arrays" / f"{sample.id}.npz", **sample.arrays)
    given = ["compress", "net.onnx", "--recipe", "binary", "--samples", "arrays", "--steps", "1", "--out", "small.onnx"]
    command = [sys.executable, "-m", "edgewright", *given, "--set", "binarize.least_products=16"]
    for least, warns in (("0.98", True), ("0.01", False)):
        done = subprocess.run(
            [*command, "--min-agreement", least], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        said = " ".join(done.stderr.split())
        assert ("select samples it agrees with the original in" in said) is warns
        assert ("it cannot stand in for the original" in said) is warns
