"""passes/lower_binary: every sign as the float graph has it, ties and turned batch norms too; what is no binary layer stays."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgewright as ew
from edgewright.compress import compress
from edgewright.model import Model
from edgewright.ops import packing
from edgewright.passes.lower_binary import _chain
from edgewright.progress import Silent
from edgewright.recipe import Recipe, RecipeStep

CHANNELS, FILTERS = 6, 4
RECIPE = Recipe("x", steps=(RecipeStep("lower_binary"),))
#: All 64 combinations of six signs: every dot product that there is.
EVERY = np.where(np.arange(64)[:, None] >> np.arange(CHANNELS) & 1, np.float32(-1), np.float32(1))


def model_of(body: str, weights: dict[str, np.ndarray], x: str = "N, 6", y: str = "N, K") -> Model:
    """A Model from the text of its nodes; `minus` and `plus` are -1 and +1, `zero` is 0."""
    numbers = {"minus": -1.0, "plus": 1.0, "zero": 0.0}
    stored = {**{name: np.array(value, np.float32) for name, value in numbers.items()}, **weights}
    used = [ir.tensor(array, name=name) for name, array in stored.items() if re.search(rf"\b{name}\b", body)]
    made = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{x}] x) => (float[{y}] y) {{ {body} }}', initializers=used
    )
    from edgewright.graph.shapes import infer

    proto = ir.to_proto(made)
    model = ir.from_proto(proto)  # the text alone does not tie weights to nodes
    infer(model)
    return Model(model)


def lowered(model: Model) -> Model:
    return compress(model, RECIPE)


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph)


def run(model: Model, x: np.ndarray, names: tuple[str, ...], runtime: str = "reference") -> dict[str, np.ndarray]:
    with ew.open(model, runtime=runtime, threads=1) as session:
        return dict(session.run({model.inputs[0].name: x}, outputs=names))


def linear(chain: str, **weights: np.ndarray) -> Model:
    """Signs, a binary layer, `chain` from `d` to `e`, signs again, and a second binary layer that shows them."""
    rng = np.random.default_rng(0)
    stored = {
        "w1": np.where(rng.random((FILTERS, CHANNELS)) < 0.5, np.float32(-1), np.float32(1)),
        "w2": np.eye(FILTERS, dtype=np.float32) * 2 - 1,
    }
    return model_of(
        f"""a = Less(x, zero) b = Where(a, minus, plus) d = Gemm<transB = 1>(b, w1) {chain}
            f = Less(e, zero) s = Where(f, minus, plus) y = Gemm<transB = 1>(s, w2)""",
        {**stored, **{name: np.asarray(array, np.float32) for name, array in weights.items()}},
    )


def assert_signs(model: Model, small: Model, *, equal: bool = True) -> None:
    wanted = run(model, EVERY, ("s", "y"))
    made = run(small, EVERY, ("s:bits", "y"))
    assert (packing.unpack_signs(made["s:bits"], FILTERS) == wanted["s"]).all() == equal
    assert (made["y"] == wanted["y"]).all() == equal


#: Numbers that make ties, products that round, and factors of 0 and below.
NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 4.0, 0.5]), st.floats(-8, 8, width=32))
VECTORS = st.lists(NUMBERS, min_size=FILTERS, max_size=FILTERS)


@settings(max_examples=40, deadline=None)
@given(gamma=VECTORS, beta=VECTORS, mean=VECTORS, variance=st.lists(st.floats(0, 16, width=32), min_size=4, max_size=4))
def test_a_batch_norm_and_a_sign_become_a_comparison(
    gamma: list[float], beta: list[float], mean: list[float], variance: list[float]
) -> None:
    model = linear("e = BatchNormalization(d, g, b0, m, v)", g=gamma, b0=beta, m=mean, v=variance)
    small = lowered(model)
    assert operators(small) == {"PackSigns": 1, "BinaryLinearSigns": 1, "BinaryLinear": 1}
    assert_signs(model, small)


@pytest.mark.parametrize(
    "chain",
    [
        "e = Mul(d, g)",
        "h = Sub(m, d) e = Clip(h, minus, plus)",
        "h = Add(d, m) i = Relu(h) e = Sub(i, plus)",
        "h = Div(d, v) i = PRelu(h, v) e = Add(i, m)",
        "h = LeakyRelu(d) i = Identity(h) e = Add(i, plus)",
    ],
)
def test_whatever_acts_on_channels_becomes_a_comparison(chain: str) -> None:
    model = linear(chain, g=[0, -1, 3, 0.1], m=[1, -2, 0, 2], v=[0.25, 2, 1, 0.3])
    small = lowered(model)
    assert operators(small)["BinaryLinearSigns"] == 1
    assert_signs(model, small)


def test_a_threshold_that_is_one_off_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dot products of six signs are two apart: only a tie can tell < from <=."""
    import edgewright.passes.lower_binary as pass_

    model = linear("e = Sub(d, m)", m=[0, 2, -2, 4])
    assert_signs(model, lowered(model))
    monkeypatch.setattr(pass_, "thresholds", lambda *given: _moved(_chain.thresholds(*given)))
    assert_signs(model, lowered(model), equal=False)


