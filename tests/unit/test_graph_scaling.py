"""graph/scaling: any factors on what is free leave the network as it is; everything else is held at 1, with the reason."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import version_converter
from tests.conftest import architecture_names

from edgewright.compress import compress
from edgewright.graph.dataflow import Names
from edgewright.graph.scaling import Scaling, find
from edgewright.graph.scaling._ties import connected
from edgewright.graph.shapes import infer
from edgewright.metrics import rel_l2
from edgewright.model import OPSET_VERSION, Model

Tolerance = dict[str, dict[str, float]]
Feeds = dict[str, np.ndarray]

WEIGHTS = {
    "w": (6, 3, 3, 3), "b": (6,), "v": (4, 6, 1, 1), "u": (6, 6, 3, 3), "d": (6, 1, 3, 3), "g": (4, 3, 1, 1),
    "t": (6, 2, 3, 3), "long": (4, 12, 1, 1), "row": (4, 6), "column": (6, 4), "flat": (4, 216), "half": (4, 2, 1, 1),
    "each": (6,), "one": (1,), "plane": (1, 6, 1, 1), "eight": (4, 8, 1, 1), "last": (4,), "gw": (6, 3, 1, 1),
    "narrow": (4, 4, 1, 1), "three": (3, 6),
}  # fmt: skip
PLACES = {
    "axes": [2, 3], "ends": [0, 0, 1, 1, 0, 0, 1, 1], "around": [0, 1, 0, 0, 0, 1, 0, 0],
    "zero": [0], "two": [2], "four": [4], "first": [1], "size": [1, 6, 16, 16], "many": [1000],
    "shuffle": [1, 2, 3, 6, 6], "back": [1, 6, 6, 6],
}  # fmt: skip


def parse(body: str, *, shape: str = "1,3,8,8", outputs: str = "float[A,B,C,D] y") -> ir.Model:
    """A graph that reads x and uses the constants above by name."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {n: rng.standard_normal(sizes).astype(np.float32) for n, sizes in WEIGHTS.items()}
    arrays["var"] = np.square(arrays["each"]) + np.float32(0.5)
    arrays |= {name: np.array(items, np.int64) for name, items in PLACES.items()}
    scalars = {"nought": 0, "six": 6, "most": 3.4028235e38, "low": -1}
    arrays |= {name: np.array(number, np.float32) for name, number in scalars.items()}
    text = f'<ir_version: 10, opset_import: ["" : {OPSET_VERSION}]> g (float[{shape}] x) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    read = {name for node in proto.graph.node for name in node.input}
    made = {name for node in proto.graph.node for name in node.output}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read - made
    )
    model = ir.from_proto(proto)
    infer(model)
    onnx.checker.check_model(ir.to_proto(model))
    return model


def run(model: ir.Model, feeds: Feeds) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    proto = ir.to_proto(model).SerializeToString()
    found: list[np.ndarray] = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    return found


def photo(*shape: int) -> Feeds:
    return {"x": np.random.default_rng(1).standard_normal(shape or (1, 3, 8, 8)).astype(np.float32)}


def random_factors(scaling: Scaling) -> np.ndarray:
    factors = np.ones(len(scaling.free))
    factors[scaling.free] = np.exp(np.random.default_rng(2).normal(size=int(scaling.free.sum())))
    return factors


