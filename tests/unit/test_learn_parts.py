"""Parts of the training loop: batches, crops, pairs of tensors, losses, the saved state, what is learnt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from edgewright.channel_map import Kept  # noqa: E402
from edgewright.contracts import Role, Sample  # noqa: E402
from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.graph.shapes import infer  # noqa: E402
from edgewright.learn import feeding, losses, pairing  # noqa: E402
from edgewright.learn.judging import Best, Judgement  # noqa: E402
from edgewright.learn.network import Network  # noqa: E402
from edgewright.learn.pairing import Pair  # noqa: E402
from edgewright.learn.roles import own_statistics, roles  # noqa: E402
from edgewright.learn.states import State  # noqa: E402
from edgewright.spec import ImageInput, Spec  # noqa: E402

Parse = Callable[..., Any]
HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


class Counted:
    """Ten samples; counts how often each is read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[Sample]:
        for index in range(10):
            self.read += 1
            yield Sample(f"s{index}", f"{index:064x}", {"x": np.full((1, 4), index, np.float32)})

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in range(10))

    def role(self, *roles: Role) -> Counted:
        return self


def _ids(feed: feeding.Feed, start: int, count: int) -> list[list[str]]:
    return [[sample.id for sample in batch] for batch in itertools.islice(feed.batches(start), count)]


@pytest.mark.parametrize("window", [feeding._WINDOW_BYTES, 40])
def test_batches_depend_on_seed_and_number_alone(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "_WINDOW_BYTES", window)
    whole = _ids(feeding.Feed(Counted(), 4, 7), 0, 10)
    assert _ids(feeding.Feed(Counted(), 4, 7), 3, 7) == whole[3:]
    assert _ids(feeding.Feed(Counted(), 4, 8), 0, 10) != whole
    seen = list(itertools.chain(*whole))
    for epoch in range(4):  # every sample once in each round
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == sorted(f"s{i}" for i in range(10))


def test_what_fits_in_memory_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Counted()
    _ids(feeding.Feed(small, 4, 0), 0, 10)
    assert small.read == 10
    monkeypatch.setattr(feeding, "_WINDOW_BYTES", 40)  # of 160
    large = Counted()
    feed = feeding.Feed(large, 4, 0)
    _ids(feed, 0, 10)
    assert large.read > 10
    assert feed._held is None


@pytest.mark.parametrize("side", [20, 80])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_crops_keep_shape_and_range_and_differ(layout: Any, side: int, rng: np.random.Generator) -> None:
    size = (side, side + 10)
    shape = (1, 3, *size) if layout == "nchw" else (1, *size, 3)
    x = torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))
    spec = Spec({"x": ImageInput(size=size, layout=layout)}, task="classify")
    made = [feeding.augmented({"x": x}, spec, np.random.default_rng(seed))["x"] for seed in range(4)]
    assert all(item.shape == x.shape and item.min() >= x.min() and item.max() <= x.max() for item in made)
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[0], feeding.augmented({"x": x}, spec, np.random.default_rng(0))["x"])


def test_small_photos_are_moved_and_mirrored_but_not_enlarged(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 16, 40)).astype(np.float32))
    spec = Spec({"x": ImageInput(size=(16, 40))}, task="classify")
    moves = []
    for seed in range(60):
        made = feeding.augmented({"x": x}, spec, np.random.default_rng(seed))["x"]
        moves += [
            (down, right, flipped)
            for flipped, source in ((False, x), (True, x.flip(3)))
            for down in range(-2, 3)
            for right in range(-5, 6)
            if torch.equal(made[:, :, 2:-2, 5:-5], source.roll((down, right), (2, 3))[:, :, 2:-2, 5:-5])
        ]
    assert len(moves) == 60  # every one is a move, and only one
    assert {down for down, _, _ in moves} == set(range(-2, 3))
    assert {right for _, right, _ in moves} == set(range(-5, 6))
    assert {flipped for _, _, flipped in moves} == {False, True}


def test_only_photos_whose_task_does_not_read_text_are_cropped() -> None:
    photos = {"x": ImageInput(size=(8, 8))}
    assert feeding.augments(Spec(photos, task="classify"), "auto")
    assert not feeding.augments(Spec(photos, task="ctc"), "auto")
    assert feeding.augments(Spec(photos, task="ctc"), "on")
    assert not feeding.augments(Spec(photos, task="classify"), "off")
    assert not feeding.augments(Spec({}, task="classify"), "on")


