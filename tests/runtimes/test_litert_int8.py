"""LiteRT in int8: layers that were quantized run in integers, exactly as the graph says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_pass_quantize_static import Drawn, network, parse, quantized
from tests.unit.test_quantize_static_lite0 import pooled

import edgewright as ew
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.metrics import sqnr_db
from edgewright.target import CPUS

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def wide() -> ew.Model:
    """Branches of different ranges that meet in Concat, a product of two activations, Relu6, a strided pool."""
    rng = np.random.default_rng(1)
    return parse(
        """g (float[1,3,12,12] x, float[8,3,3,3] v, float[8,8,1,1] w, float[8,8,3,3] u, float[4,16,1,1] t, float[4] b)
        => (float[1,4,3,3] y) {
            a = Conv<pads = [1,1,1,1], strides = [2,2]>(x, v)  lo = Constant<value_float = 0.0>()
            hi = Constant<value_float = 6.0>()  r = Clip(a, lo, hi)  c = Conv(r, w)  d = Conv<pads = [1,1,1,1]>(c, u)
            m = Mul(c, d)  p = MaxPool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(m)
            o = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c)  k = Concat<axis = 1>(p, o)
            e = Conv(k, t, b)  y = Relu(e) }""",
        "tensor", v=rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        w=(rng.standard_normal((8, 8, 1, 1)) / 9).astype(np.float32),
        u=rng.standard_normal((8, 8, 3, 3)).astype(np.float32), t=rng.standard_normal((4, 16, 1, 1)).astype(np.float32),
        b=rng.standard_normal(4).astype(np.float32),
    )  # fmt: skip


NETWORKS: dict[Callable[[], ew.Model], int] = {network: 4, pooled: 3, wide: 4}


def made(model: ew.Model) -> ew.Model:
    return quantized(model, Drawn(), runtime="litert", search=False)


def types(bundle: Bundle) -> list[tuple[str, list[str], list[str]]]:
    """Of each operator in the file: its name, and the types of what it reads and makes."""
    from ai_edge_litert import schema_py_generated as schema

    def by_value(kind: Any) -> dict[int, str]:
        return {value: name for name, value in vars(kind).items() if isinstance(value, int)}

    file = schema.ModelT.InitFromPackedBuf((bundle.path / "model.tflite").read_bytes(), 0)
    names, dtypes, graph = by_value(schema.BuiltinOperator), by_value(schema.TensorType), file.subgraphs[0]
    found = []
    for item in graph.operators:
        read, made_ = ([dtypes[graph.tensors[n].type] for n in part if n >= 0] for part in (item.inputs, item.outputs))
        found.append((names[file.operatorCodes[item.opcodeIndex].builtinCode], read, made_))
    return found


@pytest.mark.parametrize(("build", "layers"), NETWORKS.items())
def test_every_layer_runs_in_integers(build: Callable[[], ew.Model], layers: int, tmp_path: Path) -> None:
    bundle = ew.convert(made(build()), "litert", tmp_path / "net")
    assert bundle.precision == "int8"
    operators = types(bundle)
    found = [(kind, read, made_) for kind, read, made_ in operators if kind in _LAYERS]
    assert len(found) == layers
    for kind, read, made_ in found:
        assert read[:2] == ["INT8", "INT8"], kind
        assert read[2:] in ([], ["INT32"])
        assert made_ == ["INT8"]
    # Floats come in and go out; in between everything is integers.
    inner = [kind for kind, read, made_ in operators if "FLOAT32" in (*read, *made_)]
    assert sorted(inner) == ["DEQUANTIZE", "QUANTIZE"]


def test_integers_at_both_ends_mean_what_the_floats_meant(tmp_path: Path) -> None:
    small = made(wide())
    inner = {"input_type": "int8", "output_type": "int8"}
    bundles = [ew.convert(small, "litert", tmp_path / name, options=given) for name, given in (("f", {}), ("i", inner))]
    kinds = [kind for kind, read, made_ in types(bundles[1]) if "FLOAT32" in (*read, *made_)]
    assert kinds == [], "no float is left in the file"
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    with ew.open(bundles[0]) as floats, ew.open(bundles[1]) as integers:
        wanted, got = floats.run(feeds)["y"], integers.run(feeds)["y"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(wanted, got)
    from ai_edge_litert.interpreter import Interpreter

    file = Interpreter(str(tmp_path / "i" / "model.tflite"))
    ends = [*file.get_input_details(), *file.get_output_details()]
    assert [(end["name"], end["dtype"]) for end in ends] == [("x", np.int8), ("y", np.int8)]
    assert all(end["quantization"][0] > 0 for end in ends)
    assert "int8" in (tmp_path / "i" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("end", ["input_type", "output_type"])
def test_ends_that_are_not_quantized_cannot_be_integers(end: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError, match="cannot be int8") as problem:
        ew.convert(network(), "litert", tmp_path / "net", options={end: "int8"})
    assert problem.value.code == "E211" and "compress" in (problem.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def read_by(quantize: Any) -> list[str]:
    """The integers that a QuantizeLinear's value is made of: those behind the nearest DequantizeLinear nodes."""
    found, stack = set(), [quantize.inputs[0]]
    while stack:
        node = stack.pop().producer()
        if node is not None and node.op_type == "DequantizeLinear":
            found.add(node.inputs[0].name)
        elif node is not None:
            stack.extend(value for value in node.inputs if value is not None)
    return sorted(found)