def distance(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    return max((rel_l2(a, b) for a, b in zip(before, after, strict=True) if a.dtype.kind == "f"), default=0.0)


#: After c = Conv(x, w, b), 6 channels of 6 x 6: how many factors are free, and what follows.
FREE = {
    "relu": (6, "h = Relu(c)  y = Conv(h, v)"),
    "leaky": (6, "h = LeakyRelu(c)  y = Conv(h, v)"),
    "slopes": (6, "h = PRelu(c, plane)  y = Conv(h, v)"),
    "no bound": (6, "h = Clip(c, nought, most)  y = Conv(h, v)"),
    "depthwise": (12, "h = Conv<group = 6, pads = [1,1,1,1]>(c, d, each)  i = Relu(h)  y = Conv(i, v)"),
    "grouped": (6, "y = Conv<group = 2>(c, g)"),
    "transposed": (10, "h = ConvTranspose<group = 2>(c, t)  i = Relu(h)  y = Conv(i, narrow)"),
    "twice": (6, "h = Add(c, c)  y = Conv(h, v)"),
    "residual": (6, "h = Relu(c)  i = Conv<pads = [1,1,1,1]>(h, u)  j = Sub(i, h)  y = Conv(j, v)"),
    "largest of two": (6, "i = Conv<pads = [1,1,1,1]>(c, u)  j = Max(i, c)  y = Conv(j, v)"),
    "constant added": (6, "h = Add(c, plane)  i = Sub(one, h)  y = Conv(i, v)"),
    "constant factor": (6, "h = Mul(plane, c)  i = Div(h, six)  y = Conv(i, v)"),
    "gate": (6, "m = GlobalAveragePool(x)  n = Conv(m, gw)  o = Sigmoid(n)  h = Mul(c, o)  y = Conv(h, v)"),
    "pools": (6, "h = MaxPool<kernel_shape = [2,2]>(c)  i = AveragePool<kernel_shape = [2,2]>(h)  y = Conv(i, v)"),
    "mean": (6, "h = ReduceMean(c, axes)  y = Conv(h, v)"),
    "pad": (6, "h = Pad(c, ends)  y = Conv(h, v)"),
    "pad by channels": (8, "h = Pad(c, around)  y = Conv(h, eight)"),
    "resize": (6, 'h = Resize<mode = "linear">(c, , , size)  y = Conv(h, v)'),
    "concat": (6, "i = Neg(c)  h = Concat<axis = 1>(c, i)  y = Conv(h, long)"),
    "split": (6, "e, f = Split<axis = 1, num_outputs = 2>(c)  h = Concat<axis = 1>(f, e)  y = Conv(h, v)"),
    "slice": (6, "e = Slice(c, zero, two, first)  f = Slice(c, two, many, first)  h = Concat<axis = 1>(f, e)  y = Conv(h, v)"),
    "norm": (12, "h = BatchNormalization(c, each, b, each, var)  i = Relu(h)  y = Conv(i, v)"),
    "dropout": (6, "h = Dropout(c)  y = Conv(h, v)"),
    "sizes are read": (6, "n = Shape(c)  h = Reshape(c, n)  y = Conv(c, v)  z = Conv(h, v)"),
    "linear": (10, "m = GlobalAveragePool(c)  h = Flatten(m)  i = Gemm(h, column, last)  j = Relu(i)"
               "  k = Gemm<transB = 1>(j, column)  y = Unsqueeze(k, axes)"),
    "flat map": (6, "h = Flatten(c)  k = Gemm<transB = 1>(h, flat)  y = Unsqueeze(k, axes)"),
    "channels last": (10, "h = Transpose<perm = [0,2,3,1]>(c)  i = MatMul(h, column)  j = Add(i, last)  k = Relu(j)"
                      "  l = Transpose<perm = [0,3,1,2]>(k)  y = Conv(l, narrow)"),
    "norm of features": (12, "h = Transpose<perm = [0,2,3,1]>(x)  i = MatMul(h, three)"
                         "  j = LayerNormalization(i, each, b)  y = MatMul(j, column)  z = Conv(c, v)"),
}  # fmt: skip

HELD = {
    "Clip `h` bounds it": "h = Clip(c, nought, six)  y = Conv(h, v)",
    "Clip `i` bounds it": "h = Relu(c)  i = Clip(h, low)  y = Conv(i, v)",
    "Sigmoid reads `c`": "h = Sigmoid(c)  i = Mul(h, c)  y = Conv(i, v)",
    "Mul reads `h`": "h = Relu(c)  i = Mul(h, c)  y = Conv(i, v)",
    "Div reads `c`": "h = Div(plane, c)  y = Conv(h, v)",
    "InstanceNormalization reads `c`": "h = InstanceNormalization(c, each, b)  y = Conv(h, v)",
    "Softmax reads `c`": "h = Softmax<axis = 1>(c)  y = Conv(h, v)",
    "the graph returns `c`": "y = Conv(c, v)  z = Relu(c)",
    "Reshape `h` takes its channels apart": "h = Reshape(c, shuffle)  i = Transpose<perm = [0,2,1,3,4]>(h)"
    "  j = Reshape(i, back)  y = Conv(j, v)",
    "ReduceMean `y` mixes its channels": "y = ReduceMean(c, first)",
    "Add `h` has an operand that cannot be scaled": "m = Conv(x, w)  n = Tanh(m)  h = Add(c, n)  y = Conv(h, v)",
    "Conv `y`: its weights are computed, or not finite float32": "k = Exp(v)  y = Conv(c, k)",
    "Pad `h` pads with more than zeros": "h = Pad(c, ends, six)  y = Conv(h, v)",
    "MatMul `y` reads it along another axis": "y = MatMul(c, column)",
}


def after_conv(body: str) -> ir.Model:
    outputs = ", ".join(f"float[A{i},B{i},C{i},D{i}] {name}" for i, name in enumerate("cyz") if _returned(name, body))
    return parse(f"c = Conv(x, w, b)  {body}", outputs=outputs)


def _returned(name: str, body: str) -> bool:
    return f"{name} = " in body or (name == "c" and "z = Relu(c)" in body)


@pytest.mark.parametrize("case", FREE)
def test_any_factors_keep_the_network(case: str, tolerance: Tolerance) -> None:
    count, body = FREE[case]
    model = after_conv(body)
    before = run(model, photo())
    scaling = find(model)
    assert int(scaling.free.sum()) == count
    factors = random_factors(scaling)
    inner = next(value for value in scaling.channels if value.name == "c")
    old = scaling.channels[inner]
    model.graph.outputs.append(inner)
    plain = run(model, photo())[-1]
    assert scaling.apply(factors, names=Names(model)) >= 2
    infer(model)
    *after, scaled = run(model, photo())
    limit = tolerance["float32"]["rel_l2"]
    assert distance(before, after) <= limit
    assert rel_l2(plain * factors[old.ids][:, None, None], scaled) <= limit


@pytest.mark.parametrize("reason", HELD)
def test_barriers_hold_and_say_why(reason: str) -> None:
    model = after_conv(HELD[reason])
    scaling = find(model)
    group = next(group for group in scaling.groups if any(value.name == "c" for value in group.values))
    assert not scaling.free[group.classes].any()
    assert reason in group.barriers


def test_a_factor_that_is_undone_nowhere_is_seen(tolerance: Tolerance) -> None:
    """The negative: with one layer left out, the comparison above fails."""
    before = run(after_conv(FREE["residual"][1]), photo())
    for left_out in range(3):
        model = after_conv(FREE["residual"][1])
        found = find(model)
        layers = tuple(layer for index, layer in enumerate(found.layers) if index != left_out)
        replace(found, layers=layers).apply(random_factors(found), names=Names(model))
        assert distance(before, run(model, photo())) > 1000 * tolerance["float32"]["rel_l2"]


def test_only_the_channels_that_a_barrier_reads_are_held(tolerance: Tolerance) -> None:
    body = "e, f = Split<axis = 1, num_outputs = 2>(c)  h = Sigmoid(e)  i = Concat<axis = 1>(h, f)  y = Conv(i, v)"
    model = after_conv(body)
    before = run(model, photo())
    scaling = find(model)
    assert int(scaling.free.sum()) == 3
    scaling.apply(random_factors(scaling), names=Names(model))
    assert distance(before, run(model, photo())) <= tolerance["float32"]["rel_l2"]


def test_shared_weights_are_copied(tolerance: Tolerance) -> None:
    conv = "Conv<pads = [1,1,1,1]>"
    body = f"h = Relu(c)  i = {conv}(h, u, each)  j = Relu(i)  k = {conv}(j, u, each)  y = Sigmoid(k)"
    model = after_conv(body)
    shared = model.graph.initializers["u"].const_value
    before = run(model, photo())
    find_and_scale(model)
    assert distance(before, run(model, photo())) <= tolerance["float32"]["rel_l2"]
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    assert len({node.inputs[1] for node in convolutions}) == 3
    assert np.array_equal(
        shared.numpy(), parse(f"c = Conv(x, w, b)  {body}").graph.initializers["u"].const_value.numpy()
    )  # type: ignore[union-attr]


def test_a_symbolic_batch_and_size(tolerance: Tolerance) -> None:
    body = "h = Relu(c)  i = Conv<pads = [1,1,1,1]>(h, u)  j = Add(i, h)  m = GlobalAveragePool(j)  y = Conv(m, v)"
    model = parse(f"c = Conv(x, w, b)  {body}", shape="N,3,H,W")
    feeds = photo(3, 3, 11, 7)
    before = run(model, feeds)
    assert find_and_scale(model) == 6
    assert distance(before, run(model, feeds)) <= tolerance["float32"]["rel_l2"]


def test_what_a_branch_reads_is_held(tolerance: Tolerance) -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,3,4,4] x, bool b) => (float[1,2,4,4] y)
        <float[2,3,1,1] w = {1,2,3,4,5,6}, float[2,2,1,1] v = {1,2,3,4}> {
            c = Conv(x, w)
            d = Conv(c, v)
            y = If (b) <then_branch = t () => (float[1,2,4,4] p) { p = Relu(c) },
                        else_branch = e () => (float[1,2,4,4] q) { q = Neg(d) }>
        }"""
    )
    infer(model)
    scaling = find(model)
    assert not scaling.free.any()
    assert {"Relu reads `c`", "Neg reads `d`"} <= {reason for group in scaling.groups for reason in group.barriers}


def test_a_weight_that_may_be_fed_or_is_not_finite_is_no_weight() -> None:
    model = after_conv("h = Relu(c)  y = Conv(h, v)")
    weight = model.graph.initializers["v"]
    array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
    array[0, 0] = np.nan
    weight.const_value = ir.tensor(array, name="v")
    assert not find(model).free.any()
    model = after_conv("h = Relu(c)  y = Conv(h, v)")
    model.graph.inputs.append(model.graph.initializers["v"])
    assert not find(model).free.any()


def test_closure_of_ties_against_a_plain_search(rng: np.random.Generator) -> None:
    for _ in range(20):
        pairs = [(rng.integers(0, 60, 5), rng.integers(0, 60, 5)) for _ in range(6)]
        expected = list(range(60))
        for _ in range(60):
            for first, second in pairs:
                for a, b in zip(first, second, strict=True):
                    expected[a] = expected[b] = min(expected[a], expected[b])
        assert connected(60, pairs).tolist() == expected
    assert connected(3, []).tolist() == [0, 1, 2]


def find_and_scale(model: ir.Model) -> int:
    scaling = find(model)
    scaling.apply(random_factors(scaling), names=Names(model))
    return int(scaling.free.sum())


#: Residuals, depthwise, batch norms after a concat, shared weights, control flow, attention, channels last.
ALWAYS = ("cond_net", "convnext_atto", "densenet121", "efficientnet_lite0", "mnasnet0_5", "mobilenetv1_100",
          "resnet18_qdq", "retina_shared", "unet")  # fmt: skip


def chosen(names: list[str]) -> list[str]:
    """Graphs for this run: the special ones and two others."""
    others = [name for name in names if name not in ALWAYS]
    return [*(name for name in ALWAYS if name in names), *random.Random(5).sample(others, min(2, len(others)))]


@pytest.mark.parametrize("name", chosen(architecture_names()))
def test_any_factors_keep_real_architectures(
    name: str, architectures: ModuleType, data: Path, tolerance: Tolerance
) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    feeds = architectures.example_inputs(proto, seed=0)
    upgraded = version_converter.convert_version(proto, OPSET_VERSION)
    model = compress(Model(ir.from_proto(upgraded), name=name), "float").clone_ir()
    before = run(model, feeds)
    free = find_and_scale(model)
    assert distance(before, run(model, feeds)) <= tolerance["float32"]["rel_l2"]
    if name in ALWAYS:
        assert (free == 0) == (name in ("mobilenetv1_100", "resnet18_qdq")), (
            "their clips and quantizers hold everything"
        )
