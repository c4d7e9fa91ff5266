"""`learn.network`: whole graphs in torch against the reference, what is learnt, integers, and what is written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

import onnx  # noqa: E402
import onnx_ir as ir  # noqa: E402

from edgewright import session  # noqa: E402
from edgewright.compress import compress  # noqa: E402
from edgewright.contracts import Cut  # noqa: E402
from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.graph.cut import extract  # noqa: E402
from edgewright.graph.int8 import Room, neighbours, saturating_layers  # noqa: E402
from edgewright.learn import integers  # noqa: E402
from edgewright.learn.network import Network  # noqa: E402
from edgewright.load import load  # noqa: E402
from edgewright.metrics import rel_l2  # noqa: E402
from edgewright.model import Model  # noqa: E402
from edgewright.samples import Samples  # noqa: E402
from edgewright.target import Target  # noqa: E402

#: Of the 48, small ones of many kinds; benchmarks/learn_architectures.py runs all of them.
SOME = ("bireal", "crelu_net", "crnn", "espcn", "fast_scnn", "groupnorm_resnet", "lstm_speaker", "mlp_mixer",
        "mobilefacenet", "resnet18_qdq", "siamese", "style_transfer", "swin_micro", "wave_glu", "yolo_dfl")  # fmt: skip

SMALL = """<ir_version: 10, opset_import: ["" : 21]> g (float[N, 4, 8, 8] x) => (float[N, 6] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    b = Relu(a)
    c = Conv(b, w2, b2)
    d = GlobalAveragePool(c)
    y = Flatten(d)
}"""


@pytest.fixture
def small(rng: np.random.Generator) -> Model:
    """Two convolutions with random weights."""
    sizes = {"w1": (8, 4, 3, 3), "b1": (8,), "w2": (6, 8, 1, 1), "b2": (6,)}
    graph = ir.from_onnx_text(SMALL, initializers=[
        ir.tensor((rng.standard_normal(shape) * 0.3).astype(np.float32), name=name) for name, shape in sizes.items()
    ])  # fmt: skip
    return Model(graph)


@pytest.fixture
def quantized(small: Model, tmp_path: Path, rng: np.random.Generator) -> Model:
    """The same in int8, for kernels that add pairs of products in 16 bits."""
    arrays = {f"{i:03}": rng.standard_normal((1, 4, 8, 8)).astype(np.float32) for i in range(24)}
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", x=array)
    samples = Samples.open(tmp_path, small, roles="calibrate")
    return compress(small, "int8", samples, target=Target("onnxruntime", cpu="x86-64-v3"))


def _run(network: Network, feeds: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        made = network({name: torch.from_numpy(array) for name, array in feeds.items()}, outputs)
    return {name: value.numpy() for name, value in made.items()}


@pytest.mark.parametrize("name", SOME)
def test_whole_networks_give_the_numbers_of_the_runtime(
    name: str, data: Path, architectures: ModuleType, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    feeds = architectures.example_inputs(proto)
    onnx.save(proto, tmp_path / "net.onnx")
    model = load(tmp_path / "net.onnx")
    if name.endswith("qdq"):
        check_between_roundings(model, feeds, tolerance)
        return
    with session.open(model, runtime="onnxruntime", threads=1) as opened:
        expected = opened.run(feeds)
    got = _run(Network(model.ir), feeds, list(expected))
    assert max(rel_l2(expected[key], got[key]) for key in expected) <= tolerance["float32"]["rel_l2"]


def check_between_roundings(model: Model, feeds: dict[str, np.ndarray], tolerance: dict[str, dict[str, float]]) -> None:
    """All floats that are made of the reference's rounded ones are right, and floats are rounded as the reference rounds.

    One after the other, since sums have another order on each kind of CPU: a single one on the edge of a step that is rounded
    the other way changes all that follows.
    """
    rounded = [node for node in model.ir.graph if node.op_type == "DequantizeLinear" and node.inputs[0].producer()]
    before = [str(node.inputs[0].producer().inputs[0].name) for node in rounded]
    after = [str(node.outputs[0].name) for node in rounded]
    ends = [info.name for info in model.outputs]
    with session.open(model, runtime="reference") as opened:
        known = dict(feeds) | opened.run(feeds, outputs=list(dict.fromkeys([*before, *after, *ends])))
    assert len(rounded) > 10
    starts = (*feeds, *after)
    made = _run(
        Network(extract(model.ir, Cut(starts, tuple(dict.fromkeys([*before, *ends]))))), known, [*before, *ends]
    )
    assert max(rel_l2(known[key], made[key]) for key in (*before, *ends)) <= tolerance["float32"]["rel_l2"]
    again = _run(Network(extract(model.ir, Cut(tuple(dict.fromkeys(before)), tuple(after)))), known, after)
    assert all(np.array_equal(known[key], again[key]) for key in after)


def test_gradients_of_a_whole_network_are_those_of_finite_differences(small: Model, rng: np.random.Generator) -> None:
    network = Network(small.ir).double()
    x = torch.from_numpy(rng.standard_normal((2, 4, 8, 8)))
    network({"x": x}, ("y",))["y"].square().sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in network.weights().items()}
    step = 1e-6
    with torch.no_grad():
        for name, weight in network.weights().items():
            direction = torch.from_numpy(rng.standard_normal(tuple(weight.shape)))
            values = []
            for sign in (1, -1):
                weight.add_(direction, alpha=sign * step)
                values.append(float(network({"x": x}, ("y",))["y"].square().sum()))
                weight.add_(direction, alpha=-sign * step)
            slope = float((gradients[name] * direction).sum())
            assert abs((values[0] - values[1]) / (2 * step) - slope) <= 1e-6 * max(abs(slope), 1), name


def test_weights_have_their_names_and_come_back_whole(small: Model) -> None:
    copy = small.clone_ir()
    network = Network(copy)
    assert set(network.learnt) == {"w1", "b1", "w2", "b2"}
    with torch.no_grad():
        network.weights()["w2"].mul_(2)
    assert network.write(copy) == 4
    got, old = copy.graph.initializers["w2"].const_value, small.ir.graph.initializers["w2"].const_value
    assert (got.numpy() == 2 * old.numpy()).all()
    assert got.name == "w2"
    assert (
        copy.graph.initializers["w1"].const_value.numpy() == small.ir.graph.initializers["w1"].const_value.numpy()
    ).all()


def test_what_is_kept_is_not_learnt(small: Model) -> None:
    assert set(Network(small.ir, keep=("w1", "b2")).learnt) == {"b1", "w2"}


# --- integers ---------------------------------------------------------------------------------------------------------


def test_integers_are_learnt_as_floats_and_written_as_integers_of_the_same_types(quantized: Model) -> None:
    copy = quantized.clone_ir()
    network = Network(copy)
    before = {name: value.const_value for name, value in copy.graph.initializers.items()}
    assert len(network.integers) == 4  # two layers, weights and biases
    network.write(copy)
    for name, value in copy.graph.initializers.items():
        assert value.const_value.dtype == before[name].dtype
        assert (value.const_value.numpy() == before[name].numpy()).all(), name  # nothing was learnt: nothing changes


def test_the_file_holds_what_was_trained(quantized: Model, rng: np.random.Generator) -> None:
    copy = quantized.clone_ir()
    network = Network(copy)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    x = rng.standard_normal((4, 4, 8, 8)).astype(np.float32)
    for _ in range(5):
        optimizer.zero_grad()
        network({"x": torch.from_numpy(x)}, ("y",))["y"].square().sum().backward()
        optimizer.step()
        network.hold()
    whole = network.quantized()
    network.write(copy)
    changed = 0
    for name, levels in whole.items():
        written = copy.graph.initializers[name].const_value.numpy()
        assert (written == levels).all()
        changed += int((written != quantized.ir.graph.initializers[name].const_value.numpy()).sum())
    assert changed > 50
    # A network read from the file is the network that was trained, to the last bit.
    assert (_run(Network(copy), {"x": x}, ["y"])["y"] == _run(network, {"x": x}, ["y"])["y"]).all()


def test_products_stay_within_sixteen_bits(quantized: Model) -> None:
    def trained(*, held: bool) -> tuple[str, ...]:
        copy = quantized.clone_ir()
        network = Network(copy)
        with torch.no_grad():
            for name, weight in network.weights().items():
                weight.mul_(1.5 if network.integers[name].levels.ndim > 1 else 1)
        if held:
            network.hold()
        network.write(copy)
        return saturating_layers(copy)

    assert saturating_layers(quantized.ir) == ()
    assert trained(held=False) != ()  # the test can fail
    assert trained(held=True) == ()


@pytest.mark.parametrize(
    "shape", [(6, 8, 3, 3), (5, 3, 1, 1), (12, 1, 3, 3)], ids=["pairs", "odd channels", "depthwise"]
)
def test_what_fits_is_left_alone_and_the_rest_held_as_the_kernels_demand(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    groups = shape[0] if shape[1] == 1 else 1
    numbers = neighbours(shape, convolution=True, groups=groups)
    room = Room(64) if numbers is None else Room(127, numbers)
    levels = rng.integers(-127, 128, shape)
    levels[0] = rng.integers(-64, 65, shape[1:])  # always fits
    held = integers.Integers(
        levels, np.full(shape[0], 0.01, np.float32), None, 0, 0, (-127, 127), (room, True)
    )  # fmt: skip
    floats = torch.from_numpy(held.floats()) + 0.001
    before = floats.clone()
    held.hold(floats)
    expected = room.held(levels.reshape(shape[0], -1).astype(np.float64)).reshape(shape)
    assert (held.quantized(floats) == expected).all()
    same = torch.from_numpy(expected == levels)
    assert (floats[same] == before[same]).all(), "what fits keeps what it learnt below a step"
    assert bool(same.all()) == (numbers is not None and groups > 1)  # else something was held


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("y = NonMaxSuppression(x, x)", "NonMaxSuppression"),
        ("y = If<then_branch = t () => (float z) { z = Identity(x) }, "
         "else_branch = e () => (float z) { z = Neg(x) }>(c)", "control flow"),
    ],
)  # fmt: skip
def test_a_node_without_a_rule_is_named_before_training(
    model_from_text: Callable[..., Any], body: str, text: str
) -> None:
    head = '<ir_version: 10, opset_import: ["" : 21]> g (float[1, 2, 4] x, bool c) => (float y)'
    model = model_from_text(f"{head} {{ {body} }}")
    with pytest.raises(EdgewrightError, match=text) as caught:
        Network(model.ir)
    assert caught.value.code == "E212"
    assert "`y`" in caught.value.message


def test_a_node_that_fails_is_named(small: Model) -> None:
    with pytest.raises(EdgewrightError, match="Conv") as caught:
        Network(small.ir)({"x": torch.zeros(1, 3, 8, 8)}, ("y",))
    assert caught.value.code == "E212"
    with pytest.raises(EdgewrightError, match="nowhere"):
        Network(small.ir)({"x": torch.zeros(1, 4, 8, 8)}, ("nowhere",))


def test_weights_of_another_type_than_the_inputs_are_refused(small: Model) -> None:
    small.ir.graph.initializers["w1"].const_value = ir.tensor(
        np.zeros((8, 4, 3, 3)), dtype=ir.DataType.DOUBLE, name="w1"
    )
    with pytest.raises(EdgewrightError) as caught:
        Network(small.ir)({"x": torch.zeros(1, 4, 8, 8)}, ("y",))
    assert caught.value.code == "E212"
