"""passes/quantize_static on small networks: near the float net, in the format asked for, and refused where it must be."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.onnx_files import with_weights

from edgewright import registry, session
from edgewright.compress import compress
from edgewright.contracts import QuantFormat, Role, Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.metrics import sqnr_db
from edgewright.model import Model
from edgewright.passes.quantize_static import _assembly as assembly
from edgewright.passes.quantize_static import _learning as learning
from edgewright.passes.quantize_static import _ranges as ranges
from edgewright.passes.quantize_static import _rounding as rounding
from edgewright.recipe import Recipe, RecipeStep
from edgewright.spec import Spec
from edgewright.target import Target
from edgewright.verify import verify

Tolerance = dict[str, dict[str, float]]
HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


@dataclass
class Drawn:
    """Seeded random arrays as samples: three of four calibrate, the others select."""

    shape: tuple[int, ...] = (1, 3, 12, 12)
    count: int = 24
    make: Callable[[np.random.Generator, int], np.ndarray] | None = None
    kept: tuple[Role, ...] = ("calibrate", "select")
    read: list[int] = field(default_factory=list)

    def _role(self, index: int) -> Role:
        return "select" if index % 4 == 3 else "calibrate"

    def __len__(self) -> int:
        return sum(self._role(index) in self.kept for index in range(self.count))

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.count):
            if self._role(index) in self.kept:
                rng = np.random.default_rng(index)
                array = (
                    rng.standard_normal(self.shape).astype(np.float32) if self.make is None else self.make(rng, index)
                )
                self.read.append(index)
                yield Sample(f"sample-{index}", f"{index:064x}", {"x": array})

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in range(self.count) if self._role(index) in self.kept)

    def role(self, *roles: Role) -> Drawn:
        return replace(self, kept=tuple(role for role in self.kept if role in roles), read=self.read)


def parse(body: str, task: str = "classify", **weights: np.ndarray) -> Model:
    """The network, where each of `weights` stands for an input of that name."""
    return Model(with_weights(f"{HEAD} {body}", weights), name="net", spec=Spec(task=task))


BODY = """g (float[1,3,12,12] x, float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8,8,1,1] w3, float[8] b3,
    float[10,8] w4, float[10] b4) => (float[1,10] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<group = 8, pads = [1,1,1,1]>(r, w2)
    [middle] e = Conv(d, w3, b3)
    s = Add(e, r)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    [head] y = Gemm<transB = 1>(f, w4, b4)
}"""


def network(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    shapes = {
        "w1": (8, 3, 3, 3),
        "b1": (8,),
        "w2": (8, 1, 3, 3),
        "w3": (8, 8, 1, 1),
        "b3": (8,),
        "w4": (10, 8),
        "b4": (10,),
    }
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return parse(BODY, **made)


def quantized(
    model: Model, samples: Drawn | None = None, runtime: str = "onnxruntime", cpu: str = "host", **config: Any
) -> Model:
    recipe = Recipe("t", steps=(RecipeStep("quantize_static", config),))
    return compress(model, recipe, Drawn() if samples is None else samples, target=Target(runtime, cpu))


def stats_of(model: Model) -> dict[str, Any]:
    return dict(model.history[-1].stats)


def answers(model: Model, samples: Drawn | None = None, runtime: str = "reference") -> np.ndarray:
    """Answers for samples that no one has seen."""
    shape = (samples or Drawn()).shape
    with session.open(model, runtime=runtime) as opened:
        fresh = (np.random.default_rng(1000 + i).standard_normal(shape).astype(np.float32) for i in range(12))
        return np.concatenate([next(iter(opened.run({"x": array}).values())) for array in fresh])


def constants(model: Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.ir.graph.initializers.items()}  # type: ignore[union-attr]


def weights_of(model: Model) -> Iterator[tuple[ir.Node, np.ndarray, np.ndarray, np.ndarray]]:
    """(layer, int8 weights, scales, zero points) of every layer."""
    for node in model.ir.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            producer = node.inputs[1].producer()  # type: ignore[union-attr]
            if producer is not None and producer.op_type == "DequantizeLinear":
                arrays = [value.const_value.numpy() for value in producer.inputs]  # type: ignore[union-attr]
                yield node, arrays[0], arrays[1], arrays[2]


def refused(code: str, *texts: str, **arguments: Any) -> None:
    with pytest.raises(EdgewrightError) as caught:
        quantized(**arguments)
    assert caught.value.code == code
    for text in texts:
        assert text in str(caught.value)


# --- what it makes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4-vnni"])
def test_answers_stay_near_and_the_graph_is_standard(runtime: str, cpu: str, tolerance: Tolerance) -> None:
    model = network()
    small = quantized(model, runtime=runtime, cpu=cpu)
    onnx.checker.check_model(small.to_proto(), full_check=True)
    assert {node.domain for node in small.ir.graph} == {""}
    assert (small.precision, small.lossy) == ("int8", True)
    assert sqnr_db(answers(model), answers(small)) >= tolerance["int8"]["sqnr_db"]
    assert [layer["state"] for layer in stats_of(small)["layers"]] == ["int8"] * 4


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4-vnni"])
def test_integers_are_what_the_format_says(cpu: str) -> None:
    from edgewright.graph.int8 import saturating_layers

    small = quantized(network(), cpu=cpu)
    found = list(weights_of(small))
    assert len(found) == 4
    for node, levels, scales, zeros in found:
        assert levels.dtype == np.int8
        assert levels.min() >= -127
        assert scales.shape == zeros.shape == (levels.shape[0],)
        assert not zeros.any()
        if len(node.inputs) > 2:
            data, bias = node.inputs[0].producer(), node.inputs[2].producer()  # type: ignore[union-attr]
            step = data.inputs[1].const_value.numpy()  # type: ignore[union-attr]
            biases, steps, _ = (value.const_value.numpy() for value in bias.inputs)  # type: ignore[union-attr]
            assert biases.dtype == np.int32
            np.testing.assert_allclose(steps, scales * step, rtol=1e-6)
    assert bool(saturating_layers(small.ir)) == (cpu != "x86-64-v3")


def test_a_symmetric_format_with_one_scale_for_all(monkeypatch: pytest.MonkeyPatch, tolerance: Tolerance) -> None:
    form = QuantFormat("int8", activation_symmetric=True, per_channel=False, operators=("Add",), reason="a test")
    monkeypatch.setattr(registry.get("runtimes", "onnxruntime"), "quant_format", lambda target: form)
    small = quantized(network())
    for _, _, scales, _ in weights_of(small):
        assert len(set(scales.tolist())) == 1
    zeros = [array for name, array in constants(small).items() if name.endswith(":zero")]
    assert zeros
    assert not any(array.any() for array in zeros)
    assert sqnr_db(answers(network()), answers(small)) >= tolerance["int8"]["sqnr_db"]


def test_seven_bits_are_never_exceeded(monkeypatch: pytest.MonkeyPatch, tolerance: Tolerance) -> None:
    form = QuantFormat(weight_bits=7, operators=("Add", "GlobalAveragePool"), float_outputs=("Gemm",), reason="a test")
    monkeypatch.setattr(registry.get("runtimes", "onnxruntime"), "quant_format", lambda target: form)
    small = quantized(network())
    found = [np.abs(levels.astype(int)).max() for _, levels, _, _ in weights_of(small)]
    assert len(found) == 4
    assert max(found) == 63
    assert {layer["weight_bits"] for layer in stats_of(small)["layers"]} == {7}
    assert sqnr_db(answers(network()), answers(small)) >= tolerance["int8"]["sqnr_db"]


def test_a_bias_that_is_huge_does_not_overflow() -> None:
    """1e6 beside weights of 1e-4: in steps of their product it would be 1e13."""
    rng = np.random.default_rng(0)
    bias = np.array([1e6, -1e6, 0, 3], np.float32)
    model = parse(
        "g (float[1,4,2,2] x, float[4,4,1,1] w, float[4] b) => (float[1,4,2,2] y) { y = Conv(x, w, b) }", "tensor",
        w=(rng.standard_normal((4, 4, 1, 1)) * 1e-4).astype(np.float32), b=bias,
    )  # fmt: skip
    small = quantized(model, Drawn((1, 4, 2, 2)), runtime="openvino", search=False)
    stored = next(array for array in constants(small).values() if array.dtype == np.int32 and array.any())
    assert np.abs(stored.astype(np.int64)).max() < 2**31 - 1
    got = answers(small, Drawn((1, 4, 2, 2)))
    np.testing.assert_allclose(got[:, :2].mean(axis=(0, 2, 3)), bias[:2], rtol=1e-3)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("p = MatMul(x, w) y = Add(p, b)", (4, 16)),
        ("p = MatMul(x, w) q = Add(b, p) y = Relu(q)", (2, 5, 16)),
        ("p = MatMul(x, w) r = Relu(p) y = MatMul(r, v)", (4, 16)),
        ("y = Gemm(x, w, b)", (4, 16)),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_linear_layers(body: str, shape: tuple[int, ...], runtime: str, tolerance: Tolerance) -> None:
    rng = np.random.default_rng(3)
    size = ",".join(map(str, shape))
    model = parse(
        f"g (float[{size}] x, float[16,12] w, float[12,12] v, float[12] b) => (float[] y) {{ {body} }}", "tensor",
        w=rng.standard_normal((16, 12)).astype(np.float32), v=rng.standard_normal((12, 12)).astype(np.float32),
        b=rng.standard_normal(12).astype(np.float32),
    )  # fmt: skip
    samples = Drawn(shape)
    small = quantized(model, samples, runtime=runtime)
    assert sqnr_db(answers(model, samples), answers(small, samples)) >= tolerance["int8"]["sqnr_db"]
    assert {layer["state"] for layer in stats_of(small)["layers"]} == {"int8"}


def test_weights_and_tensors_that_several_read(tolerance: Tolerance) -> None:
    """One weight of two layers, an input that is read twice, and a tensor that is handed out and read."""
    rng = np.random.default_rng(5)
    model = parse(
        """g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y, float[1,4,6,6] a) {
            a = Conv(x, w)  b = Conv(a, w)  c = Conv(x, w)  y = Add(b, c) }""", "tensor",
        w=rng.standard_normal((4, 4, 1, 1)).astype(np.float32),
    )  # fmt: skip
    samples = Drawn((1, 4, 6, 6))
    small = quantized(model, samples)
    onnx.checker.check_model(small.to_proto(), full_check=True)
    with session.open(model, runtime="reference") as before, session.open(small, runtime="reference") as after:
        feeds = {"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)}
        expected, got = before.run(feeds), after.run(feeds)
    assert list(got) == ["y", "a"]
    for name in expected:
        assert sqnr_db(expected[name], got[name]) >= tolerance["int8"]["sqnr_db"]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Conv(x, w)", (1, 4, 6, 6)),
        ("a = Conv(c, w) b = Conv(x, w) y = Add(a, b)", (1, 4, 6, 6)),  # a layer that reads a constant
        ("a = Conv(x, z) y = Add(a, x)", (1, 4, 6, 6)),  # a layer whose weights are all zero
        ("a = Conv(x, o) y = Relu(a)", (1, 4, 6, 6)),  # one channel of zeros
        ("y = Conv(x, l)", (1, 4, 9)),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_unusual_layers(body: str, shape: tuple[int, ...], runtime: str, tolerance: Tolerance) -> None:
    rng = np.random.default_rng(4)
    arrays = {name: rng.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in ("w", "z", "o")}
    arrays |= {"c": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)}
    arrays |= {"l": rng.standard_normal((6, 4, 3)).astype(np.float32)}
    arrays["z"][:] = arrays["o"][1] = 0
    given = "".join(f", float[{','.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    model = parse(f"g (float[{','.join(map(str, shape))}] x{given}) => (float[] y) {{ {body} }}", "tensor", **arrays)
    samples = Drawn(shape)
    small = quantized(model, samples, runtime=runtime)
    assert sqnr_db(answers(model, samples), answers(small, samples)) >= tolerance["int8"]["sqnr_db"]
    assert {layer["state"] for layer in stats_of(small)["layers"]} == {"int8"}


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_weights_of_any_size(size: float, tolerance: Tolerance) -> None:
    weights = (np.random.default_rng(4).standard_normal((4, 4, 1, 1)) * size).astype(np.float32)
    model = parse(
        "g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { y = Conv(x, w) }", "tensor", w=weights
    )
    samples = Drawn((1, 4, 6, 6))
    small = quantized(model, samples, runtime="openvino")
    assert sqnr_db(*(answers(item, samples) / size for item in (model, small))) >= tolerance["int8"]["sqnr_db"]


def test_symbolic_sizes_stay_symbolic(tolerance: Tolerance) -> None:
    rng = np.random.default_rng(6)
    model = parse(
        "g (float[n,3,h,w] x, float[4,3,3,3] k) => (float[n,4,h2,w2] y) { a = Conv(x, k) y = Relu(a) }", "tensor",
        k=rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
    )  # fmt: skip

    def make(rng: np.random.Generator, index: int) -> np.ndarray:
        return rng.standard_normal((1 + index % 2, 3, 8 + index, 9)).astype(np.float32)

    small = quantized(model, Drawn(make=make))
    assert sqnr_db(answers(model), answers(small)) >= tolerance["int8"]["sqnr_db"]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (quantized(network()).to_proto().SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_one_sample_is_enough_to_work_with() -> None:
    assert stats_of(quantized(network(), Drawn(count=1)))["select"] is None


def test_memory_does_not_grow_with_the_samples() -> None:
    peaks = []
    for count in (100, 400):
        tracemalloc.start()
        quantized(network(), Drawn(count=count, kept=("calibrate",)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_runtime_itself_agrees_with_the_standard(runtime: str, tmp_path: Path, tolerance: Tolerance) -> None:
    """The shipped file on real kernels of this CPU against the numpy reference: nothing saturates, nothing is dropped."""
    small = quantized(network(), runtime=runtime)
    bundle = convert(small, Target(runtime), tmp_path / "net")
    exact = answers(small)
    with session.open(bundle) as opened:
        fresh = (np.random.default_rng(1000 + i).standard_normal((1, 3, 12, 12)).astype(np.float32) for i in range(12))
        got = np.concatenate([opened.run({"x": array})["y"] for array in fresh])
    assert sqnr_db(exact, got) >= tolerance["int8"]["sqnr_db"] + 10


def test_onnxruntime_without_optimization_agrees_with_the_standard(tmp_path: Path, tolerance: Tolerance) -> None:
    small = quantized(network())
    bundle = convert(small, "onnxruntime", tmp_path / "net", options={"graph_optimization": "none"})
    exact = answers(small)
    with session.open(bundle) as opened:
        fresh = (np.random.default_rng(1000 + i).standard_normal((1, 3, 12, 12)).astype(np.float32) for i in range(12))
        got = np.concatenate([opened.run({"x": array})["y"] for array in fresh])
    assert sqnr_db(exact, got) >= tolerance["int8"]["sqnr_db"] + 20


# --- what stays in float ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["middle", "e"])
def test_what_is_asked_for_stays_in_float(name: str) -> None:
    small = quantized(network(), keep=[name])
    layers = {layer["name"]: layer for layer in stats_of(small)["layers"]}
    assert layers["e"]["state"] == "float"
    assert layers["e"]["reason"] == "asked for"
    assert [layers[other]["state"] for other in ("a", "d", "y")] == ["int8"] * 3
    kept = next(node for node in small.ir.graph if node.name == "middle")
    assert kept.inputs[1] is not None
    assert kept.inputs[1].is_initializer()


def pathological() -> Model:
    """Five layers; the fourth has one weight far above the others, on an input that is next to nothing."""
    rng = np.random.default_rng(8)
    made = {name: rng.standard_normal((6, 6, 1, 1)) for name in ("w", "v", "k", "m")}
    made["k"][0] *= 1e-4
    made["m"][:, 0] *= 3000
    return parse(
        """g (float[1,6,4,4] x, float[6,6,1,1] w, float[6,6,1,1] v, float[6,6,1,1] k, float[6,6,1,1] m, float[10,6] u)
            => (float[1,10] y) {
            a = Conv(x, w)  b = Relu(a)  c = Conv(b, v)  d = Relu(c)  e = Conv(d, k)  f = Relu(e)  h = Conv(f, m)
            p = GlobalAveragePool(h)  t = Flatten(p)  y = Gemm<transB = 1>(t, u) }""",
        u=rng.standard_normal((10, 6)).astype(np.float32), **{name: array.astype(np.float32) for name, array in made.items()},
    )  # fmt: skip


def test_the_select_samples_ask_for_the_fewest() -> None:
    samples = Drawn((1, 6, 4, 4), count=240)
    told = stats_of(quantized(pathological(), samples, runtime="openvino"))
    select = told["select"]
    assert select["agreement_before"] < select["required"] <= select["agreement_after"]
    assert 1 <= len(told["kept"]) <= 2
    assert told["kept"][0] == min(told["layers"], key=lambda layer: layer["sensitivity_db"])["name"]
    tried = {step["kept"]: step["agreement"] for step in select["steps"]}
    assert len(told["kept"]) == 1 or tried[len(told["kept"]) - 1] < select["required"]
    states = {layer["name"]: (layer["state"], layer["reason"]) for layer in told["layers"]}
    assert all(states[name] == ("float", "the answers depend on it most") for name in told["kept"])


def test_what_is_left_learns_anew_for_what_was_taken_back() -> None:
    """Found by the search or asked for: with the same layers in float, the others have learnt the same."""
    samples = Drawn((1, 6, 4, 4), count=240)
    found = quantized(pathological(), samples, runtime="openvino")
    kept = stats_of(found)["kept"]
    asked = quantized(pathological(), samples, runtime="openvino", search=False, keep=tuple(kept))
    made, wanted = (
        {name: value.const_value.numpy() for name, value in model.ir.graph.initializers.items() if value.const_value}
        for model in (found, asked)
    )
    assert made.keys() == wanted.keys()
    assert all(np.array_equal(made[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("config", [{"search": False}, {"keep_share": 0.0}])
def test_the_search_can_be_left_out(config: dict[str, Any]) -> None:
    told = stats_of(quantized(pathological(), Drawn((1, 6, 4, 4), count=80), **config))
    assert told["kept"] == []
    assert {layer["state"] for layer in told["layers"]} == {"int8"}


def test_a_head_that_mixes_boxes_and_scores_stays_in_float() -> None:
    rng = np.random.default_rng(9)
    head = rng.standard_normal((8, 4, 1, 1))
    head[4:] *= 1e-4  # scores beside boxes: less than a step of the boxes
    model = parse(
        "g (float[1,4,6,6] x, float[4,4,1,1] w, float[8,4,1,1] v) => (float[1,8,6,6] y) "
        "{ a = Conv(x, w) r = Relu(a) y = Conv(r, v) }",
        "tensor", w=rng.standard_normal((4, 4, 1, 1)).astype(np.float32), v=head.astype(np.float32),
    )  # fmt: skip
    told = stats_of(quantized(model, Drawn((1, 4, 6, 6))))
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert (layers["y"]["state"], layers["a"]["state"]) == ("float", "int8")
    assert "mixes scales" in layers["y"]["reason"]
    assert stats_of(quantized(network()))["layers"][-1]["state"] == "int8"


# --- broken versions are found ----------------------------------------------------------------------------------------


def breakages() -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    def wide_ranges(patch: pytest.MonkeyPatch) -> None:
        right = ranges.choose
        patch.setattr(
            "edgewright.passes.quantize_static.choose",
            lambda *a, **k: replace(found := right(*a, **k), scale=found.scale * 40),
        )

    def shuffled_scales(patch: pytest.MonkeyPatch) -> None:
        right = learning.Learner._round

        def rolled(self: Any, *arguments: Any) -> Any:
            made = right(self, *arguments)
            return replace(made, scales=np.roll(made.scales, 1))

        patch.setattr(learning.Learner, "_round", rolled)

    def no_bias(patch: pytest.MonkeyPatch) -> None:
        right = learning.Learner.learn

        def without(self: Any) -> Any:
            made = right(self)
            return {k: v if v.bias is None else replace(v, bias=v.bias * 0) for k, v in made.items()}

        patch.setattr(learning.Learner, "learn", without)

    def cut_biases(patch: pytest.MonkeyPatch) -> None:
        right = assembly.integer_bias
        patch.setattr(assembly, "integer_bias", lambda *a: np.clip(right(*a), -127, 127))

    return {"ranges": wide_ranges, "scales": shuffled_scales, "biases": no_bias, "cut biases": cut_biases}


@pytest.mark.parametrize("name", breakages())
def test_a_broken_step_falls_below_the_limit(name: str, monkeypatch: pytest.MonkeyPatch, tolerance: Tolerance) -> None:
    breakages()[name](monkeypatch)
    small = quantized(network(), search=False)
    assert sqnr_db(answers(network()), answers(small)) < tolerance["int8"]["sqnr_db"]


@pytest.mark.parametrize("broken", [False, True])
def test_verify_lets_no_broken_file_pass(broken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if broken:
        breakages()["biases"](monkeypatch)
    model = network()
    bundle = convert(quantized(model, search=False), "onnxruntime", tmp_path / "net")
    report = verify(model, bundle, Judges(count=60), min_agreement=0.7)
    assert report.decision == ("fail" if broken else "pass")
    assert (next(gate for gate in report.gates if gate.name == "agreement").decision == "fail") == broken


class Judges(Drawn):
    """Samples that no one has seen, all with the role judge."""

    def _role(self, index: int) -> Role:
        return "judge"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.count):
            array = np.random.default_rng(9000 + index).standard_normal(self.shape).astype(np.float32)
            yield Sample(f"judge-{index}", f"{9000 + index:064x}", {"x": array})

    def role(self, *roles: Role) -> Drawn:
        return self


def means_apart(model: Model, small: Model) -> float:
    """How far the mean of the answers moves, over their spread."""
    expected, got = answers(model), answers(small)
    return float(np.abs((got - expected).mean(axis=0)).mean() / expected.std())


def test_bias_correction_takes_away_a_shift_and_its_opposite_doubles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(seed=2)
    monkeypatch.setattr(
        rounding, "nearest", lambda rows, scales, room: room.held(np.floor(rows / scales[..., None])).astype(np.int8)
    )
    options = {"compensate": False, "search": False}
    right, without = (quantized(model, correct_bias=on, **options) for on in (True, False))
    monkeypatch.setattr(learning, "_shift", lambda rows, mean: -learning_shift(rows, mean))
    wrong = quantized(model, correct_bias=True, **options)
    assert means_apart(model, right) < 0.3 * means_apart(model, without)
    assert means_apart(model, wrong) > means_apart(model, without)


learning_shift = learning._shift


def test_compensation_is_worth_it() -> None:
    """Over several networks: rounding that lets errors compensate each other loses less than rounding to nearest."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        model = parse(
            "g (float[1,3,12,12] x, float[8,3,3,3] v, float[16,8,3,3] w) => (float[] y) "
            "{ a = Conv(x, v) b = Relu(a) y = Conv(b, w) }",
            "tensor", v=rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
            w=rng.standard_normal((16, 8, 3, 3)).astype(np.float32),
        )  # fmt: skip
        options = {"samples": Drawn(make=smooth), "runtime": "openvino", "search": False}
        plain, better = (quantized(model, compensate=on, **options) for on in (False, True))
        feeds = [smooth(np.random.default_rng(5000 + i), i) for i in range(8)]
        with session.open(model) as before:
            expected = [before.run({"x": array})["y"] for array in feeds]
        losses = []
        for small in (plain, better):
            with session.open(small, runtime="reference") as after:
                losses.append(
                    np.mean([sqnr_db(e, after.run({"x": x})["y"]) for e, x in zip(expected, feeds, strict=True)])
                )
        gains.append(losses[1] - losses[0])
        told = stats_of(better)["layers"][-1]
        assert told["rounding_after_db"] > told["rounding_before_db"] + 2
    assert min(gains) > 0
    assert np.mean(gains) > 1


