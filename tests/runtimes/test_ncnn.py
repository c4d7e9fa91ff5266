"""What only the runtime `ncnn` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright import registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.metrics import rel_l2
from edgewright.model import Model
from edgewright.runtimes.ncnn.lowering import lower

pytest.importorskip("ncnn")
HEADER = '<ir_version: 10, opset_import: ["" : 21, "made.up" : 1]>'
RUNTIME = registry.peek("runtimes", "ncnn")
PACKS = (
    *("darknet19", "efficientnet", "real_yolofastest_1.1", "resnet", "vgg_crop", "yolov1_local", "yolov2"),
    *("yolov3_tiny", "yolov4_mini", "yolov4_tiny"),
)
Make = Callable[..., Model]


def kinds(bundle: Bundle) -> list[str]:
    """Operators of the .param file, in order."""
    return [line.split()[0] for line in (bundle.path / "model.param").read_text(encoding="utf-8").splitlines()[2:]]


def agree(model: Model, bundle: Bundle, feeds: dict[str, np.ndarray], limit: float) -> None:
    with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
        wanted, got = original.run(feeds), opened.run(feeds)
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].shape == array.shape
        assert rel_l2(array, got[name]) <= limit, name


class TestShapes:
    """A blob has no batch axis and at most four others; what only changes shapes costs nothing."""

    @pytest.mark.parametrize(
        ("inputs", "output", "body"),
        [
            # six axes, of which some stay together
            ("float[N,4,4,6] x", "float[A,B,C]", "s = Constant<value_ints=[-1,2,2,2,2,6]>() r = Reshape(x, s)"
             " t = Transpose<perm=[0,1,3,2,4,5]>(r) e = Constant<value_ints=[-1,4,6]>() y = Reshape(t, e)"),
            ("float[N,3,4] x", "float[A,B]", "y = Flatten(x)"),
            ("float[N,6] x", "float[A,B,C,D]", "s = Constant<value_ints=[0,2,3,1]>() y = Reshape(x, s)"),
            ("float[N,3,4,5] x, float[N,1,1,5] w", "float[A,B,C,D]", "y = Mul(x, w)"),
            ("float[N,3,4,5] x, float[N,3,1,1] w", "float[A,B,C,D]", "y = Sub(w, x)"),
            ("float[N,3,4,5] x, float[N,1,4,1] w", "float[A,B,C,D]", "y = Add(x, w)"),
            ("float[N,4,5] x, float[N,4,1] w", "float[A,B,C]", "y = Div(x, w)"),
            ("float[N,4,5] x, float[N,1,5] w", "float[A,B,C]", "y = Max(w, x)"),
            ("float[N,1,5] x, float[N,4,1] w", "float[A,B,C]", "y = Add(x, w)"),
            ("float[N,5] x, float[N,4,5] w", "float[A,B,C]", "i = Constant<value_ints=[1]>() u = Unsqueeze(x, i) y = Pow(u, w)"),
            ("float[N,2,3,4,5] x", "float[A,B,C,D,E]", "a = Relu(x) y = Add(a, x)"),
            ("float[N,8,6] x", "float[A,B,C]", "b = Constant<value_ints=[1]>() e = Constant<value_ints=[9]>()"
             " i = Constant<value_ints=[1]>() s = Constant<value_ints=[3]>() y = Slice(x, b, e, i, s)"),
            ("float[N,3,8,6] x", "float[A,B,C,D]", "b = Constant<value_ints=[1,7]>() e = Constant<value_ints=[99,-99]>()"
             " i = Constant<value_ints=[3,2]>() s = Constant<value_ints=[2,-1]>() y = Slice(x, b, e, i, s)"),
            ("float[N,3,40] x", "float[A,B,C]", f"i = Constant<value_ints={[n * 7 % 40 for n in range(40)]}>()"
             " y = Gather<axis=2>(x, i)"),
            ("float[N,3,4,5] x", "float[A,B,C]", "i = Constant<value_int=2>() y = Gather<axis=2>(x, i)"),
            ("float[N,3,4] x, float[N,3,2] w", "float[A,B,C]", "y = Concat<axis=-1>(x, w)"),
            ("float[N,2,3,4] x", "float[A,B,C,D]", "i = Constant<value_ints=[1,3]>() y = ReduceMax(x, i)"),
            ("float[N,4,6] x", "float[A,B,C]", "i = Constant<value_ints=[1]>() a = Constant<value_ints=[-4]>()"
             " e = Constant<value_ints=[9]>() h = Relu(x) s = Slice(h, a, e, i) n = Neg(h) y = Mul(s, n)"),
            ("float[2,3] x", "float[A,B]", "i = Constant<value_ints=[2,1]>() y = Tile(x, i)"),
            ("float[2,3,4] x", "float[A,B,C]", "i = Constant<value_ints=[2,0,-1]>() y = Reshape(x, i)"),
            ("float[2,6] x", "float[A,B,C]", "i = Constant<value_ints=[2,3,-1]>() y = Reshape(x, i)"),
            ("float[N,2,3] x, float[N,2,3] w", "float[A,B,C]", "c = Constant<value_ints=[1,0,1]>() b = Cast<to=9>(c)"
             " y = Where(b, w, x)"),
            ("float[N,2,3] x", "float[A,B,C]", "c = Constant<value_ints=[1,0,1]>() b = Cast<to=9>(c)"
             " k = Constant<value_float=-2.5>() l = Where(b, x, k) y = Where(b, k, l)"),
        ],
    )  # fmt: skip
    def test_gives_the_references_numbers(
        self, inputs: str, output: str, body: str, model_from_text: Make, tmp_path: Path, tolerance: Any
    ) -> None:
        model = model_from_text(f"{HEADER} net ({inputs}) => ({output} y) {{ {body} }}")
        bundle = convert(model, "ncnn", tmp_path / "net")
        rng = np.random.default_rng(0)
        for batch in (1, 3):
            feeds = {
                info.name: rng.uniform(0.5, 2, [batch if size == "N" else size for size in info.shape]).astype(
                    np.float32
                )
                for info in model.inputs
            }
            agree(model, bundle, feeds, tolerance["float32"]["rel_l2"])

    def test_changes_of_shape_add_no_layer(self, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(
            f"{HEADER} net (float[N,8,1,1] x) => (float[A,B] y)"
            " { f = Flatten(x) i = Constant<value_ints=[1]>() u = Unsqueeze(f, i) r = Relu(u) y = Squeeze(r, i) }"
        )
        bundle = convert(model, "ncnn", tmp_path / "net")
        assert kinds(bundle) == ["Input", "ReLU"]
        assert {"x", "f", "u", "r", "y"} <= set(bundle.tensor_names)

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("ReduceMean", "i = Constant<value_ints=[0]>() m = ReduceMean(x, i) y = Sub(x, m)"),
            ("Tile", "i = Constant<value_ints=[2,1]>() y = Tile(x, i)"),  # a, b, a, b and not a, a, b, b
        ],
    )
    def test_samples_that_meet_are_refused(self, kind: str, body: str, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(f"{HEADER} net (float[N,8] x) => (float[A,B] y) {{ {body} }}")
        with pytest.raises(EdgewrightError, match=kind) as caught:
            convert(model, "ncnn", tmp_path / "net")
        assert caught.value.code == "E210"
        assert "mixes samples" in str(caught.value)
        assert not (tmp_path / "net").exists()

    @pytest.mark.parametrize(
        ("body", "apart"),
        [
            ("c = Conv(x, w) y = Flatten(c)", True),
            ("s = Constant<value_ints=[4,-1]>() y = Reshape(x, s)", False),
            ("i = Constant<value_ints=[0]>() m = ReduceMean(x, i) y = Sub(x, m)", False),
        ],
    )
    def test_a_fixed_batch_is_taken_apart_where_samples_do_not_meet(
        self, body: str, apart: bool, model_from_text: Make, tmp_path: Path, rng: np.random.Generator, tolerance: Any
    ) -> None:
        model = model_from_text(
            f"{HEADER} net (float[4,3,5,5] x) => (float[A,B] y) <float[1,3,1,1] w = {{1, 2, 3}}> {{ {body} }}"
        )
        if "Sub" in body:
            model.ir.graph.outputs[0].shape = None
        bundle = convert(model, "ncnn", tmp_path / "net")
        agree(
            model, bundle, {"x": rng.standard_normal((4, 3, 5, 5)).astype(np.float32)}, tolerance["float32"]["rel_l2"]
        )
        sizes = (bundle.path / "model.param").read_text(encoding="utf-8").splitlines()[2].split()[5:]
        assert sizes == (["0=5", "1=5", "2=3"] if apart else ["0=5", "1=5", "2=4", "11=3"])

    @pytest.mark.parametrize("shape", ["float[N,3,H,W]", "float[H,3]", "float[2,A,3]"])
    def test_open_sizes_other_than_the_batch_are_refused(self, shape: str, model_from_text: Make) -> None:
        model = model_from_text(f"{HEADER} net ({shape} x) => (float[A,B] y) {{ y = Softmax<axis=0>(x) }}")
        assert RUNTIME.supports(model.ir)


class TestPlaces:
    """ArgMax and ArgMin: equal values are common here, and go to the first or the last as the node says."""

    @pytest.mark.parametrize("last", [0, 1])
    @pytest.mark.parametrize("axis", [1, 2, -1])
    @pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
    def test_are_the_references(
        self, kind: str, axis: int, last: int, model_from_text: Make, tmp_path: Path, rng: np.random.Generator
    ) -> None:
        model = model_from_text(
            f"{HEADER} net (float[N,5,6,7] x) => (int64[N,A,B] y)"
            f" {{ y = {kind}<axis={axis}, keepdims=0, select_last_index={last}>(x) }}"
        )
        feeds = {"x": rng.integers(-2, 3, (3, 5, 6, 7)).astype(np.float32)}
        bundle = convert(model, "ncnn", tmp_path / "net")
        with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
            wanted, got = original.run(feeds)["y"], opened.run(feeds)["y"]
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, wanted)

    def test_are_refused_in_half_precision(self, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(
            f"{HEADER} net (float16[N,2] x) => (int64[N,1] y) <float16[2] w = {{1, 2}}> {{ a = Mul(x, w) y = ArgMax<axis=1>(a) }}"
        )
        assert model.precision == "fp16"
        with pytest.raises(EdgewrightError, match="half precision does not count"):
            convert(model, "ncnn", tmp_path / "net")


class TestNames:
    def test_names_that_the_format_forbids_map_back(self, tmp_path: Path, tolerance: Any) -> None:
        import onnx_ir as ir

        x = ir.val("an input", ir.DataType.FLOAT, [1, 3])
        relu = ir.node("Relu", [x])
        relu.outputs[0].name = "100 %\tdone"
        graph = ir.Graph([x], relu.outputs, nodes=[relu], opset_imports={"": 21}, name="net")
        graph.outputs[0].type, graph.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 3])
        model = Model(ir.Model(graph, ir_version=10))
        bundle = convert(model, "ncnn", tmp_path / "net")
        assert set(bundle.tensor_names) == {"an input", "100 %\tdone"}
        agree(model, bundle, {"an input": np.array([[-1, 0, 2]], np.float32)}, tolerance["float32"]["rel_l2"])

    def test_a_fused_chain_keeps_its_last_tensors_name(self, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(
            f"{HEADER} net (float[N,3,8,8] x) => (float[A,B,C,D] y)"
            " <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> { c = Conv(x, w) y = Relu(c) }"
        )
        bundle = convert(model, "ncnn", tmp_path / "net")
        assert kinds(bundle) == ["Input", "Convolution"]
        assert set(bundle.tensor_names) == {"x", "y"}
        with session.open(bundle) as opened, pytest.raises(EdgewrightError) as caught:
            opened.run({"x": np.zeros((1, 3, 8, 8), np.float32)}, ["c"])
        assert caught.value.code == "E231"


class TestPrecision:
    def test_fp32_networks_ask_for_no_half_precision(self, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(f"{HEADER} net (float[N,4] x) => (float[N,4] y) {{ y = Relu(x) }}")
        bundle = convert(model, "ncnn", tmp_path / "net")
        with session.open(bundle) as opened:
            options = opened._runner._net.opt  # type: ignore[attr-defined]
            narrow = (
                "use_fp16_packed",
                "use_fp16_storage",
                "use_fp16_arithmetic",
                "use_bf16_storage",
                "use_bf16_packed",
            )
            assert not any(getattr(options, name) for name in narrow)
        assert "use_fp16_arithmetic = False" in (bundle.path / "README.md").read_text(encoding="utf-8")

    def test_float16_weights_stay_float16(self, model_from_text: Make, tmp_path: Path, tolerance: Any) -> None:
        text = "net (TYPE[N,64] x) => (TYPE[A,B] y) { y = Gemm<transB=1>(x, w) }"
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((32, 64)).astype(np.float16)
        sizes = {}
        for dtype, kind in (("float16", "float16"), ("float32", "float")):
            from edgewright.graph.dataflow import add_initializer

            model = model_from_text(f"{HEADER} {text.replace('TYPE', kind).replace(', w)', ', x)')}")
            value = add_initializer(model.ir.graph, "w", weight.astype(dtype))
            model.ir.graph[0].replace_input_with(1, value)
            bundle = convert(model, "ncnn", tmp_path / dtype)
            sizes[dtype] = (bundle.path / "model.bin").stat().st_size
            x = rng.standard_normal((2, 64)).astype(dtype)
            with session.open(model, runtime="reference") as original, session.open(bundle) as opened:
                got, wanted = opened.run({"x": x})["y"], original.run({"x": x})["y"]
            assert got.dtype == wanted.dtype
            assert np.allclose(got, wanted, rtol=tolerance[dtype]["rtol"], atol=10 * tolerance[dtype]["atol"])
        assert sizes["float16"] - 4 == (sizes["float32"] - 4) // 2


class TestCuts:
    @pytest.fixture
    def bundle(self, model_from_text: Make, tmp_path: Path) -> Bundle:
        return convert(
            model_from_text(
                f"{HEADER} net (float[N,4] x, float[N,4] z) => (float[N,4] y) {{ a = Exp(x) b = Add(a, z) y = Neg(b) }}"
            ),
            "ncnn",
            tmp_path / "net",
        )

    def test_unknown_tensors_and_open_cuts_are_refused(self, bundle: Bundle) -> None:
        for cut, message in (
            (Cut(None, ("nothing",)), "`nothing`"),
            (Cut(("a",), ("y",)), "`z` must be given too"),
            (Cut(None, ()), "at least one"),
        ):
            with pytest.raises(EdgewrightError, match=message) as caught:
                session.open(bundle, cut=cut)
            assert caught.value.code == "E231"

    def test_several_samples_go_through_a_cut(self, bundle: Bundle) -> None:
        a, z = np.ones((3, 4), np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
        with session.open(bundle, cut=Cut(("a", "z"), ("y",))) as part:
            np.testing.assert_array_equal(part.run({"a": a, "z": z})["y"], -(a + z))
            with pytest.raises(EdgewrightError) as caught:
                part.run({"a": a[:, :3], "z": z})
        assert caught.value.code == "E230"


class TestBadInput:
    def test_unknown_operators_are_named_before_anything_is_written(
        self, model_from_text: Make, tmp_path: Path
    ) -> None:
        model = model_from_text(
            f"{HEADER} net (float[1,4] x) => (float[1,4] y) {{ a = made.up.Op(x) b = NonZero(a) y = Relu(x) }}"
        )
        problems = RUNTIME.supports(model.ir)
        assert [problem.op_type for problem in problems] == ["Op", "NonZero"]
        with pytest.raises(EdgewrightError) as caught:
            convert(model, "ncnn", tmp_path / "net")
        assert caught.value.code == "E210"
        assert not (tmp_path / "net").exists()

    @pytest.mark.parametrize("file", ["model.param", "tensors.json"])
    def test_broken_files_are_errors(self, file: str, model_from_text: Make, tmp_path: Path) -> None:
        model = model_from_text(f"{HEADER} net (float[1,4] x) => (float[1,4] y) {{ y = Relu(x) }}")
        bundle = convert(model, "ncnn", tmp_path / "net")
        (bundle.path / file).write_text("no", encoding="utf-8")
        with pytest.raises(EdgewrightError) as caught:
            session.open(bundle)  # a Bundle in memory: hashes are looked at when it is opened from its folder
        assert caught.value.code == "E232"

    @pytest.mark.parametrize(
        ("inputs", "body", "reason"),
        [
            ("float[N,3] x, bool[N,3] c", "y = Where(c, x, x)", "it is bool, ncnn networks here take floats alone"),
            ("float[N,3,H,W] x", "y = Relu(x)", r"more than its batch is open: \[N,3,H,W\]"),
            ("float[N,2,3,4,5,6] x", "i = Constant<value_ints=[1]>() y = ReduceMax(x, i)",
             r"axis 1 of `x` \[1, 2, 3, 4, 5, 6\] is none that ncnn has"),
            ("float[N,3] x", "i = ArgMax<axis=1>(x) j = Neg(i) y = Cast<to=1>(j)", "it makes int64"),
            ("float[N,3] x", "c = Constant<value_ints=[1,0,1]>() b = Cast<to=9>(c) r = Relu(x)"
             " i = Constant<value_ints=[1]>() m = ReduceMax(x, i) y = Where(b, r, m)", r"cannot choose from \[1, 1\]"),
        ],
    )  # fmt: skip
    def test_refusals_say_why_once(
        self, inputs: str, body: str, reason: str, model_from_text: Make, tmp_path: Path
    ) -> None:
        model = model_from_text(f"{HEADER} net ({inputs}) => (float[A,B] y) {{ {body} }}")
        with pytest.raises(EdgewrightError, match=reason) as caught:
            convert(model, "ncnn", tmp_path / "net")
        assert caught.value.message.count("`Input`") <= 1
        assert "inspect MODEL --runtimes" in (caught.value.hint or "")

    def test_integer_inputs_are_refused(self, model_from_text: Make) -> None:
        model = model_from_text(f"{HEADER} net (int64[N,4] x) => (int64[N,4] y) {{ y = Identity(x) }}")
        assert next(problem.op_type for problem in RUNTIME.supports(model.ir)) == "Input"


class TestRecurrent:
    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    @pytest.mark.parametrize(("kind", "gates", "states"), [("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)])
    def test_states_go_in_and_come_out(
        self, kind: str, gates: int, states: int, direction: str, model_from_text: Make, tmp_path: Path, tolerance: Any
    ) -> None:
        from edgewright.graph.dataflow import add_initializer

        count = 2 if direction == "bidirectional" else 1
        taken, made = ("h0, c0", "y, h, c") if states == 2 else ("h0", "y, h")
        extra = ", linear_before_reset=1" if kind == "GRU" else ""
        inputs = ", ".join(f"float[{count},N,3] {name}" for name in taken.split(", "))
        outputs = ", ".join(f"float[{'A,B,C,D' if name == 'y' else 'A,B,C'}] {name}" for name in made.split(", "))
        model = model_from_text(
            f'{HEADER} net (float[5,N,4] x, {inputs}) => ({outputs}) {{ {made} = {kind}<hidden_size=3, direction="{direction}"'
            f"{extra}>(x, x, x, x, , {taken}) }}"
        )
        rng = np.random.default_rng(0)
        for index, shape in ((1, (count, 3 * gates, 4)), (2, (count, 3 * gates, 3)), (3, (count, 6 * gates))):
            array = rng.standard_normal(shape).astype(np.float32)
            model.ir.graph[0].replace_input_with(index, add_initializer(model.ir.graph, f"w{index}", array))
        bundle = convert(model, "ncnn", tmp_path / "net")
        for batch in (1, 2):
            feeds = {
                info.name: rng.standard_normal([batch if size == "N" else size for size in info.shape]).astype(
                    np.float32
                )
                for info in model.inputs
            }
            agree(model, bundle, feeds, 10 * tolerance["float32"]["rel_l2"])


@pytest.mark.parametrize("name", PACKS)
def test_darknet_packs_give_darknets_numbers(name: str, data: Path, tmp_path: Path, tolerance: Any) -> None:
    """Every layer that survives, the whole network running: no further from Darknet than ten times its own noise."""
    import json

    from edgewright.load import load

    folder = data / "darknet-oracle" / name
    model = load(folder / "net.cfg", options={"weights": folder / "net.weights"})
    bundle = convert(model, "ncnn", tmp_path / "net")
    image, stored = np.load(folder / "input.npy"), np.load(folder / "outputs.npz")
    described = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    image = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
    layers = {f"layer_{row['index']:03d}": row for row in described["layers"]}
    shown = [name for name in layers if name in stored and name in bundle.tensor_names]
    assert len(shown) > 0.8 * len(stored.files)
    with session.open(bundle) as opened:
        info = model.inputs[0]
        got = opened.run({info.name: image.reshape(1, *info.shape[1:])}, shown)
    for layer in shown:
        stride = layers[layer]["steps"][0]["stride"]
        distance = rel_l2(stored[layer], got[layer].reshape(-1)[::stride])
        assert distance <= 10 * tolerance["float32"]["rel_l2"], layer


def test_lowering_does_not_change_the_model(model_from_text: Make) -> None:
    model = model_from_text(f"{HEADER} net (float[N,4] x) => (float[N,4] y) {{ a = Shape(x) y = Reshape(x, a) }}")
    before = model.hash
    lower(model.ir)
    assert Model(model.ir).hash == before


def test_every_layer_of_a_real_network_is_right_alone(data: Path, tmp_path: Path, tolerance: Any) -> None:
    import edgewright as ew

    model = ew.load("zoo:efficientnet-lite0")
    samples = ew.Samples.open(data / "imagenet-sample", model)
    found = ew.locate(model, convert(model, "ncnn", tmp_path / "net"), samples)
    assert found.first is None
    assert len(found.layers) > 100
    for layer in found.layers:
        assert layer.isolated is not None
        assert layer.isolated.rel_l2 <= 10 * tolerance["float32"]["rel_l2"], layer.name