# --- pairs and losses -------------------------------------------------------------------------------------------------

NET = f"""{HEAD} g (float[1, 4, 8, 8] x) => (float[1, 4] p, int64[1, 1] best) {{
    a = Relu(x)
    b = Add(a, x)
    g = GlobalAveragePool(b)
    s = Flatten(g)
    p = Softmax(s)
    best = ArgMax<axis = 1>(p)
}}"""


def test_outputs_are_compared_before_softmax_and_argmax(model_from_text: Parse) -> None:
    model = model_from_text(NET).ir
    assert pairing.outputs(model, model) == (Pair("s", "s"), Pair("s", "s"))
    assert pairing.outputs(model, model, ("p",)) == (Pair("s", "s"),)
    with pytest.raises(EdgewrightError) as caught:
        pairing.outputs(model, model, ("nothing",))
    assert caught.value.code == "E212"


def test_pruned_tensors_are_compared_in_the_channels_that_are_left(model_from_text: Parse) -> None:
    teacher = model_from_text(NET).ir
    student = model_from_text(NET.replace("[1, 4", "[1, 2")).ir
    for model in (teacher, student):
        infer(model)
    assert pairing.features(teacher, student, {}) == ()
    (pair,) = pairing.features(teacher, student, {"b": Kept({1: np.array([0, 3])})})
    assert pair == Pair("b", "b", {-3: (0, 3)})
    loss = losses.Loss("tensor", (Pair("s", "s"),), (pair,), 1.0, 1.0)
    whole = {"s": torch.zeros(1, 4), "b": torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 8, 8)}
    half = {"s": torch.zeros(1, 4), "b": whole["b"][:, [0, 3]]}
    assert float(loss(half, whole)) == 0
    assert float(loss({**half, "b": whole["b"][:, [0, 2]]}, whole)) > 0


def test_tensors_that_lost_positions_along_two_axes_are_compared_in_what_is_left(model_from_text: Parse) -> None:
    teacher = model_from_text(NET).ir
    student = model_from_text(NET.replace("[1, 4, 8", "[1, 2, 3")).ir
    for model in (teacher, student):
        infer(model)
    left = {1: np.array([0, 3]), 2: np.array([1, 2, 7])}
    (pair,) = pairing.features(teacher, student, {"b": Kept(left)})
    assert pairing.features(teacher, student, {"b": Kept({1: left[1]})}) == ()
    whole = torch.arange(256.0).reshape(1, 4, 8, 8)
    assert torch.equal(losses._channels(whole, pair), whole[:, [0, 3]][:, :, [1, 2, 7]])


def test_tensors_of_unknown_sizes_pair_only_where_a_map_says_what_is_left(model_from_text: Parse) -> None:
    teacher, student = (model_from_text(NET).ir for _ in range(2))
    for model in (teacher, student):
        for node in model.graph:
            node.outputs[0].shape = ir.Shape([None] * 4)
    assert pairing.features(teacher, student, {}) == ()  # 4 channels, and perhaps 2
    (pair,) = pairing.features(teacher, student, {"b": Kept({1: np.array([0, 3])})})
    assert pair == Pair("b", "b", {-3: (0, 3)})


def test_losses_are_what_their_formulas_say(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((2, 3, 5))
    p, q = (np.exp(z / 2) / np.exp(z / 2).sum(1, keepdims=True) for z in (y, x))
    expected = 4 * np.mean((p * np.log(p / q)).sum(1))
    assert np.isclose(float(losses.divergence(torch.from_numpy(x), torch.from_numpy(y), 2.0)), expected)
    assert np.isclose(
        float(losses.distance(torch.from_numpy(x), torch.from_numpy(y))), ((x - y) ** 2).sum() / (y**2).sum()
    )


# --- judging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "judged", "better"),
    [
        ((0.90, 1.0), (0.94, 5.0), True),  # more than one sample of 50 is worth any loss
        ((0.90, 1.0), (0.92, 5.0), False),  # one sample is not
        ((0.90, 1.0), (0.92, 0.9), True),
        ((0.90, 1.0), (0.88, 0.9), True),
        ((0.90, 1.0), (0.86, 0.1), False),
        ((0.90, 1.0), (0.90, 1.0), False),
        ((0.90, 1.0), (0.92, np.inf), False),
        ((0.90, np.inf), (0.90, 1.0), True),
    ],
)
def test_the_loss_decides_between_shares_within_one_sample(
    kept: tuple[float, float], judged: tuple[float, float], better: bool
) -> None:
    best = Best(kept[0], *kept)
    after = best.after(Judgement(*judged), 50)
    assert (after is not None) == better
    assert after is None or (after.share, after.loss) == judged


