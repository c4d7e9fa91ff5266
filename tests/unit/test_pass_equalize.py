"""passes/equalize: less noise where channels are unequal, the same float network, and nothing where nothing may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import version_converter
from tests.onnx_files import refused

from edgewright.compress import compress
from edgewright.contracts import Role, Sample, evenly
from edgewright.convert import convert
from edgewright.graph.dataflow import Names
from edgewright.graph.scaling import find
from edgewright.graph.shapes import infer
from edgewright.locate import locate
from edgewright.metrics import rel_l2
from edgewright.model import OPSET_VERSION, Model
from edgewright.passes.equalize._noise import REACHES, Activation, Problem, Reach, Weights, choose, solve
from edgewright.recipe import Recipe, RecipeStep

Tolerance = dict[str, dict[str, float]]


@dataclass
class Drawn:
    """Random arrays as samples, all of one role; tells which were read."""

    shape: tuple[int, ...] = (1, 3, 16, 16)
    count: int = 32
    has: Role = "calibrate"
    spoiled: int = -1
    name: str = "x"
    read: list[int] = field(default_factory=list)
    chosen: list[int] | None = None

    @property
    def indices(self) -> list[int]:
        return list(range(self.count)) if self.chosen is None else self.chosen

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        for index in self.indices:
            array = np.random.default_rng(index).standard_normal(self.shape).astype(np.float32)
            if index == self.spoiled:
                array[..., 0] = np.nan
            self.read.append(index)
            yield Sample(f"sample-{index}", f"{index:064x}", {self.name: array})

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in self.indices)

    def role(self, *roles: Role) -> Drawn:
        return self if self.has in roles else Drawn(count=0)

    def spread(self, most: int) -> Drawn:
        return replace(self, chosen=[self.indices[at] for at in evenly(len(self), most)])


BODY = """
    a = Conv<pads = [1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<group = 12, pads = [1,1,1,1]>(r, w2, b2)
    e = Conv(d, w3, b3)
    s = Add(e, r)
    f = Conv<pads = [1,1,1,1]>(s, w4, b4)
    p = Relu(f)
    m = GlobalAveragePool(p)
    v = Flatten(m)
    y = Gemm<transB = 1>(v, w5, b5)
"""
SIZES = {"w1": (12, 3, 3, 3), "w2": (12, 1, 3, 3), "w3": (12, 12, 1, 1), "w4": (16, 12, 3, 3), "w5": (10, 16)}


def network(body: str = BODY, *, unequal: float = 0.0, shape: str = "N,3,H,W") -> Model:
    """A residual network with depthwise layers; `unequal` spreads the scales of its channels, by e to so many sigmas."""
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {OPSET_VERSION}]> g (float[{shape}] x) => (float[N,10] y) {{ {body} }}'
    )
    read = {name for node in proto.graph.node for name in node.input}
    for name, sizes in SIZES.items():
        weight = rng.standard_normal(sizes) * (2 / np.prod(sizes[1:])) ** 0.5
        for part, array in ((name, weight), (f"b{name[1:]}", 0.1 * rng.standard_normal(sizes[0]))):
            if part in read:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), part))
    model = ir.from_proto(proto)
    infer(model)
    if unequal:
        scaling = find(model)
        factors = np.ones(len(scaling.free))
        factors[scaling.free] = np.exp(unequal * rng.standard_normal(int(scaling.free.sum())))
        scaling.apply(factors, names=Names(model))
    return Model(model, name="net")


def equalized(model: Model, samples: Drawn | None = None, **config: object) -> Model:
    recipe = Recipe("t", steps=(RecipeStep("equalize", config),))
    return compress(model, recipe, samples or Drawn())


def run(model: Model, array: np.ndarray, inner: tuple[str, ...] = ()) -> list[np.ndarray]:
    proto = model.to_proto()
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: array})
    return found


def unseen(index: int = 100, shape: tuple[int, ...] = (1, 3, 16, 16)) -> np.ndarray:
    return np.random.default_rng(index).standard_normal(shape).astype(np.float32)


def spread(model: Model, name: str) -> float:
    """How much farther the farthest channel of a tensor reaches than the nearest."""
    peaks = np.max([np.abs(run(model, unseen(i), (name,))[1]).max(axis=(0, 2, 3)) for i in range(4)], axis=0)
    return float(peaks.max() / peaks.min())


def with_steps(model: Model, samples: Drawn) -> Model:
    """The network with every tensor that a layer or Add reads in 255 steps from its least to its largest value."""
    proto = model.to_proto()
    names = ["r", "d", "e", "s", "p", "v"]
    seen = [dict(zip(names, run(model, s.arrays["x"], tuple(names))[1:], strict=True)) for s in samples]
    nodes = []
    for node in proto.graph.node:
        node.input[:] = [f"{name}:dq" if name in names else name for name in node.input]
        nodes.append(node)
        for name in set(node.output) & set(names):
            low, high = (float(f([f(item[name]) for item in seen])) for f in (np.min, np.max))
            step = (max(high, 0.0) - min(low, 0.0)) / 255
            zero = np.array(round(-min(low, 0.0) / step), np.uint8)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(step, np.float32), f"{name}:s"))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(zero, f"{name}:z"))
            scale = [f"{name}:s", f"{name}:z"]
            nodes.append(onnx.helper.make_node("QuantizeLinear", [name, *scale], [f"{name}:q"]))
            nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}:q", *scale], [f"{name}:dq"]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    return Model(ir.from_proto(proto), name="steps")


def noise(model: Model, original: Model) -> float:
    pairs = [(run(original, unseen(i))[0], run(model, unseen(i))[0]) for i in range(20)]
    return float(sum(np.square(a - b).sum() for a, b in pairs))


def test_unequal_channels_become_equal_and_lose_less(tolerance: Tolerance) -> None:
    model = network(unequal=1.5)
    after = equalized(model)
    stats = after.history[-1].stats
    assert rel_l2(run(model, unseen())[0], run(after, unseen())[0]) <= tolerance["float32"]["rel_l2"]
    assert not after.lossy
    assert after.precision == "fp32"
    assert {tensor for group in stats["scaled"] for tensor in group["tensors"]} >= {"r", "e", "s", "d", "p", "v"}
    assert all(sum(g[k][1] for k in NOISES) < sum(g[k][0] for k in NOISES) for g in stats["scaled"])
    for name in ("r", "d"):
        assert spread(after, name) < spread(model, name) / 4
    samples = Drawn()
    assert noise(with_steps(after, samples), model) < noise(with_steps(model, samples), model) / 10


def test_what_was_rescaled_is_named_and_locate_leaves_it_out(tolerance: Tolerance, tmp_path: Path) -> None:
    model = network(unequal=1.5)
    after = equalized(model)
    inner = [value.name for node in model.ir.graph for value in node.outputs if value.name and value.name != "y"]
    values = [run(item, unseen(), inner)[1:] for item in (model, after)]
    moved = {name for name, *pair in zip(inner, *values, strict=True) if rel_l2(*pair) > tolerance["float32"]["rel_l2"]}
    assert moved
    assert set(after.history[-1].stats["rescaled"]) == moved
    bundle = convert(after, "onnxruntime", tmp_path / "bundle")
    assert bundle.comparable.isdisjoint(moved)
    report = locate(model, bundle, Drawn(has="judge"))
    assert report.layers
    assert all(layer.passed for layer in report.layers)


NOISES = ("activation_noise", "weight_noise")


def test_where_it_starts_from_hardly_matters() -> None:
    """Factors put in on purpose are found again: the noise ends near where it ends without them."""
    even, uneven = (
        {
            group["tensors"][0]: group["activation_noise"]
            for group in equalized(network(unequal=u)).history[-1].stats["scaled"]
        }
        for u in (0.0, 1.0)
    )
    assert set(even) == set(uneven) == {"a", "d", "f"}
    for name, (before, after) in uneven.items():
        assert before > 5 * even[name][0], "or nothing is asked of it"
        assert after < 2 * even[name][1]


def test_twice_changes_little_more() -> None:
    once = equalized(network(unequal=1.0))
    twice = equalized(once).history[-1].stats
    assert all(group["factors"][1] / group["factors"][0] < 3 for group in twice["scaled"])


BOUNDS = "c0 = Constant<value_float = 0.0>()  c6 = Constant<value_float = 6.0>()"
HELD = {
    "a Clip": BOUNDS + BODY.replace("r = Relu(a)", "r = Clip(a, c0, c6)").replace("p = Relu(f)", "p = Clip(f, c0, c6)"),
    "a gate of its own": BODY.replace("r = Relu(a)", "t = Sigmoid(a)  r = Mul(a, t)").replace(
        "p = Relu(f)", "t2 = Sigmoid(f)  p = Mul(f, t2)"
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_groups_with_a_barrier_are_not_touched(case: str) -> None:
    model = network(HELD[case])
    after = equalized(model)
    stats = after.history[-1].stats
    touched = {tensor for group in stats["scaled"] for tensor in group["tensors"]}
    assert touched <= {"d"}, "only the depthwise layer's output is free"
    arrays = {value.name: value.const_value.numpy() for value in model.ir.graph.initializers.values()}  # type: ignore[union-attr]
    for value in after.ir.graph.initializers.values():
        if value.name in ("w1", "b1", "w4", "b4", "w5"):
            assert np.array_equal(value.const_value.numpy(), arrays[value.name])  # type: ignore[union-attr]
    assert stats["not_scaled"]


def test_a_network_of_barriers_alone_runs_nothing(architectures: ModuleType, data: Path) -> None:
    proto = architectures.load_filled(data / "architectures" / "mobilenetv1_100.onnx", seed=0)
    model = compress(Model(ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION))), "float")
    samples = Drawn()
    after = equalized(model, samples)
    assert after.hash == model.hash
    assert after.history[-1].stats["not_scaled"] == {"Clip bounds it": 27, "the graph returns": 1}
    assert samples.read == []


@pytest.mark.parametrize("name", ["mnasnet0_5", "squeezenet1_1", "unet"])
def test_real_architectures_stay_the_same(
    name: str, architectures: ModuleType, data: Path, tolerance: Tolerance
) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    feeds = architectures.example_inputs(proto, seed=0)
    ((key, array),) = feeds.items()
    model = compress(Model(ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION))), "float")
    after = equalized(model, Drawn(shape=array.shape, count=2, name=key))
    assert after.history[-1].stats["scaled"]
    assert rel_l2(run(model, array)[0], run(after, array)[0]) <= tolerance["float32"]["rel_l2"]


def test_shared_weights_are_not_changed_for_the_other_reader(tolerance: Tolerance) -> None:
    body = BODY.replace(
        "f = Conv<pads = [1,1,1,1]>(s, w4, b4)", "e2 = Conv(s, w3, b3)  f = Conv<pads = [1,1,1,1]>(e2, w4, b4)"
    )
    model = network(body, unequal=1.0)
    after = equalized(model)
    assert after.history[-1].stats["scaled"]
    assert rel_l2(run(model, unseen())[0], run(after, unseen())[0]) <= tolerance["float32"]["rel_l2"]


def test_a_dead_channel_keeps_its_scale(tolerance: Tolerance) -> None:
    model = network(unequal=1.0)
    weights = model.clone_ir()
    for name in ("w4", "b4"):
        value = weights.graph.initializers[name]
        array = value.const_value.numpy().copy()  # type: ignore[union-attr]
        array[3] = -np.abs(array[3]) if name == "b4" else 0
        value.const_value = ir.tensor(array, name=name)
    model = Model(weights)
    after = equalized(model)
    before, later = ({v.name: v.const_value.numpy() for v in m.ir.graph.initializers.values()} for m in (model, after))  # type: ignore[union-attr]
    assert later["b4"][3] == before["b4"][3] != 0
    assert np.array_equal(later["w5"][:, 3], before["w5"][:, 3])
    assert not np.array_equal(later["b4"], before["b4"])
    assert rel_l2(run(model, unseen())[0], run(after, unseen())[0]) <= tolerance["float32"]["rel_l2"]


def test_any_batch_and_size_afterwards(tolerance: Tolerance) -> None:
    model = network(unequal=1.0)
    after = equalized(model)
    array = unseen(7, (3, 3, 9, 21))
    assert [info.shape for info in after.inputs] == [info.shape for info in model.inputs]
    assert rel_l2(run(model, array)[0], run(after, array)[0]) <= tolerance["float32"]["rel_l2"]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_activations_that_are_nan_are_named() -> None:
    with refused("E212", "`equalize` cannot learn from", "`sample-5`", "NaN or infinite"):
        equalized(network(), Drawn(spoiled=5))


def test_samples_of_other_roles_are_not_enough() -> None:
    with refused("E301", "`equalize` needs samples with the role calibrate", "none of 32"):
        equalized(network(), Drawn(has="select"))


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [("max_samples", 0, "at least 1"), ("max_factor", 0.5, "at least 1"), ("rounding", -1.0, "at least 0"),
     ("keep", ("rr",), "did you mean `r`")],
)  # fmt: skip
def test_options_that_cannot_be(option: str, value: object, part: str) -> None:
    with refused("E103", f"equalize.{option}", part):
        equalized(network(), **{option: value})


def test_keep_holds_all_that_is_tied() -> None:
    stats = equalized(network(unequal=1.0), keep=("s",)).history[-1].stats
    assert not {tensor for group in stats["scaled"] for tensor in group["tensors"]} & {"a", "r", "e", "s"}
    assert stats["not_scaled"]["asked for"] == 1


def test_one_sample_and_few_samples_work() -> None:
    assert equalized(network(unequal=1.0), Drawn(count=1)).history[-1].stats["scaled"]
    few = equalized(network(unequal=1.0), Drawn(count=9), max_samples=2).history[-1].stats
    assert few["scaled"]


def test_the_same_seed_gives_the_same_network() -> None:
    assert equalized(network(unequal=1.0)).hash == equalized(network(unequal=1.0)).hash


# --- the noise model --------------------------------------------------------------------------------------------------


def posed(rng: np.random.Generator, n: int = 9) -> Problem:
    """A group of one tensor and one layer, with channels of unequal range and importance."""
    scales = np.exp(rng.standard_normal(n))
    values = (rng.standard_normal((n, 400)) * scales[:, None]).astype(np.float32)
    low, high = -values.min(axis=1).astype(np.float64), values.max(axis=1).astype(np.float64)
    item = Activation(
        {"extremes": (low, high), "tails": (low / 2, high / 2)},
        rng.random(n),
        np.arange(n),
        values[:, :200],
        values[:, 200:],
    )
    weights = Weights(np.abs(rng.standard_normal((1, 5, n))), np.arange(n)[None], scales[None] ** 2, 1e-5)
    free = np.ones(n, bool)
    free[0] = False
    return Problem(free, np.arange(n) == 1, (item,), (weights,))


@pytest.mark.parametrize("reach", REACHES)
def test_gradient_is_the_slope(reach: Reach, rng: np.random.Generator) -> None:
    problem = posed(rng)
    logs = rng.standard_normal(9) * 0.3
    slopes = []
    for index in range(9):
        ends = [problem.evaluate(logs + sign * 1e-6 * (np.arange(9) == index), reach)[0] for sign in (-1, 1)]
        slopes.append((ends[1] - ends[0]) / 2e-6)
    assert np.allclose(problem.evaluate(logs, reach)[1], np.where(problem.changing, slopes, 0), rtol=1e-5, atol=1e-12)


def test_noise_is_convex_so_the_end_is_the_least(rng: np.random.Generator) -> None:
    problem = posed(rng)
    for _ in range(50):
        one, other = rng.standard_normal(9), rng.standard_normal(9)
        middle = problem.evaluate((one + other) / 2, "extremes")[0]
        assert middle <= (problem.evaluate(one, "extremes")[0] + problem.evaluate(other, "extremes")[0]) / 2
    found = solve(problem, 64.0, "extremes")
    least = problem.evaluate(found, "extremes")[0]
    for _ in range(200):
        near = np.where(problem.changing, found + 0.2 * rng.standard_normal(9), 0.0)
        assert problem.evaluate(near, "extremes")[0] > 0.99 * least


def test_solution_respects_what_is_held_and_the_limit(rng: np.random.Generator) -> None:
    problem = posed(rng)
    found = solve(problem, 1.5, "extremes")
    assert (found[~problem.changing] == 0).all()
    assert np.abs(found).max() <= np.log(1.5) + 1e-12
    assert np.abs(found).max() > 0


def test_never_worse_than_nothing_on_other_values() -> None:
    for seed in range(10):
        found, before, after = choose(posed(np.random.default_rng(seed)), 64.0)
        assert after.total <= before.total
        assert (found != 0).any() == (after.total < before.total)


def test_predicted_noise_is_what_quantizing_makes(rng: np.random.Generator) -> None:
    """One tensor of uniform values: the prediction, within the little that the norm exceeds the maximum."""
    values = rng.uniform(-1, 1, (6, 4000)).astype(np.float32)
    ones = np.ones(6)
    item = Activation({"extremes": (ones, ones), "tails": (ones, ones)}, ones, np.arange(6), values, values)
    predicted = item.noise(np.zeros(6), "extremes")[0]
    assert 1 <= predicted / item.tried(np.zeros(6)) < 1.4