def smooth(rng: np.random.Generator, index: int) -> np.ndarray:
    """An image whose neighbouring pixels are alike, as those of photos are."""
    fields = rng.standard_normal((1, 3, 3, 3)).repeat(4, axis=2).repeat(4, axis=3)
    made: np.ndarray = (fields + 0.1 * rng.standard_normal((1, 3, 12, 12))).astype(np.float32)
    return made


# --- bad input --------------------------------------------------------------------------------------------------------


def test_samples_are_needed() -> None:
    recipe = Recipe("t", steps=(RecipeStep("quantize_static", {}),))
    with pytest.raises(EdgewrightError) as caught:
        compress(network(), recipe)
    assert caught.value.code == "E301"


@pytest.mark.parametrize("samples", [Drawn(count=0), Drawn(kept=("select",))])
def test_samples_that_calibrate_are_needed(samples: Drawn) -> None:
    refused("E301", model=network(), samples=samples)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_no_numbers_are_named(bad: float) -> None:
    def make(rng: np.random.Generator, index: int) -> np.ndarray:
        array = rng.standard_normal((1, 3, 12, 12)).astype(np.float32)
        array[0, 0, 0, 0] = bad if index == 5 else 0
        return array

    refused("E212", "cannot learn from `x`", "`sample-5`", model=network(), samples=Drawn(make=make))