def _moved(rule: Any) -> Any:
    return rule[0] + 1, rule[1]


def test_a_sign_that_changes_twice_stays_a_float() -> None:
    model = linear("h = PRelu(d, v) e = Sub(h, plus)", v=[-1, -1, 1, 1])  # |d| - 1
    small = lowered(model)
    assert operators(small)["BinaryLinearSigns"] == 0
    assert_signs(model, small)


def test_factors_and_shifts_go_into_the_layer_where_floats_are_read() -> None:
    """A residual, a return, or a second reader keeps floats; one factor and one shift are exact."""
    model = linear("h = Mul(d, g) e = Add(h, m)", g=[0.3, -1, 0, 7], m=[1, 0, -2, 0.1])
    graph = model.clone_ir()
    graph.graph.outputs.append(next(v for node in graph.graph for v in node.outputs if v.name == "e"))
    both = Model(graph)
    small = lowered(both)
    assert operators(small) == {"PackSigns": 2, "BinaryLinear": 2}
    wanted, made = run(both, EVERY, ("e", "y")), run(small, EVERY, ("e", "y"))
    for name in ("e", "y"):
        np.testing.assert_array_equal(made[name], wanted[name])


# --- convolutions -----------------------------------------------------------------------------------------------------

CONV = """a = Less(x, t) b = Where(a, minus, plus) p = Pad(b, sides, minus)
    c = Conv<strides = [2, 1], dilations = [1, 2], group = 2>(p, w1, b1) e = PRelu(c, slope)
    f = Less(e, low) s = Where(f, minus, plus) q = Pad(s, all, plus) y = Conv(q, w2)"""


def convolutions(**changed: Any) -> Model:
    rng = np.random.default_rng(1)

    def signs(*shape: int) -> np.ndarray:
        return np.where(rng.random(shape) < 0.5, np.float32(-1), np.float32(1))

    weights = {
        "t": rng.standard_normal((70, 1, 1)).astype(np.float32),
        "w1": signs(6, 35, 3, 2) * np.float32([1, 2, 0.5, 1, 4, 1]).reshape(6, 1, 1, 1),
        "b1": np.float32([0, 4, -1, 2, 0, 3]),
        "slope": np.float32([0.5, 0, 1, 2, 0.25, 0.1]).reshape(6, 1, 1),
        "low": np.float32([0, 2, -1, 3, -8, 0]).reshape(6, 1, 1),
        "w2": signs(5, 6, 2, 2),
        "sides": np.array([1, 2, 2, 1], np.int64),
        "all": np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64),
    }
    body = CONV.replace("Pad(b, sides, minus)", "Pad(b, sides, minus, axes)")
    weights["axes"] = np.array([2, -1], np.int64)
    return model_of(changed.pop("body", body), {**weights, **changed}, "2, 70, 9, 8", "2, 5, H, W")


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime"])
def test_convolutions_of_any_kind(runtime: str) -> None:
    """Strides, dilations, groups, sides, thresholds, weights of a power of two and biases; ONNX Runtime runs the file."""
    model = convolutions()
    small = lowered(model)
    assert operators(small) == {"PackSigns": 1, "BinaryConvSigns": 1, "BinaryConv": 1}
    x = np.random.default_rng(2).standard_normal((2, 70, 9, 8)).astype(np.float32)
    wanted = run(model, x, ("s", "y"))
    made = run(small, x, ("s:bits", "y"), runtime)
    assert 0.2 < (wanted["s"] < 0).mean() < 0.8
    np.testing.assert_array_equal(np.moveaxis(packing.unpack_signs(made["s:bits"], 6), -1, 1), wanted["s"])
    np.testing.assert_array_equal(made["y"], wanted["y"])


def left(model: Model) -> list[str]:
    return list(lowered(model).history[-1].stats["left"])


