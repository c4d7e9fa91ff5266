"""graph/channels: positions that are laid over several axes, moved and picked, keep to themselves as far as they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tests.unit.test_channels import STEM, STEM_WEIGHTS, Arrays, Tolerance, graph, hold, proven, run

from edgewright.graph.channels import find, remove
from edgewright.graph.channels._grids import whole
from edgewright.metrics import rel_l2

TOKENS = "float[A,B,C] y"
#: Body after the stem, weights, result, widths of the groups that must be found.
CASES: dict[str, tuple[str, Arrays, str, list[int]]] = {
    "halves are shuffled and split again": (
        "a = Reshape(h, t) b = Transpose<perm=[0,2,1,3,4]>(a) c = Reshape(b, s) d, e = Split<axis=1,num_outputs=2>(c) "
        "f = Conv(d, u) g = Concat<axis=1>(f, e) y = Conv(g, w)",
        {"t": [1, 2, 4, 8, 8], "s": [1, 8, 8, 8], "u": (4, 4, 1, 1), "w": (2, 8, 1, 1)},
        "float[A,B,C,D] y",
        [4, 4, 4],
    ),
    "queries, keys and values picked from one projection": (
        "f = Reshape(h, t) p = Transpose<perm=[0,2,1]>(f) j = MatMul(p, u) a = Reshape(j, laid) "
        "b = Transpose<perm=[2,0,3,1,4]>(a) q = Gather<axis=0>(b, i0) k = Gather<axis=0>(b, i1) v = Gather<axis=0>(b, i2) "
        "x1 = Transpose<perm=[0,1,3,2]>(k) l = MatMul(q, x1) s = Softmax<axis=3>(l) m = MatMul(s, v) "
        "n = Transpose<perm=[0,2,1,3]>(m) r = Reshape(n, back) y = MatMul(r, w)",
        {
            **{"t": [1, 8, 64], "u": (8, 24), "laid": [0, 64, 3, 2, 4], "i0": 0, "i1": 1, "i2": 2},
            **{"back": [0, 64, 8], "w": (8, 30)},
        },
        TOKENS,
        [8, 4, 4],
    ),
    "parts of each head, an axis that comes and goes": (
        "f = Reshape(h, t) p = Transpose<perm=[0,2,1]>(f) j = MatMul(p, u) a = Reshape(j, laid) b = Unsqueeze(a, nought) "
        "c = Squeeze(b, nought) q, k, v = Split<axis=3>(c, sizes) d = Transpose<perm=[0,2,1,3]>(q) "
        "e = Transpose<perm=[0,2,3,1]>(k) g = Transpose<perm=[0,2,1,3]>(v) l = MatMul(d, e) s = Softmax<axis=3>(l) "
        "m = MatMul(s, g) n = Transpose<perm=[0,2,1,3]>(m) r = Reshape(n, back) y = MatMul(r, w)",
        {
            **{"t": [1, 8, 64], "u": (8, 22), "laid": [0, 64, 2, 11], "nought": [0], "sizes": [3, 3, 5]},
            **{"back": [0, 64, 10], "w": (10, 3)},
        },
        TOKENS,
        [8, 3, 5],
    ),
    "two of each half, sliced": (
        "a = Reshape(h, t) b = Slice(a, first, last, two) c = Reshape(b, s) d = Conv(c, u) e = Conv(h, w) y = Add(d, e)",
        {
            **{"t": [1, 2, 4, 8, 8], "first": [1], "last": [3], "two": [2], "s": [1, 4, 8, 8]},
            **{"u": (2, 4, 1, 1), "w": (2, 8, 1, 1)},
        },
        "float[A,B,C,D] y",
        [4, 4],
    ),
    "windows over all of an axis": (
        "f = Reshape(h, t) p = Transpose<perm=[0,2,1]>(f) e = Unsqueeze(p, one) c = Conv<kernel_shape=[3,8]>(e, u) "
        "r = Relu(c) y = Conv(r, w)",
        {"t": [1, 8, 64], "one": [1], "u": (6, 1, 3, 8), "w": (2, 6, 1, 1)},
        "float[A,B,C,D] y",
        [8, 6],
    ),
    "a pool that takes every second channel": (
        "e = Unsqueeze(h, one) m = MaxPool<kernel_shape=[1,3,3],strides=[2,1,1]>(e) q = Squeeze(m, one) y = Conv(q, w)",
        {"one": [1], "w": (2, 4, 1, 1)},
        "float[A,B,C,D] y",
        [4, 4],
    ),
    "weights that two layers share behind an Identity": (
        "c = Conv(h, u) i = Identity(u) d = Conv(c, i) y = Conv(d, w)",
        {"u": (8, 8, 1, 1), "w": (2, 8, 1, 1)},
        "float[A,B,C,D] y",
        [8],
    ),
    "weights of which the graph takes the length as well": (
        "c = Conv(h, u) q = Mul(u, u) l = ReduceSum<keepdims=0>(q, inner) r = Reshape(l, over) d = Div(c, r) y = Conv(d, w)",
        {"u": (6, 8, 1, 1), "inner": [1, 2, 3], "over": [1, 6, 1, 1], "w": (2, 6, 1, 1)},
        "float[A,B,C,D] y",
        [8, 6],
    ),
    "a bias that is given an activation's type": (
        "n = Shape(u) o = Slice(n, nought, one) b = Expand(c0, o) k = CastLike(b, h) c = Conv(h, u, k) y = Conv(c, w)",
        {"u": (6, 8, 1, 1), "nought": [0], "one": [1], "c0": [3], "w": (2, 6, 1, 1)},
        "float[A,B,C,D] y",
        [8, 6],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_sliced(name: str, tolerance: Tolerance) -> None:
    body, arrays, returns, widths = CASES[name]
    groups = hold(graph(f"{STEM} {body}", STEM_WEIGHTS | dict(arrays), returns=returns), tolerance)
    assert sorted(group.width for group in groups.groups) == sorted(widths), (groups.groups, groups.barriers)


def test_scales_that_are_computed_stay() -> None:
    """What a quantizer divides by is no operand that can lose positions by itself."""
    scale = f"{STEM} m = GlobalAveragePool(h) s = Reshape(m, t)"
    for body in (
        "z = Relu(h) q = QuantizeLinear<axis=1>(z, s) d = DequantizeLinear<axis=1>(q, s) y = ReduceSum(d, one)",
        "q = QuantizeLinear<axis=1>(k, s) d = DequantizeLinear<axis=1>(q, s) y = ReduceSum(d, one)",
    ):
        arrays = STEM_WEIGHTS | {"t": [8], "one": [1]}
        groups = find(graph(f"{scale} {body}", arrays, inputs=", float[1,8,4,4] k"))
        assert groups.groups == ()
        assert [barrier.reason for barrier in groups.barriers] == ["QuantizeLinear reads them as scales"]


def test_a_second_result_that_the_graph_returns_keeps_its_channels() -> None:
    body = f"{STEM} d, k = Dropout(h) y = Conv(d, w)"
    groups = find(graph(body, STEM_WEIGHTS | {"w": (2, 8, 1, 1)}, returns="float[A,B,C,D] y, bool[E,F,G,H] k"))
    assert groups.groups == ()
    assert "Dropout `d` returns more than its result" in [barrier.reason for barrier in groups.barriers]


def shuffle() -> ir.Model:
    body, arrays, _, _ = CASES["halves are shuffled and split again"]
    return graph(f"{STEM} {body}", STEM_WEIGHTS | dict(arrays))


def operators(ir_model: ir.Model) -> set[str]:
    return {node.op_type for node in ir_model.graph}


def test_a_grid_that_is_left_keeps_its_moves(tolerance: Tolerance, rng: np.random.Generator) -> None:
    """Channel 1 of both halves leaves two halves of 3, a whole half one of 4; channels 0 and 1 leave no grid."""
    feeds = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    ir_model = shuffle()
    groups = find(ir_model)
    places = {place: (group.name, channel) for group in groups.groups for channel, place in _of_stem(group)}
    for gone, moves in (((1, 5), True), ((0, 1), False), ((0, 1, 2, 3), True)):
        removed: dict[str, list[int]] = {}
        for place in gone:
            name, channel = places[place]
            removed.setdefault(name, []).append(channel)
        distance, sliced = proven(ir_model, groups, removed, feeds)
        assert distance <= tolerance["float32"]["rel_l2"], gone
        assert ("Transpose" in operators(sliced)) == moves, gone
        assert ("Gather" in operators(sliced)) != moves


def _of_stem(group: Any) -> list[tuple[int, int]]:
    made = next((member for member in group.members if member.tensor == "stem"), None)
    return [] if made is None else [(channel, place[0]) for channel, place in enumerate(made.places)]


def test_places_taken_in_another_order_are_found_out(tolerance: Tolerance, rng: np.random.Generator) -> None:
    """A Gather for a shuffle that forgets to shuffle gives something else."""
    feeds = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    ir_model = shuffle()
    groups = find(ir_model)
    first = next(group for group in groups.groups if _of_stem(group))
    _, sliced = proven(ir_model, groups, {first.name: [0, 1]}, feeds)
    expected = run(sliced, feeds)["y"]
    (gather,) = (node for node in sliced.graph if node.op_type == "Gather")
    places = gather.inputs[1]
    assert places is not None
    assert places.const_value is not None
    places.const_value = ir.tensor(np.sort(places.const_value.numpy()), name=places.name)
    assert rel_l2(expected, run(sliced, feeds)["y"]) > tolerance["float32"]["rel_l2"]


def test_shared_weights_stay_one_array() -> None:
    body, arrays, _, _ = CASES["weights that two layers share behind an Identity"]
    ir_model = graph(f"{STEM} {body}", STEM_WEIGHTS | dict(arrays))
    remove(ir_model, find(ir_model), {"h": [2]})
    first, second = (node.inputs[1] for node in ir_model.graph if node.outputs[0].name in ("c", "d"))
    assert first is second


def test_open_sizes_are_no_places(tolerance: Tolerance, rng: np.random.Generator) -> None:
    """A shuffle of any batch is followed; one that would move pictures into channels for other batches is not."""
    body, arrays, _, _ = CASES["halves are shuffled and split again"]
    any_batch = graph(
        f"{STEM} {body}", STEM_WEIGHTS | dict(arrays) | {"t": [-1, 2, 4, 8, 8], "s": [-1, 8, 8, 8]}, shape="N,3,8,8"
    )
    feeds = {"x": rng.standard_normal((3, 3, 8, 8)).astype(np.float32)}
    assert sorted(group.width for group in hold(any_batch, tolerance, feeds).groups) == [4, 4, 4]
    mixed = f"{STEM} a = Reshape(h, t) b = ReduceSum(a, one) y = Relu(b)"
    groups = find(graph(mixed, STEM_WEIGHTS | {"t": [1, -1, 8, 8], "one": [1]}, shape="N,3,8,8"))
    assert [barrier.reason for barrier in groups.barriers] == ["the size of `a` may depend on an open size"]


def test_a_grid_follows_what_numpy_does() -> None:
    """Places after moves are the numbers that the same moves leave of a range."""
    grid, array = whole("h", 1, (5, 24, 7)), np.broadcast_to(np.arange(24)[None, :, None], (5, 24, 7))
    laid = grid.reshaped((5, 24, 7), (5, 2, 3, 4, 7))
    assert laid is not None
    array = array.reshape(5, 2, 3, 4, 7).transpose(3, 0, 1, 4, 2)
    laid = laid.transposed([3, 0, 1, 4, 2])
    assert np.array_equal(laid.places, array[:, 0, :, 0, :])
    part = laid.taken(2, np.array(1))
    assert part is not None
    assert np.array_equal(part.places, array[:, 0, 1, 0, :])
    assert part.layout == (-1, 0, 2, -1)
    assert part.order(3) == [1, 0, 3, 2]
    assert part.target((5, 24, 7), None, (4, 3)) == [0, 4, 3, 7]
    assert part.target((5, 24, 7), (6, 24, 8), (4, 3)) == [0, 4, 3, -1]
    assert part.reshaped((4, 5, 7, 3), (20, 7, 3)) is None
    assert laid.taken(1, np.array(0)) is None
