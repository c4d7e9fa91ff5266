"""The runtime `native`: networks with binary layers on the kernels of this package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.binary_nets import BIREAL, HEADER, binary_model

import edgewright as ew
from edgewright import kernels, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.metrics import rel_l2
from edgewright.model import Model
from edgewright.original import limits
from edgewright.runtimes.native.memory import Life, arrange
from edgewright.runtimes.native.plan import FILE, read

Make = Callable[..., Model]
RUNTIME = registry.peek("runtimes", "native")


@pytest.fixture(scope="module")
def network() -> Model:
    return binary_model(BIREAL)


@pytest.fixture
def bundle(network: Model, tmp_path: Path) -> Bundle:
    return convert(network, "native", tmp_path / "net")


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "edgewright._native", None)  # importing it raises ImportError
    caches = (kernels.native, kernels.variants)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def pictures(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 20, 17)).astype(np.float32)}


def steps(bundle: Bundle) -> list[str]:
    return [step.kernel for step in read(bundle.path / FILE).steps]


class TestBinaryNetworks:
    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("count", [1, 4])
    def test_give_what_onnxruntime_gives(
        self, network: Model, bundle: Bundle, count: int, threads: int, tolerance: Any
    ) -> None:
        with session.open(network, runtime="onnxruntime") as original, session.open(bundle, threads=threads) as opened:
            wanted, got = original.run(pictures(count)), opened.run(pictures(count))
        assert got["y"].shape == (count, 5)
        assert rel_l2(wanted["y"], got["y"]) <= tolerance["float32"]["rel_l2"]

    def test_every_binary_layer_is_exact_given_equal_signs(
        self, network: Model, bundle: Bundle, tolerance: Any
    ) -> None:
        """Signs out bit for bit, floats within rounding: each layer alone, fed what ONNX Runtime made."""
        chain = {"s1": "r1", "s3": "s4", "s4": "t4", "s5": "d5"}
        with session.open(network, runtime="onnxruntime") as original:
            inner = original.run(pictures(1), ["p", "r1", "h2", *chain, *chain.values()])
        for first, last in chain.items():
            inputs = (first, "p") if last == "r1" else (first,)
            with session.open(bundle, cut=Cut(inputs, (last,))) as part:
                got = part.run({name: inner[name] for name in inputs})[last]
            if got.dtype == np.uint8:
                np.testing.assert_array_equal(got, inner[last])
            else:
                assert rel_l2(inner[last], got) <= tolerance["float32"]["rel_l2"], last

    def test_inner_tensors_are_shown_as_onnx_has_them(self, network: Model, bundle: Bundle, tolerance: Any) -> None:
        shown = sorted(set(bundle.tensor_names) - {"x"})
        assert {"n", "p", "s1", "r1", "s3", "s4", "t4", "f", "y"} <= set(shown)
        assert not {"c", "d1", "a1", "d4"} & set(shown)  # parts of steps
        with session.open(network, runtime="onnxruntime") as original, session.open(bundle) as opened:
            wanted, got = original.run(pictures(2), shown), opened.run(pictures(2), shown)
        for name in shown:
            if got[name].dtype == np.uint8:
                np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)
            else:
                assert rel_l2(wanted[name], got[name]) <= tolerance["float32"]["rel_l2"], name

    @pytest.mark.parametrize(
        ("fed", "shown"),
        [(("r1",), ("r2", "s2")), (("r1", "s2"), ("r2",)), (("s1", "p", "s2"), ("r1", "r2")), (("g",), ("y",))],
    )
    def test_parts_start_between_what_one_step_makes(
        self, network: Model, bundle: Bundle, fed: tuple[str, ...], shown: tuple[str, ...], tolerance: Any
    ) -> None:
        """`r1` and its signs `s2` come from one step; either may be fed without the other."""
        with session.open(network, runtime="onnxruntime") as original:
            inner = original.run(pictures(1), [*fed, *shown])
        with session.open(bundle, cut=Cut(fed, shown)) as part:
            got = part.run({name: inner[name] for name in fed})
        for name in shown:
            assert (
                rel_l2(inner[name].astype(np.float32), got[name].astype(np.float32)) <= tolerance["float32"]["rel_l2"]
            )

    def test_what_follows_a_layer_is_part_of_its_step(self, bundle: Bundle) -> None:
        assert steps(bundle) == [
            *("conv", "pool", "pack", "binary_conv"),  # packs the next layer's signs as well
            *(
                "binary_conv",
                "pool",
                "conv",
                "pack",
                "binary_signs",
                "binary_conv",
                "pool",
                "pack",
                "binary_conv",
                "conv",
            ),
        ]

    def test_verify_judges_it_by_numbers(self, network: Model, bundle: Bundle, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", **pictures(12))
        assert (
            ew.verify(network, bundle, ew.Samples.open(tmp_path / "x.npz", network, roles="judge")).decision == "pass"
        )

    def test_times_of_steps_have_the_names_of_what_they_make(self, bundle: Bundle) -> None:
        if kernels.variants() == (kernels.NUMPY,):
            pytest.skip("needs the C++ kernels")
        times = RUNTIME.profile(bundle, pictures(1), threads=1, runs=2)
        assert set(times) <= set(bundle.tensor_names) | {""}
        assert {"n", "r1", "s4"} <= set(times)
        assert min(times.values()) >= 0


@pytest.mark.usefixtures("no_extension")
def test_without_a_compiler_numpy_gives_the_same(network: Model, tmp_path: Path, tolerance: Any) -> None:
    bundle = convert(network, "native", tmp_path / "net")
    with pytest.warns(EdgewrightWarning, match="without its C\\+\\+ kernels"):
        opened = session.open(bundle)
    with opened, session.open(network, runtime="onnxruntime") as original:
        wanted, got = original.run(pictures(2)), opened.run(pictures(2))
    assert rel_l2(wanted["y"], got["y"]) <= tolerance["float32"]["rel_l2"]


class TestMemory:
    @given(st.lists(st.tuples(st.integers(0, 5000), st.integers(-1, 12), st.integers(0, 6)), max_size=14))
    @settings(max_examples=200, deadline=None)
    def test_buffers_of_one_time_never_meet(self, drawn: list[tuple[int, int, int]]) -> None:
        lives = [Life(size, first, first + length) for size, first, length in drawn]
        offsets, total = arrange(lives)
        for one in range(len(lives)):
            assert offsets[one] % 64 == 0
            assert offsets[one] + lives[one].size_bytes <= total
            for two in range(one):
                a, b = lives[one], lives[two]
                if a.first <= b.last and b.first <= a.last and a.size_bytes and b.size_bytes:
                    apart = offsets[one] + a.size_bytes <= offsets[two] or offsets[two] + b.size_bytes <= offsets[one]
                    assert apart

    def test_tensors_share_memory(self, bundle: Bundle) -> None:
        plan = read(bundle.path / FILE)
        assert plan.arena_bytes < sum(tensor.size_bytes for tensor in plan.tensors)


class TestPlans:
    @pytest.mark.parametrize(
        ("body", "kinds"),
        [
            ("c = Conv(x, w_c) b = BatchNormalization(c, w_g, w_h, w_m, wp_v) r = Relu(b) y = Neg(r)", ["conv", "pointwise"]),
            ("c = Conv(x, w_c) a = Add(c, x) r = PRelu(a, w_p) y = Neg(r)", ["conv", "pointwise"]),
            ("c = Conv(x, w_c) d = Conv(x, w_c) a = Add(c, d) y = Neg(a)", ["conv", "conv", "pointwise"]),
            ("c = Conv(x, w_c) a = Add(c, c) y = Neg(a)", ["conv", "pointwise", "pointwise"]),
            ("c = Conv(x, w_c) i = Identity(c) r = Relu(i) y = Add(c, r)", ["conv", "pointwise", "pointwise"]),
            ("c = Conv(x, w_c) r = Relu(c) q = Relu(r) y = Neg(q)", ["conv", "pointwise", "pointwise"]),
            ("g = GlobalAveragePool(x) s = Sigmoid(g) m = Mul(x, s) y = Neg(m)", ["pool", "map", "pointwise", "pointwise"]),
            ("f = Flatten(x) u = Softmax(f) s = Constant<value_ints=[0,4,5,6]>() y = Reshape(u, s)",
             ["transpose", "softmax", "transpose"]),
            ("t = Transpose<perm=[0,2,3,1]>(x) u = Transpose<perm=[0,3,1,2]>(t) y = Concat<axis=1>(u, x)", ["concat"]),
            ("q = HardSwish(x) y = Concat<axis=3>(q, x)", ["pointwise", "pointwise", "concat"]),
        ],
    )  # fmt: skip
    def test_hold_the_references_numbers(self, body: str, kinds: list[str], tmp_path: Path, tolerance: Any) -> None:
        weights = "float[4,4,1,1] w_c, float[4] w_g, float[4] w_h, float[4] w_m, float[4] wp_v, float[4,1,1] w_p"
        model = binary_model(f"{HEADER} net (float[N,4,5,6] x, {weights}) => (float[A,B,C,D] y) {{ {body} }}")
        made = convert(model, "native", tmp_path / "net")
        found = [kind for kind in steps(made) if kind != "transpose" or "transpose" in kinds]
        assert found == kinds
        x = {"x": np.random.default_rng(1).standard_normal((3, 4, 5, 6)).astype(np.float32)}
        with session.open(model, runtime="reference") as original, session.open(made) as opened:
            wanted, got = original.run(x)["y"], opened.run(x)["y"]
        np.testing.assert_allclose(got, wanted, rtol=tolerance["float32"]["rtol"], atol=tolerance["float32"]["atol"])

    def test_a_fixed_batch_is_one_plan(self, tmp_path: Path) -> None:
        model = binary_model(
            f"{HEADER} net (float[3,4] x, float[4,4] w_m) => (float[3,4] y) {{ m = MatMul(x, w_m) y = Relu(m) }}"
        )
        made = convert(model, "native", tmp_path / "net")
        with session.open(model, runtime="reference") as original, session.open(made) as opened:
            x = {"x": np.arange(12, dtype=np.float32).reshape(3, 4) - 5}
            np.testing.assert_allclose(opened.run(x)["y"], original.run(x)["y"])


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "node", "reason"),
        [
            ("net (float[N,4] x) => (float[A,B] y) { a = Erf(x) y = Relu(a) }", "a", "no kernel"),
            ("net (float[N,3,H,W] x) => (float[A,B,C,D] y) { y = Relu(x) }", "x", "--set onnx.sizes"),
            ("net (int64[N,4] x) => (int64[N,4] y) { y = Identity(x) }", "x", "int64"),
            ("net (float[N,4] x, float[N,4] z) => (float[A,B] y) { y = MatMul(x, z) }", "y", "no constant"),
            ("net (float[N,4] x) => (float[A,B] y) { s = Constant<value_ints=[4,-1]>() y = Reshape(x, s) }", "y",
             "mixes samples"),
            ("net (float[1,4] x, signs[3,5] b_1, float[3] w_s, float[3] w_t, float[1] zero) => (float[A,B] y)"
             " { s = edgewright.PackSigns(x, zero) y = edgewright.BinaryLinear<channels=[5]>(s, b_1, w_s, w_t) }", "y",
             "5 channels, not of 4"),
        ],
    )  # fmt: skip
    def test_what_it_lacks_is_named_before_anything_is_written(
        self, text: str, node: str, reason: str, tmp_path: Path
    ) -> None:
        model = binary_model(f"{HEADER} {text}")
        problems = RUNTIME.supports(model.ir)
        assert [problem.node for problem in problems] == [node]
        assert reason in problems[0].reason
        with pytest.raises(EdgewrightError) as caught:
            convert(model, "native", tmp_path / "net")
        assert caught.value.code == "E210"
        assert not (tmp_path / "net").exists()

    def test_weights_with_bits_beyond_their_channels_are_refused(self, network: Model, tmp_path: Path) -> None:
        import onnx_ir as ir

        copy = network.clone_ir()
        value = copy.graph.initializers["b_1"]
        value.const_value = ir.tensor(value.const_value.numpy() | np.uint8(0x80), name="b_1")  # type: ignore[union-attr]
        value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), 0xFF), name="b_1")
        with pytest.raises(EdgewrightError) as caught:
            convert(Model(copy), "native", tmp_path / "net")
        assert "bits set beyond its 8 channels" in str(caught.value)

    def test_cuts(self, bundle: Bundle) -> None:
        for cut, message in (
            (Cut(None, ("d1",)), "`d1`"),
            (Cut(("s1",), ("r1",)), "`x` must be given too"),
            (Cut(None, ()), "at least one"),
        ):
            with pytest.raises(EdgewrightError, match=message) as caught:
                session.open(bundle, cut=cut)
            assert caught.value.code == "E231"
        with session.open(bundle, cut=Cut(("s5",), ("d5",))) as part:
            with pytest.raises(EdgewrightError, match="bits set beyond") as caught:
                part.run({"s5": np.full((1, 16), 255, np.uint8)})
            assert caught.value.code == "E202"
            with pytest.raises(EdgewrightError) as caught:
                part.run({"s5": np.zeros((1, 8), np.uint8)})
            assert caught.value.code == "E230"

    def test_a_plan_for_what_cannot_be_is_an_error(self, bundle: Bundle) -> None:
        """Each is well-formed as a file; the steps themselves refuse it."""
        for change in (
            lambda table: table["steps"][0][1].__setitem__(4, 2**24),  # filters
            lambda table: table["steps"][0][1].__setitem__(11, 2**30),  # padding
            lambda table: table["steps"][0][1].__setitem__(7, 0),  # stride
            lambda table: table["steps"][3][1].__setitem__(3, 2**40),  # channels of a binary layer
            lambda table: table["steps"][3][5].__setitem__(0, 1),  # another constant as its weights
            lambda table: table["steps"][1].__setitem__(0, "nothing"),
            lambda table: table["tensors"][1][2].__setitem__(1, 2**39),
            lambda table: table["offsets"].__setitem__(1, 2**35),
            lambda table: table["steps"].pop(2),  # signs that nothing makes
        ):
            broken = rewritten(bundle.path / FILE, change)
            (bundle.path / FILE).write_bytes(broken[1])
            with pytest.raises(EdgewrightError) as caught:
                session.open(bundle)  # a Bundle in memory: hashes are looked at when it is opened from its folder
            assert caught.value.code == "E232", change
            (bundle.path / FILE).write_bytes(broken[0])

    def test_broken_plans_are_errors_or_run(self, bundle: Bundle, rng: np.random.Generator) -> None:
        assert fuzzed(bundle, rng, 400) >= {"ran", "E232"}

    @pytest.mark.usefixtures("no_extension")
    @pytest.mark.filterwarnings("ignore:edgewright was installed without")
    def test_broken_plans_are_errors_in_numpy_too(self, bundle: Bundle, rng: np.random.Generator) -> None:
        assert fuzzed(bundle, rng, 60) >= {"ran", "E232"}


def fuzzed(bundle: Bundle, rng: np.random.Generator, count: int) -> set[str]:
    """What comes of files with other bytes, other digits in their description, or another length."""
    path = bundle.path / FILE
    good = path.read_bytes()
    head = 24 + int.from_bytes(good[12:16], "little")
    digits = [at for at in range(24, head) if good[at : at + 1].isdigit()]
    codes = set()
    for number in range(count):
        broken = bytearray(good)
        if number % 4 == 0:
            broken = broken[: int(rng.integers(len(good)))]
        elif number % 4 == 1:
            broken[int(rng.integers(head))] = int(rng.integers(256))
        else:
            for at in rng.choice(digits, int(rng.integers(1, 4))):
                broken[at] = ord("0") + int(rng.integers(10))
        path.write_bytes(broken)
        try:
            with np.errstate(all="ignore"), session.open(bundle) as opened:
                opened.run(pictures(1))
            codes.add("ran")
        except EdgewrightError as problem:
            codes.add(problem.code)
    assert codes <= {"ran", "E202", "E230", "E231", "E232"}
    return codes


def rewritten(path: Path, change: Callable[[Any], Any]) -> tuple[bytes, bytes]:
    """The file's bytes, and those with its description changed."""
    good = path.read_bytes()
    length = int.from_bytes(good[12:16], "little")
    table = json.loads(good[24 : 24 + length])
    before = json.dumps(table)
    change(table)
    assert json.dumps(table) != before
    text = json.dumps(table, separators=(",", ":")).encode()
    start = -(-(24 + length) // 64) * 64
    padded = text + bytes(-(24 + len(text)) % 64)
    return good, good[:12] + len(text).to_bytes(4, "little") + good[16:24] + padded + good[start:]


def test_arithmetic_is_called_what_it_is(network: Model, tmp_path: Path) -> None:
    """Binary where there are kernels, float32 where bodies run; both exact, so that numbers judge, not agreement."""
    assert network.precision == "binary"
    made = {name: convert(network, name, tmp_path / name) for name in ("native", "onnxruntime")}
    assert {name: bundle.precision for name, bundle in made.items()} == {"native": "binary", "onnxruntime": "fp32"}
    assert not any(bundle.lossy for bundle in made.values())
    assert limits(made["native"]).exact
    assert limits(made["native"]).cumulative == limits(made["onnxruntime"]).cumulative


def test_it_is_proposed_for_binary_networks_alone(network: Model, model_from_text: Make) -> None:
    plain = model_from_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }'
    )
    assert "native" in registry.proposed(network.domains)
    assert "native" not in registry.proposed(plain.domains)
    assert "reference" not in registry.proposed(network.domains)


def test_a_real_network_is_right_at_every_step(data: Path, tmp_path: Path, tolerance: Any) -> None:
    model = ew.load("zoo:efficientnet-lite0")
    samples = ew.Samples.open(data / "imagenet-sample", model)
    found = ew.locate(model, convert(model, "native", tmp_path / "net"), samples)
    assert found.first is None
    assert len(found.layers) > 50
    for layer in found.layers:
        assert layer.isolated is not None
        assert layer.isolated.rel_l2 <= 10 * tolerance["float32"]["rel_l2"], layer.name