def test_activations_that_never_change_are_no_obstacle() -> None:
    small = quantized(network(), Drawn(make=lambda rng, index: np.zeros((1, 3, 12, 12), np.float32)))
    with session.open(network(), runtime="reference") as before, session.open(small, runtime="reference") as after:
        feeds = {"x": np.zeros((1, 3, 12, 12), np.float32)}
        expected, got = before.run(feeds)["y"], after.run(feeds)["y"]
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


def test_a_quantized_graph_is_refused() -> None:
    refused("E212", "quantized graph", model=quantized(network()))


def test_a_graph_without_layers_is_refused() -> None:
    model = parse("g (float[1,3,12,12] x) => (float[1,3,12,12] y) { y = Relu(x) }", "tensor")
    refused("E212", "finds no layer to quantize", model=model)


def test_a_graph_whose_layers_are_all_kept_is_refused() -> None:
    refused("E212", "asked for", model=network(), keep=["a", "d", "e", "y"])


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    refused("E103", "did you mean `middle`?", model=network(), keep=["midle"])


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_share_that_is_none(value: float) -> None:
    refused("E103", "keep_share", model=network(), keep_share=value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_a_runtime_without_int8_is_named(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.get("runtimes", runtime), "quant_format", lambda target: None)
    refused("E211", runtime, model=network(), runtime=runtime)


def command(folder: Path, out: str, *, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """`edgewright compress` in its own process, where no file may grow beyond `limit` bytes."""
    network().save(folder / "net.onnx")
    (folder / "samples").mkdir()
    for sample in Drawn(count=8):
        np.savez(folder / "samples" / f"{sample.id}.npz", **sample.arrays)
    script = "from edgewright.cli import main; main()"
    if limit is not None:
        script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); {script}"
    arguments = ["compress", "net.onnx", "--recipe", "int8", "--samples", "samples", "--out", out]
    (folder / "temporary").mkdir()
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_writes_the_file_and_nothing_else(tmp_path: Path) -> None:
    done = command(tmp_path, "out/small.onnx")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.onnx"]
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "out" / "small.onnx").graph.node)


@pytest.mark.parametrize("limit", [600, 9_000])
def test_a_full_disk_leaves_nothing(limit: int, tmp_path: Path) -> None:
    """Full already for what the pass runs on the way, and only for the result."""
    done = command(tmp_path, "out/small.onnx", limit=limit)
    assert done.returncode != 0
    assert "E105" in done.stderr, done.stdout + done.stderr
    assert ("small.onnx" in done.stderr) == (limit > 600)
    assert {path.name for path in tmp_path.iterdir()} <= {"net.onnx", "samples", "temporary", "out"}
    assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("temporary/*edgewright*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    done = command(tmp_path, "file/small.onnx")
    assert done.returncode != 0
    assert "E105" in done.stderr
    assert "file/small.onnx" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "not a folder"