@pytest.mark.parametrize("build", NETWORKS)
def test_each_layer_computes_what_the_graph_says(
    build: Callable[[], ew.Model], tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    """Given the graph's own integers: equal ones but for those on the edge of a step. LiteRT's QUANTIZE from integers to
    integers, before a Concat, multiplies by 8 bits of the ratio of the scales, and meets more edges than others."""
    small = made(build())
    bundle = ew.convert(small, "litert", tmp_path / "net")
    names = [name for name in bundle.tensor_names if name.endswith(":q")]
    compared = 0
    with ew.open(small, runtime="reference") as original:
        feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
        wanted = original.run(feeds, names)
    for node in small.ir.graph:
        inputs = [name for name in read_by(node) if name in names] if node.op_type == "QuantizeLinear" else []
        made_ = node.outputs[0].name
        if not inputs or made_ not in names:
            continue
        with ew.open(bundle, cut=Cut(tuple(inputs), (made_,))) as part:
            got = part.run({name: wanted[name] for name in inputs})[made_]
        assert got.dtype == np.int8
        apart = np.abs(wanted[made_].astype(int) - got.astype(int))
        assert apart.max() <= 1, made_
        assert apart.mean() <= 50 * tolerance["int8"]["steps"], made_
        compared += 1
    assert compared >= 4


def test_a_broken_scale_does_not_go_unseen(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    model, small = network(), made(network())
    broken = small.clone_ir()
    from edgewright.graph.dataflow import add_initializer

    node = next(node for node in broken.graph if node.op_type == "QuantizeLinear" and node.inputs[0].name != "x")
    scale = node.inputs[1]
    wrong = add_initializer(broken.graph, "wrong", scale.const_value.numpy() * np.float32(1 / 8))
    scale.replace_all_uses_with(wrong)
    feeds = [{"x": np.random.default_rng(seed).standard_normal((1, 3, 12, 12)).astype(np.float32)} for seed in range(8)]
    levels = []
    for name, tried in (("right", small), ("wrong", small.with_ir(broken))):
        bundle = ew.convert(tried, "litert", tmp_path / name)
        with ew.open(model, runtime="reference") as original, ew.open(bundle) as opened:
            pairs = [(original.run(item)["y"], opened.run(item)["y"]) for item in feeds]
        levels.append(sqnr_db(*(np.concatenate(side) for side in zip(*pairs, strict=True))))
    assert levels[0] >= tolerance["int8"]["sqnr_db"] > levels[1]


def test_weights_of_eight_bits_do_not_saturate(tmp_path: Path) -> None:
    """Products of the largest weights and activations, added over many channels: exact in 32 bits, beyond 16."""
    weights = np.full((4, 64, 1, 1), 127, np.float32)
    model = parse(
        """g (float[1,64,3,3] x, float s, int8 z, int8[4,64,1,1] w, float[4] v, int8[4] n, float[4] o, float t)
        => (float[1,4,3,3] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = DequantizeLinear<axis=0>(w, v, n) a = Conv(d, e) r = QuantizeLinear(a, t, z) y = DequantizeLinear(r, t, z) }""",
        "tensor", s=np.float32(1), z=np.int8(0), w=weights.astype(np.int8), v=np.ones(4, np.float32),
        n=np.zeros(4, np.int8), o=np.zeros(4, np.float32), t=np.float32(2**14),
    )  # fmt: skip
    bundle = ew.convert(model, "litert", tmp_path / "net")
    assert [kind for kind, *_ in types(bundle)] == ["QUANTIZE", "CONV_2D", "DEQUANTIZE"]
    x = np.full((1, 64, 3, 3), 127, np.float32)
    with ew.open(bundle) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.rint(127 * 127 * 64 / 2**14) * 2**14)


@pytest.mark.parametrize("cpu", ["host", *CPUS])
def test_the_format_is_the_same_everywhere(cpu: str) -> None:
    from edgewright.runtimes import litert

    form = litert.quant_format(ew.Target("litert", cpu))
    assert (form.activation_dtype, form.activation_symmetric, form.weight_bits) == ("int8", False, 8)
    assert not litert.TRAITS.saturates


@pytest.mark.parametrize("runtime", ["onnxruntime"])
def test_another_format_is_refused_with_the_recipe_that_fits(runtime: str, tmp_path: Path) -> None:
    small = quantized(network(), Drawn(), runtime=runtime, search=False)
    with pytest.raises(EdgewrightError, match="to uint8; LiteRT runs int8") as caught:
        ew.convert(small, "litert", tmp_path / "net")
    assert caught.value.code == "E211"
    assert "--runtime litert" in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_lite0_agrees_with_what_it_was(data: Path, tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    """Calibration alone, 24 photos; that every layer is in integers, and the answers."""
    model = ew.load("zoo:efficientnet-lite0")
    files = sorted((data / "imagenet-sample").glob("*.jpg"))
    folders = {}
    for name, chosen in (("made", files[:24]), ("judge", files[24:64])):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for path in chosen:
            (folders[name] / path.name).symlink_to(path)
    samples = ew.Samples.open(folders["made"], model, roles="calibrate", labels="none")
    bundle = ew.convert(ew.compress(model, "int8", samples, target=ew.Target("litert")), "litert", tmp_path / "net")
    layers = [read[:2] for kind, read, _ in types(bundle) if kind in _LAYERS]
    assert layers == [["INT8", "INT8"]] * 50
    judges = ew.Samples.open(folders["judge"], model, roles="judge", labels="none")
    report = ew.verify(model, bundle, judges, min_agreement=0.8)
    gate = next(gate for gate in report.gates if gate.name == "agreement")
    assert gate.value >= 0.95
    assert report.saturation is None