def test_what_is_nearly_a_binary_layer_says_why_it_is_none() -> None:
    body = CONV.replace("Pad(b, sides, minus)", "Pad(b, sides, minus, axes)")
    several = np.ones((6, 35, 3, 2), np.float32)
    several[0, 0, 0, 0] = 2
    for model, words in (
        (convolutions(body=body.replace("Conv<strides", "Conv<pads = [1, 1, 1, 1], strides")), "zeros are padded"),
        (convolutions(body=body.replace("sides, minus", "sides, zero")), "padding is no constant sign"),
        (convolutions(body=body.replace("Pad(b", 'Pad<mode = "reflect">(b')), "padding is no constant sign"),
        (convolutions(w1=several), "several absolute values"),
        (convolutions(w1=0 * several), "several absolute values"),
    ):
        small = lowered(model)
        assert any(words in reason for reason in small.history[-1].stats["left"]), words
        assert operators(small)["Conv"] == 1  # the second layer is lowered all the same
        assert operators(small)["BinaryConv"] == 1
    other = convolutions(body=body.replace("b = Where(a, minus, plus)", "b = Where(a, minus, zero)"))
    assert operators(lowered(other))["Conv"] == 1


class Noted(Silent):
    """What a pass says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_graph_without_binary_layers_is_left_as_it_is() -> None:
    model = model_of("a = Relu(x) y = Gemm<transB = 1>(a, w)", {"w": np.ones((3, 6), np.float32)})
    said = Noted()
    small = compress(model, RECIPE, progress=said)
    assert small.hash == model.hash
    assert small.history[-1].stats["lowered"] == {}
    assert "nothing is lowered" in said.notes[0]


def test_twice_is_once_and_files_hold_it(tmp_path: Path) -> None:
    once = lowered(convolutions())
    assert lowered(once).hash == once.hash
    path = tmp_path / "low.onnx"
    once.save(path)
    assert operators(ew.load(path)) == operators(once)


# --- trained networks -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["irnet", "adabin"])
def test_a_trained_network_is_lowered_with_every_sign(
    method: str, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    """torch -> ONNX -> bits: the scores of IR-Net are those of torch but for the order of the stem's sums."""
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    from tests.unit.test_learn_binary import settled

    from edgewright.learn.binary.deployed import deployed
    from edgewright.learn.binary.export import export
    from edgewright.learn.binary.method import METHODS
    from edgewright.learn.binary.networks import NETWORKS

    torch.manual_seed(1)
    network = settled(NETWORKS["resnet8"](10, METHODS[method]))
    path = export(network, tmp_path / "net.onnx", shape=(3, 32, 32))
    model = compress(ew.load(path), Recipe("x", steps=(RecipeStep("fold_constants"), RecipeStep("remove_dead"))))
    small = lowered(model)
    assert {**operators(small)}.items() >= {"BinaryConv": 6, "PackSigns": 6}.items()
    assert not {"Less", "Where"} & set(operators(small))
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    signs = [node.outputs[0].name for node in model.ir.graph if node.op_type == "Where"]
    wanted = run(model, x, ("scores", *signs))
    made = run(small, x, ("scores", *(f"{name}:bits" for name in signs)))
    for name in signs:
        unpacked = packing.unpack_signs(made[f"{name}:bits"], wanted[name].shape[1])
        np.testing.assert_array_equal(np.moveaxis(unpacked, -1, 1), wanted[name])
    if method == "irnet":
        np.testing.assert_array_equal(made["scores"], wanted["scores"])
    with torch.no_grad():
        told = deployed(network)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        made["scores"], told, rtol=tolerance["float32"]["rtol"], atol=tolerance["float32"]["atol"]
    )


@pytest.mark.slow
def test_without_shortcuts_signs_go_from_layer_to_layer(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    from tests.unit.test_learn_binary import settled

    from edgewright.learn.binary.export import export
    from edgewright.learn.binary.networks import vgg_small

    torch.manual_seed(1)
    path = export(settled(vgg_small(width=8)), tmp_path / "net.onnx", shape=(3, 32, 32))
    model = compress(ew.load(path), Recipe("x", steps=(RecipeStep("fold_constants"), RecipeStep("remove_dead"))))
    small = lowered(model)
    assert {**operators(small)}.items() >= {"BinaryConvSigns": 2, "BinaryConv": 3}.items()
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    wanted, made = run(model, x, ("scores",)), run(small, x, ("scores",))
    np.testing.assert_array_equal(made["scores"], wanted["scores"])


def test_thresholds_that_make_channels_of_one_are_left() -> None:
    """A comparison may broadcast one channel to several: PackSigns does not."""
    model = model_of(
        "a = Less(x, t) b = Where(a, minus, plus) y = Gemm<transB = 1>(b, w)",
        {"t": np.arange(6, dtype=np.float32), "w": np.ones((3, 6), np.float32)},
        x="N, 1",
    )
    small = lowered(model)
    assert operators(small) == operators(model)
    assert "not as many channels" in left(model)[0]