def test_shares_do_not_sink_one_sample_at_a_time() -> None:
    best = Best(0.90, 0.90, 1.0)
    for step in range(1, 6):
        best = best.after(Judgement(0.90 - 0.02 * step, 1.0 - 0.1 * step), 50) or best
    assert (best.highest, best.share) == (0.90, 0.88)


# --- states and roles -------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {"now/a": rng.standard_normal((2, 3)).astype(np.float32), "moment/0/step": np.array(4.0, np.float32)}
    state = State(3, 1.5, Best(0.6, 0.5, 1.0), 2, 2, [{"step": 3}], arrays)
    state.save(tmp_path / "deep" / "folder", "print")
    found = State.load(tmp_path / "deep" / "folder", "print", 1000, 0.0)
    assert found is not None
    assert (found.step, found.seconds, found.best, found.kept_step) == (3, 1.5, state.best, 2)
    assert (found.stale, found.curve) == (2, [{"step": 3}])
    assert all((found.arrays[name] == array).all() for name, array in arrays.items())
    assert State.load(tmp_path / "nowhere", "print", 1000, 0.0) is None


def test_a_state_in_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgewrightError) as caught:
        State().save(tmp_path / "file", "print")
    assert caught.value.code == "E105"


def test_roles_of_constants(model_from_text: Parse) -> None:
    model = model_from_text(f"""{HEAD} g (float[1, 4, 6] x) => (float[1, 4, 3] y)
        <float[6, 3] w = {{{", ".join("1" * 18)}}}, float[3] bias = {{1, 2, 3}}, float[6] shift = {{1, 2, 3, 4, 5, 6}},
         float[6] mean = {{1, 2, 3, 4, 5, 6}}, float[3] anchors = {{1, 2, 3}}, float low = {{0}}> {{
        a = Add(x, mean)
        b = Relu(a)
        c = Add(b, shift)
        d = MatMul(c, w)
        e = Add(d, bias)
        f = Clip(e, low)
        y = Mul(f, anchors)
    }}""")  # fmt: skip
    assert list(roles(model.ir).floats) == [
        "shift",
        "w",
        "bias",
    ]  # not preprocessing, limits, what follows the last layer


def test_a_statistic_that_layers_read_as_well_is_not_learnt_until_it_has_its_own(model_from_text: Parse) -> None:
    model = model_from_text(f"""{HEAD} g (float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] y)
        <float[3] zeros = {{0, 0, 0}}, float[3] ones = {{1, 1, 1}}> {{
        a = BatchNormalization(x, ones, zeros, zeros, ones)
        y = BatchNormalization(a, ones, zeros, zeros, ones)
    }}""")
    found = roles(model.ir)
    assert (list(found.floats), list(found.statistics)) == ([], ["zeros", "ones"])
    network = Network(model.ir)
    network({"x": torch.ones(2, 3, 4, 4, requires_grad=True)}, ("y",))["y"].sum().backward()
    own_statistics(model.ir)
    found = roles(model.ir)
    assert list(found.floats) == ["ones", "zeros"]
    assert len(found.statistics) == 4
    assert not found.floats.keys() & found.statistics.keys()
    before = Network(model.ir, batch_statistics=True).train()
    before({"x": torch.full((2, 3, 4, 4), 5.0)}, ("y",))  # moves four statistics, and no weight
    assert all(not weight.any() for name, weight in before.weights().items() if name == "zeros")
    assert all(before.weights()[name].ne(0).all() for name in found.statistics if name.startswith("zeros"))
