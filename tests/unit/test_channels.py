"""graph/channels: a sliced network equals the same network with those channels set to zero."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgewright.errors import EdgewrightError
from edgewright.graph.channels import Groups, find, mask, remove
from edgewright.graph.shapes import static_shape
from edgewright.inspect import inspect
from edgewright.metrics import rel_l2
from edgewright.model import OPSET_VERSION, Model

Tolerance = dict[str, dict[str, float]]
Arrays = Mapping[str, Any]

#: Convolutions to and from c channels, by which most cases begin and end.
STEM = "h = Conv<pads=[1,1,1,1]>(x, stem)"
STEM_WEIGHTS: dict[str, Any] = {"stem": (8, 3, 3, 3)}


def graph(
    body: str, arrays: Arrays, *, shape: str = "1,3,8,8", returns: str = "float[A,B,C,D] y", inputs: str = ""
) -> ir.Model:
    """A network of ONNX text; tuples of `arrays` are shapes of random weights, anything else are integers."""
    rng = np.random.default_rng(0)
    text = f'<ir_version: 10, opset_import: ["" : {OPSET_VERSION}]> g (float[{shape}] x{inputs}) => ({returns}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    for name, given in arrays.items():
        random_weight = isinstance(given, tuple)
        array = rng.standard_normal(given).astype(np.float32) / 3 if random_weight else np.array(given, np.int64)
        array = given if isinstance(given, np.ndarray) else array
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def run(ir_model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs, on ONNX Runtime without the optimizations that reorder sums."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    proto = ir.to_proto(ir_model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def elements(ir_model: ir.Model) -> int:
    """Elements of all constants that something reads."""
    constants = [value for value in ir_model.graph.initializers.values() if value.uses()]
    return sum(value.const_value.size for value in constants if value.const_value is not None)


def proven(
    ir_model: ir.Model, groups: Groups, removed: Mapping[str, Sequence[int]], feeds: Mapping[str, np.ndarray]
) -> tuple[float, ir.Model]:
    """Distance between masked and sliced, and the sliced network, all of whose weights shrank."""
    masked, sliced = ir_model.clone(), ir_model.clone()
    mask(masked, groups, removed)
    kept = remove(sliced, groups, removed)
    first, second = run(masked, feeds), run(sliced, feeds)
    values = {value.name: value for node in sliced.graph for value in node.outputs}
    for name, axes in kept.items():
        shape = static_shape(values.get(name))
        assert shape is None or all(shape[axis] == len(places) for axis, places in axes.items())
    assert elements(sliced) < elements(ir_model)
    assert all(first[name].shape == second[name].shape for name in first)
    return max(rel_l2(first[name], second[name]) for name in first if first[name].dtype == np.float32), sliced


def picks(groups: Groups, rng: random.Random, share: float = 0.4) -> dict[str, list[int]]:
    """Some channels of every group, at least one and not all."""
    chosen = {group.name: max(1, int(group.width * share)) for group in groups.groups if group.width > 1}
    return {name: rng.sample(range(groups[name].width), count) for name, count in chosen.items()}


def hold(ir_model: ir.Model, tolerance: Tolerance, feeds: Mapping[str, np.ndarray] | None = None) -> Groups:
    """Prove every group alone and all of them at once, then find groups in the result again."""
    rng = random.Random(0)
    groups = find(ir_model)
    if feeds is None:
        shape = static_shape(ir_model.graph.inputs[0])
        assert shape is not None
        feeds = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    chosen = picks(groups, rng)
    for removed in [*({name: places} for name, places in chosen.items()), chosen]:
        if removed:
            distance, sliced = proven(ir_model, groups, removed, feeds)
            assert distance <= tolerance["float32"]["rel_l2"], removed
            left = [group.width - len(removed.get(group.name, ())) for group in groups.groups]
            # What is the only channel of a tensor cannot go.
            assert sum(group.width for group in find(sliced).groups) == sum(width for width in left if width > 1)
    return groups


#: Family -> body after the stem, weights, other options, widths of the groups that must be found.
CASES: dict[str, tuple[str, Arrays, dict[str, str], list[int]]] = {
    "sequential": ("r = Relu(h) y = Conv(r, w)", {"w": (4, 8, 1, 1)}, {}, [8]),
    "residual": ("r = Conv(h, u) s = Add(r, h) y = Conv(s, w)", {"u": (8, 8, 1, 1), "w": (4, 8, 1, 1)}, {}, [8]),
    "depthwise": ("d = Conv<group=8>(h, u) y = Conv(d, w)", {"u": (8, 1, 1, 1), "w": (4, 8, 1, 1)}, {}, [8]),
    "depthwise with a multiplier": (
        "d = Conv<group=8>(h, u) y = Conv(d, w)",
        {"u": (16, 1, 1, 1), "w": (4, 16, 1, 1)},
        {},
        [8],
    ),
    "grouped": (
        "d = Conv<group=2>(h, u) y = Conv(d, w)",
        {"u": (12, 4, 1, 1), "w": (4, 12, 1, 1)},
        {},
        [4, 6],
    ),
    "cat of itself": ("c = Concat<axis=1>(h, h) y = Conv(c, w)", {"w": (4, 16, 1, 1)}, {}, [8]),
    "crelu": ("n = Neg(h) c = Concat<axis=1>(h, n) r = Relu(c) y = Conv(r, w)", {"w": (4, 16, 1, 1)}, {}, [8]),
    "cat with the input": ("c = Concat<axis=1>(h, x) y = Conv(c, w)", {"w": (4, 11, 1, 1)}, {}, [8]),
    "split halves multiplied": (
        "a, b = Split<axis=1,num_outputs=2>(h) s = Sigmoid(b) m = Mul(a, s) y = Conv(m, w)",
        {"w": (2, 4, 1, 1)},
        {},
        [4],
    ),
    "uneven split": (
        "a, b = Split<axis=1>(h, sizes) p = Conv(a, u) q = Conv(b, w) y = Add(p, q)",
        {"sizes": [3, 5], "u": (2, 3, 1, 1), "w": (2, 5, 1, 1)},
        {},
        [3, 5],
    ),
    "slice": (
        "s = Slice(h, a, b, one) y = Conv(s, w)",
        {"a": [2], "b": [-1], "one": [1], "w": (2, 5, 1, 1)},
        {},
        [3, 5],
    ),
    "slice with a step": (
        "s = Slice(h, a, b, one, two) p = Conv(s, u) q = Conv(h, w) y = Add(p, q)",
        {"a": [0], "b": [8], "one": [1], "two": [2], "u": (2, 4, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [4, 4],
    ),
    "slice backwards": (
        "s = Slice(h, a, b, one, two) y = Conv(s, w)",
        {"a": [7], "b": [-(2**63) + 1], "one": [1], "two": [-1], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "gather": (
        "s = Gather<axis=1>(h, i) y = Conv(s, w)",
        {"i": [7, 1, 2, 5], "w": (2, 4, 1, 1)},
        {},
        [4, 4],
    ),
    "one channel picked in front of others": (
        "e = Einsum<equation=\"abcd,cz->abzd\">(h, v) s = Gather<axis=1>(e, i) y = MatMul(w, s)",
        {"v": (8, 6), "i": 3, "w": (2, 6)},
        {"returns": "float[A,B,C] y"},
        [7, 6],
    ),
    "one channel picked": (
        "s = Gather<axis=1>(h, i) t = Unsqueeze(s, one) m = Mul(h, t) y = Conv(m, w)",
        {"i": 3, "one": [1], "w": (2, 8, 1, 1)},
        {},
        [7],
    ),
    "channel pad": (
        "p = Pad(h, pads) c = Conv(x, u) s = Add(p, c) y = Conv(s, w)",
        {"pads": [0, 2, 0, 0, 0, 2, 0, 0], "u": (12, 3, 1, 1), "w": (2, 12, 1, 1)},
        {"stem": "h = Conv(x, stem)", "short": "yes"},
        [8, 4],
    ),
    "flatten into linear": (
        "f = Flatten(h) y = Gemm<transB=1>(f, w, b)",
        {"w": (4, 512), "b": (4,)},
        {"returns": "float[A,B] y"},
        [8],
    ),
    "reshape into linear": (
        "f = Reshape(h, t) z = MatMul(f, w) y = Add(z, b)",
        {"t": [1, 512], "w": (512, 4), "b": (4,)},
        {"returns": "float[A,B] y"},
        [8],
    ),
    "channel shuffle": (
        "a = Reshape(h, t) b = Transpose<perm=[0,2,1,3,4]>(a) c = Reshape(b, s) y = Conv(c, w)",
        {"t": [1, 2, 4, 8, 8], "s": [1, 8, 8, 8], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "maxout": (
        "a = Reshape(h, t) y0 = ReduceMax<keepdims=0>(a, two) y = Conv(y0, w)",
        {"t": [1, 4, 2, 8, 8], "two": [2], "w": (2, 4, 1, 1)},
        {},
        [4],
    ),
    "transposed": ("t = ConvTranspose(h, u) y = Conv(t, w)", {"u": (8, 6, 2, 2), "w": (2, 6, 1, 1)}, {}, [8, 6]),
    "transposed in groups": (
        "t = ConvTranspose<group=2>(h, u) y = Conv(t, w)",
        {"u": (8, 3, 2, 2), "w": (2, 6, 1, 1)},
        {},
        [4, 3],
    ),
    "transposed depthwise": (
        "t = ConvTranspose<group=8>(h, u) y = Conv(t, w)",
        {"u": (8, 1, 2, 2), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "squeeze and excite": (
        "g = GlobalAveragePool(h) a = Conv(g, u) r = Relu(a) e = Conv(r, v) s = Sigmoid(e) m = Mul(h, s) y = Conv(m, w)",
        {"u": (4, 8, 1, 1), "v": (8, 4, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8, 4],
    ),
    "norms and slopes": (
        "n = InstanceNormalization(h, g, b) p = PRelu(n, a) y = Conv(p, w)",
        {"g": (8,), "b": (8,), "a": (8, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "group norm, whole groups": (
        "n = GroupNormalization<num_groups=4>(h, g, b) y = Conv(n, w)",
        {"g": (8,), "b": (8,), "w": (2, 8, 1, 1)},
        {},
        [4],
    ),
    "resize by sizes": (
        "r = Resize(h, , , s) y = Conv(r, w)",
        {"s": [1, 8, 16, 16], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "pixel shuffle": (
        "d = DepthToSpace<blocksize=2>(h) y = Conv(d, w)",
        {"w": (2, 2, 1, 1)},
        {},
        [2],
    ),
    "pixel shuffle, columns first": (
        'd = DepthToSpace<blocksize=2,mode="CRD">(h) y = Conv(d, w)',
        {"w": (2, 2, 1, 1)},
        {},
        [2],
    ),
    "space to depth": ("d = SpaceToDepth<blocksize=2>(h) y = Conv(d, w)", {"w": (2, 32, 1, 1)}, {}, [8]),
    "unit length": (
        "n = ReduceL2(h, one) d = Div(h, n) y = Conv(d, w)",
        {"one": [1], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "mean of channels": (
        "m = ReduceMean(h, one) z = Mul(m, m) y = Conv(z, w)",
        {"one": [1], "w": (2, 1, 1, 1)},
        {},
        [8],
    ),
    "mean of channels, returned": (
        "c = Conv(h, u) r = Relu(c) y = ReduceMean(r, one)",
        {"u": (6, 8, 1, 1), "one": [1]},
        {},
        [8, 6],
    ),
    "mean of channels and places": (
        "r = Relu(h) a = ReduceMean<keepdims=0>(r, axes) b = Unsqueeze(a, axes) c = Conv(h, u) z = Mul(c, b) y = Conv(z, w)",
        {"axes": [1, 3], "u": (6, 8, 1, 1), "w": (2, 6, 1, 1)},
        {},
        [8, 6],
    ),
    "root mean square": (
        "q = Pow(h, two) m = ReduceMean(q, one) e = Add(m, eps) r = Sqrt(e) d = Div(h, r) n = Mul(d, gain) y = Conv(n, w)",
        {"two": np.array(2, np.float32), "one": [1], "eps": np.array(1e-5, np.float32), "gain": (8, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "response norm": (
        "u = Gelu(h) l = ReduceL2(u, sides) m = ReduceMean(l, one) e = Add(m, eps) d = Div(l, e) s = Mul(u, d) "
        "g = Mul(s, gain) b = Add(g, shift) r = Add(b, u) y = Conv(r, w)",
        {"sides": [2, 3], "one": [1], "eps": np.array(1e-6, np.float32), "gain": (8, 1, 1), "shift": (8, 1, 1)}
        | {"w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "mean in heads": (
        "f = Reshape(h, heads) q = Mul(f, f) m = ReduceMean(q, two) d = Div(f, m) r = Reshape(d, back) y = Conv(r, w)",
        {"heads": [1, 2, 4, 8, 8], "two": [2], "back": [1, 8, 8, 8], "w": (2, 8, 1, 1)},
        {},
        [4],
    ),
    "weights that are computed": (
        "a = Abs(u) m = ReduceMean(a, axes) s = Sign(u) v = Mul(s, m) c = Conv(h, v) y = Conv(c, w)",
        {"u": (6, 8, 1, 1), "axes": [1, 2, 3], "w": (2, 6, 1, 1)},
        {},
        [8, 6],
    ),
    "a bias that two layers share": (
        "c = Conv(h, u, b) d = Conv(c, v, b) y = Conv(d, w)",
        {"u": (6, 8, 1, 1), "v": (6, 6, 1, 1), "b": (6,), "w": (2, 6, 1, 1)},
        {},
        [8, 6, 6],
    ),
    "weights that two layers share": (
        "c = Conv(h, u) d = Conv(c, u) y = Conv(d, w)",
        {"u": (8, 8, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "tokens": (
        "f = Reshape(h, t) p = Transpose<perm=[0,2,1]>(f) e = Add(p, pos) z = MatMul(e, u) y = MatMul(z, w)",
        {"t": [1, 8, 64], "pos": (1, 64, 8), "u": (8, 6), "w": (6, 2)},
        {"returns": "float[A,B,C] y"},
        [8, 6],
    ),
    "einsum": (
        'z = Einsum<equation="nchw,oc->nohw">(h, u) y = Conv(z, w)',
        {"u": (6, 8), "w": (2, 6, 1, 1)},
        {},
        [8, 6],
    ),
    "attention": (
        "f = Reshape(h, t) p = Transpose<perm=[0,2,1]>(f) qkv = MatMul(p, u) q, k, v = Split<axis=2,num_outputs=3>(qkv) "
        "a = Reshape(q, heads) b = Transpose<perm=[0,2,1,3]>(a) c = Reshape(k, heads) d = Transpose<perm=[0,2,3,1]>(c) "
        "e = Reshape(v, heads) i = Transpose<perm=[0,2,1,3]>(e) l = MatMul(b, d) s = Softmax<axis=3>(l) m = MatMul(s, i) "
        "n = Transpose<perm=[0,2,1,3]>(m) r = Reshape(n, back) y = MatMul(r, w)",
        {"t": [1, 8, 64], "u": (8, 24), "heads": [0, 64, 2, 4], "back": [0, 64, 8], "w": (8, 3)},
        {"returns": "float[A,B,C] y"},
        [8, 4, 4],
    ),
    "two recurrent layers": (
        "f = Reshape(h, t) p = Transpose<perm=[2,0,1]>(f) z, last = GRU<hidden_size=5>(p, u, r) "
        "q = Squeeze(z, one) y = MatMul(q, w)",
        {"t": [1, 8, 64], "u": (1, 15, 8), "r": (1, 15, 5), "one": [1], "w": (5, 2)},
        {"returns": "float[A,B,C] y"},
        [8],
    ),
    "one axis": (
        "f = Reshape(h, t) a = Conv<dilations=[2]>(f, u) b = Conv<group=6>(a, d) y = Conv(b, w)",
        {"t": [1, 8, 64], "u": (6, 8, 3), "d": (6, 1, 3), "w": (2, 6, 1)},
        {"returns": "float[A,B,C] y"},
        [8, 6],
    ),
    "three axes": (
        "f = Unsqueeze(h, two) a = Conv(f, u) p = MaxPool<kernel_shape=[1,2,2]>(a) y = Conv(p, w)",
        {"two": [2], "u": (6, 8, 1, 3, 3), "w": (2, 6, 1, 1, 1)},
        {"returns": "float[A,B,C,D,E] y"},
        [8, 6],
    ),
    "layer scale and stochastic depth": (
        "d = Dropout(h) m = Mul(d, g) s = Add(m, h) i = Identity(s) e = Gelu(i) y = Conv(e, w)",
        {"g": (8, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "pyramid pooling": (
        "a = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(h) b = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(a) "
        "c = Concat<axis=1>(h, a, b) y = Conv(c, w)",
        {"w": (2, 24, 1, 1)},
        {},
        [8],
    ),
    "spatial attention": (
        "m = Conv(h, u) s = Sigmoid(m) a = Mul(h, s) y = Conv(a, w)",
        {"u": (1, 8, 1, 1), "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "channels weighed by their own sums": (
        "n = ReduceSum(h, sides) d = Div(h, n) y = Conv(d, w)",
        {"sides": [2, 3], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
    "tiled": ("t = Tile(h, r) y = Conv(t, w)", {"r": [1, 2, 1, 1], "w": (2, 16, 1, 1)}, {}, [8]),
    "weights normalized": (
        "n = ReduceL2(u, axes) v = Div(u, n) k = Mul(v, g) c = Conv(h, k) y = Conv(c, w)",
        {"u": (6, 8, 1, 1), "axes": [1, 2, 3], "g": (6, 1, 1, 1), "w": (2, 6, 1, 1)},
        {},
        [8, 6],
    ),
    "expanded gate": (
        "g = GlobalAveragePool(h) e = Expand(g, t) m = Mul(e, h) y = Conv(m, w)",
        {"t": [1, 8, 8, 8], "w": (2, 8, 1, 1)},
        {},
        [8],
    ),
}  # fmt: skip


def built(name: str) -> ir.Model:
    body, arrays, options, _ = CASES[name]
    begin = options.get("stem", STEM)
    return graph(
        f"{begin} {body}",
        STEM_WEIGHTS | dict(arrays) | _stem(options),
        returns=options.get("returns", "float[A,B,C,D] y"),
    )


def _stem(options: Mapping[str, str]) -> Arrays:
    return {"stem": (8, 3, 1, 1)} if "short" in options else {}


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_sliced(name: str, tolerance: Tolerance) -> None:
    groups = hold(built(name), tolerance)
    assert sorted(group.width for group in groups.groups) == sorted(CASES[name][3]), (groups.groups, groups.barriers)


# --- what stays -------------------------------------------------------------------------------------------------------

#: Why -> body after the stem and its weights: the stem's channels must stay, or its positions differ in what they mean.
BARRIERS: dict[str, tuple[str, Arrays, str]] = {
    "softmax": ("s = Softmax<axis=1>(h) y = Conv(s, w)", {"w": (2, 8, 1, 1)}, "Softmax weighs them"),
    "mean of what is no zero": (
        "s = Sigmoid(h) m = ReduceMean(s, one) y = Mul(m, m)",
        {"one": [1]},
        "ReduceMean runs over them",
    ),
    "mean of what was no zero and then moved": (
        "s = Cos(h) f = Reshape(s, flat) m = ReduceMean(f, one) y = Mul(h, m)",
        {"flat": [1, 8, 64, 1], "one": [1]},
        "ReduceMean runs over them",
    ),
    "mean of sums with a number": (
        "s = Add(h, one) m = ReduceMean(s, axes) y = Mul(m, m)",
        {"one": np.array(1, np.float32), "axes": [1]},
        "ReduceMean runs over them",
    ),
    "layer norm by hand": (
        "a = ReduceMean(h, one) c = Sub(h, a) q = Mul(c, c) v = ReduceMean(q, one) s = Sqrt(v) n = Div(c, s) y = Conv(n, w)",
        {"one": [1], "w": (2, 8, 1, 1)},
        "ReduceMean runs over them",
    ),
    "largest": ("m = ReduceMax(h, one) y = Mul(m, m)", {"one": [1]}, "ReduceMax runs over them"),
    "layer norm": (
        "t = Transpose<perm=[0,2,3,1]>(h) y = LayerNormalization(t, g)",
        {"g": (8,)},
        "LayerNormalization takes statistics",
    ),
    "one group": (
        "n = GroupNormalization<num_groups=1>(h, g, g) y = Conv(n, w)",
        {"g": (8,), "w": (2, 8, 1, 1)},
        "GroupNormalization takes statistics",
    ),
    "output": ("y = Relu(h)", {}, "the graph returns `y`"),
    "local response": ("n = LRN<size=3>(h) y = Conv(n, w)", {"w": (2, 8, 1, 1)}, "LRN mixes neighbours"),
    "convolution along channels": (
        "g = GlobalAveragePool(h) q = Squeeze(g, last) t = Transpose<perm=[0,2,1]>(q) c = Conv<pads=[1,1]>(t, k) "
        "s = Sigmoid(c) u = Transpose<perm=[0,2,1]>(s) v = Unsqueeze(u, last) y = Mul(h, v)",
        {"last": [3], "k": (1, 1, 3)},
        "Conv convolves along them",
    ),
    "added to the input": (
        "p = Conv(h, u) s = Add(p, x) y = Conv(s, w)",
        {"u": (3, 8, 1, 1), "w": (2, 3, 1, 1)},
        "Add joins them with `x`, whose positions stay",
    ),
    "picked at run time": (
        "a = ArgMax<axis=1>(h) s = Gather<axis=1>(h, a) q = ReduceSum(s, axes) y = Add(q, q)",
        {"axes": [1]},
        "ArgMax counts them",
    ),
    "an operator without a rule": ("y = Trilu(h)", {}, "Trilu `y` has no rule for channels"),
    "reflected channels": (
        'p = Pad<mode="reflect">(h, pads) y = Conv(p, w)',
        {"pads": [0, 2, 0, 0, 0, 2, 0, 0], "w": (2, 12, 1, 1)},
        "Pad `p` fills or cuts them",
    ),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_what_zero_cannot_replace_stays(name: str) -> None:
    body, arrays, reason = BARRIERS[name]
    returns = "float[A,B,C,D,E,F] y" if "picked" in name else "float[A,B,C,D] y"
    groups = find(graph(f"{STEM} {body}", STEM_WEIGHTS | dict(arrays), returns=returns))
    assert any(barrier.reason.startswith(reason) for barrier in groups.barriers), groups.barriers


def test_control_flow_keeps_what_its_bodies_read(tolerance: Tolerance) -> None:
    body = (
        f"{STEM} k = Conv(h, u) r = ReduceSum<keepdims=0>(x) n = Constant<value_float=0.0>() c = Greater(r, n) "
        "z = If(c) <then_branch = t () => (float[A,B,C,D] a) { a = Relu(k) },"
        " else_branch = e () => (float[A,B,C,D] b) { b = Neg(k) }> y = Conv(z, w)"
    )
    ir_model = graph(body, STEM_WEIGHTS | {"u": (6, 8, 1, 1), "w": (2, 6, 1, 1)})
    groups = hold(ir_model, tolerance)
    assert [(group.name, group.width) for group in groups.groups] == [("h", 8)]
    assert any("the body of If `z` reads `k`" in barrier.reason for barrier in groups.barriers)


def test_a_graph_without_groups_says_why() -> None:
    groups = find(graph("y = Conv(x, w)", {"w": (4, 3, 1, 1)}))
    assert groups.groups == ()
    assert groups.refusal == "of 1 layers with channels each has to keep them, most since the graph returns `y`"
    assert find(graph("y = Relu(x)", {})).refusal == "no layer makes channels"


# --- open sizes and numbers -------------------------------------------------------------------------------------------


def test_open_sizes_stay_open(tolerance: Tolerance, rng: np.random.Generator) -> None:
    """Target sizes that are computed from a tensor that shrinks still fit, for any batch."""
    body = (
        f"{STEM} s = Shape(h) b = Gather(s, nought) c = Gather(s, one) m = Mul(c, plane) d = Concat<axis=0>(b, m) "
        "f = Reshape(h, d) z = MatMul(f, w) q = Cast<to=1>(c) y = Div(z, q)"
    )
    arrays = STEM_WEIGHTS | {"nought": [0], "one": [1], "plane": [64], "w": (512, 4)}
    ir_model = graph(body, arrays, shape="N,3,8,8", returns="float[A,B] y")
    for batch in (1, 3):
        feeds = {"x": rng.standard_normal((batch, 3, 8, 8)).astype(np.float32)}
        assert [group.width for group in hold(ir_model, tolerance, feeds).groups] == [8]


def test_open_sides_stay_open(tolerance: Tolerance, rng: np.random.Generator) -> None:
    ir_model = graph(f"{STEM} r = Relu(h) y = Conv(r, w)", STEM_WEIGHTS | {"w": (2, 8, 1, 1)}, shape="N,3,H,W")
    groups = hold(ir_model, tolerance, {"x": rng.standard_normal((2, 3, 12, 20)).astype(np.float32)})
    assert [group.width for group in groups.groups] == [8]


def test_sizes_that_do_not_fit_are_a_refusal() -> None:
    body = f"{STEM} f = Flatten(h) y = Gemm<transB=1>(f, w)"
    groups = find(graph(body, STEM_WEIGHTS | {"w": (4, 512)}, shape="N,3,H,W", returns="float[A,B] y"))
    assert groups.groups == ()
    assert groups.refusal


# --- removing ---------------------------------------------------------------------------------------------------------


def test_remove_tells_what_is_left() -> None:
    ir_model = built("sequential")
    kept = remove(ir_model, find(ir_model), {"h": [0, 2, 7]})
    assert kept == {"h": {1: (1, 3, 4, 5, 6)}, "r": {1: (1, 3, 4, 5, 6)}}


def test_shared_constants_are_copied_where_one_layer_shrinks() -> None:
    ir_model = built("a bias that two layers share")
    remove(ir_model, find(ir_model), {"c": [0]})
    nodes = {node.outputs[0].name: node for node in ir_model.graph}
    assert [static_shape(nodes[name].inputs[2]) for name in ("c", "d")] == [(5,), (6,)]


@pytest.mark.parametrize(
    ("removed", "code", "words"),
    [
        ({"nowhere": [0]}, "E103", "nowhere"),
        ({"h": [8]}, "E103", "channel 8 of group `h` does not exist, it has 8"),
        ({"h": [-1]}, "E103", "channel -1"),
        ({"h": list(range(8))}, "E212", "all 8 channels of `h`"),
    ],
)
def test_what_cannot_be_removed_changes_nothing(removed: dict[str, list[int]], code: str, words: str) -> None:
    ir_model = built("sequential")
    before = ir.to_proto(ir_model).SerializeToString(deterministic=True)
    with pytest.raises(EdgewrightError, match=words) as caught:
        remove(ir_model, find(ir_model), removed)
    assert caught.value.code == code
    assert ir.to_proto(ir_model).SerializeToString(deterministic=True) == before


def test_the_proof_fails_for_wrong_weights(tolerance: Tolerance, rng: np.random.Generator) -> None:
    """A removal that slices other channels of the reader than of the maker is found out."""
    ir_model = built("sequential")
    groups = find(ir_model)
    feeds = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    masked, sliced = ir_model.clone(), ir_model.clone()
    mask(masked, groups, {"h": [1]})
    remove(sliced, groups, {"h": [2]})
    assert rel_l2(run(masked, feeds)["y"], run(sliced, feeds)["y"]) > tolerance["float32"]["rel_l2"]


def test_inspect_says_what_one_channel_costs() -> None:
    ir_model = built("residual")
    report = inspect(Model(ir_model, name="net"), groups=True)
    assert report.channels is not None
    (group,) = report.channels.groups
    assert (group.name, group.channels, group.made_by, group.read_by) == ("h", 8, ("h", "r"), ("r", "y"))
    # A stem filter of 3 x 3 x 3, a row and a column of the 8 x 8 matrix, and one number of each of four filters.
    assert group.parameters_per_channel == 27 + 8 + 8 + 4
    assert group.macs_per_channel == 64 * (27 + 8 + 8 + 4)
    assert [(barrier.tensor, barrier.reason) for barrier in report.channels.barriers] == [
        ("y", "the graph returns `y`")
    ]
    assert inspect(Model(ir_model, name="net")).channels is None
