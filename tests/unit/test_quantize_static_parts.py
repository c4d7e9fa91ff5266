"""The parts of quantize_static: ranges, rounding, what layers see, where a graph is quantized."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tests.onnx_files import with_weights

from edgewright.contracts import QuantFormat
from edgewright.graph.int8 import LARGEST_SAFE_PAIR, Room, largest_pairs, neighbours
from edgewright.graph.shapes import infer
from edgewright.passes.quantize_static import _assembly as assembly
from edgewright.passes.quantize_static import _rounding as rounding
from edgewright.passes.quantize_static._layers import Layer, find_layers
from edgewright.passes.quantize_static._placement import Placement, place
from edgewright.passes.quantize_static._ranges import Histogram, Range, choose

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
UINT8 = QuantFormat()
SIGNED = QuantFormat(activation_dtype="int8", activation_symmetric=True)
#: As ONNX Runtime's: layers run in int8 only between quantized tensors, but for Gemm and MatMul.
CLOSED = QuantFormat(operators=("Add", "Concat", "GlobalAveragePool", "MaxPool"), float_outputs=("Gemm", "MatMul"))
#: As OpenVINO's: layers may hand on float.
OPEN = QuantFormat(operators=("Flatten", "MaxPool"), float_outputs=("Conv", "Gemm", "MatMul"))
#: As ncnn's: layers quantize what they read, and few kinds of convolution run in int8.
OWN = QuantFormat(
    activation_dtype="int8",
    activation_symmetric=True,
    float_outputs=("Conv", "Gemm", "MatMul"),
    spatial_axes=(2,),
    grouped=False,
    own_inputs=True,
)


# --- histograms and ranges --------------------------------------------------------------------------------------------


def histogram(*arrays: np.ndarray) -> Histogram:
    made = Histogram()
    for array in arrays:
        made.add(np.asarray(array, np.float32))
    return made


def quantized(values: np.ndarray, held: Range) -> np.ndarray:
    info = np.iinfo(held.dtype)
    levels = np.clip(np.rint(values / held.scale) + held.zero_point, info.min, info.max)
    return (levels - held.zero_point) * held.scale


def test_a_histogram_counts_everything_once_whatever_comes_first(rng: np.random.Generator) -> None:
    parts = [rng.standard_normal(1000) * scale for scale in (0.01, 1.0, 30.0)]
    for order in itertools.permutations(parts):
        found = histogram(*order)
        centres, counts = found.bins()
        assert counts.sum() == 3000
        assert (found.low, found.high) == (
            np.float32(min(map(np.min, parts))),
            np.float32(max(map(np.max, parts))),
        )
        mean = counts @ np.abs(centres) / 3000
        assert mean == pytest.approx(np.mean([np.abs(part).mean() for part in parts]), rel=0.02)


def test_arrays_one_by_one_count_as_they_do_together(rng: np.random.Generator) -> None:
    """The largest comes first, so that the axis never moves."""
    values = rng.standard_normal(4000)
    values = values[np.argsort(-np.abs(values))]
    at_once, streamed = histogram(values), histogram(*np.split(values, 40))
    for whole, part in zip(at_once.bins(), streamed.bins(), strict=True):
        np.testing.assert_array_equal(whole, part)
    assert choose(at_once, UINT8) == choose(streamed, UINT8)


def test_a_histogram_of_zeros_alone_and_then_of_more() -> None:
    centres, counts = histogram(np.zeros(5)).bins()
    assert (centres.tolist(), counts.tolist()) == ([0], [5])
    centres, counts = histogram(np.zeros(5), np.array([2.0, -1.0]), np.empty(0)).bins()
    assert counts.sum() == 7
    assert counts[np.abs(centres).argmin()] == 5


def test_a_histogram_stays_as_small_as_it_is(rng: np.random.Generator) -> None:
    sizes = []
    found = Histogram()
    for count in range(300):
        found.add(rng.standard_normal(2000).astype(np.float32) * (1 + count))
        sizes.append(sum(value.nbytes for value in vars(found).values() if isinstance(value, np.ndarray)))
    assert sizes[-1] <= max(sizes[:2])


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-30])
@pytest.mark.parametrize("form", [UINT8, SIGNED])
def test_a_constant_tensor_has_a_range_that_holds_it(value: float, form: QuantFormat) -> None:
    held = choose(histogram(np.full(100, value)), form)
    assert held.scale > 0
    assert np.isfinite(held.scale)
    assert quantized(np.array(value), held) == pytest.approx(value, abs=1e-6 + abs(value) / 200)


def test_the_least_squared_error_decides(rng: np.random.Generator) -> None:
    values = rng.standard_normal(500_000)
    values[7] = 20.0  # rare and far: a range that holds it wastes most levels
    seen = histogram(*np.split(values, 5))
    full, best = choose(seen, UINT8, calibration="minmax"), choose(seen, UINT8)
    errors = [np.mean(np.square(quantized(values, item) - values)) for item in (full, best)]
    assert full.method == "minmax"
    assert full.high == pytest.approx(20, rel=0.02)
    assert best.high < 15
    assert errors[1] < errors[0]
    assert 0 < best.clipped < 1e-4
    assert best.mse == pytest.approx(errors[1], rel=0.05)
    assert best.sqnr_db > full.sqnr_db


DRAWN = {
    "normal": lambda rng: rng.standard_normal(20_000), "uniform": lambda rng: rng.uniform(-1, 3, 20_000),
    "laplace": lambda rng: rng.laplace(size=20_000), "student": lambda rng: rng.standard_t(3, 20_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(20_000), 0), "negative": lambda rng: -rng.exponential(size=20_000),
    "far from 0": lambda rng: rng.normal(50, 1, 20_000), "two lumps": lambda rng: rng.choice([0.01, 40.0], 20_000)
    * rng.standard_normal(20_000),
}  # fmt: skip


@pytest.mark.parametrize("form", [UINT8, SIGNED])
@pytest.mark.parametrize("kind", DRAWN)
def test_no_range_loses_more_than_the_full_one(kind: str, form: QuantFormat, rng: np.random.Generator) -> None:
    values = DRAWN[kind](rng)
    seen = histogram(values)
    full, best = choose(seen, form, calibration="minmax"), choose(seen, form)
    errors = [np.mean(np.square(quantized(values, held) - values)) for held in (full, best)]
    assert best.mse <= full.mse
    assert errors[1] <= 1.02 * errors[0]  # the histogram knows values to 1/16 step
    info = np.iinfo(best.dtype)
    assert info.min <= best.zero_point <= info.max
    assert best.low <= 0 <= best.high


def test_a_lone_value_far_off_is_cut_off(rng: np.random.Generator) -> None:
    """Of so many that not even a tenth of the full range is worth it: one value of 52 million, 1000 times the others."""
    values = rng.standard_normal(2**17).astype(np.float32)
    seen = histogram(np.append(values[1:], 1000), *[values] * 400)
    best = choose(seen, UINT8)
    assert best.method == "percentile"
    assert 3 < best.high < 6
    assert -6 < best.low < -3
    assert choose(seen, UINT8, calibration="minmax").high == pytest.approx(1000, rel=0.02)


def test_a_lone_extreme_of_a_large_array_counts(rng: np.random.Generator) -> None:
    values = rng.standard_normal(300_000)
    values[1] = 1000.0
    held = choose(histogram(values), UINT8)
    full = choose(histogram(values), UINT8, calibration="minmax")
    errors = [np.mean(np.square(quantized(values, item) - values)) for item in (held, full)]
    assert errors[0] <= 1.05 * errors[1]


def test_values_without_tails_keep_their_range(rng: np.random.Generator) -> None:
    held = choose(histogram(rng.uniform(0, 6, 50_000)), UINT8)
    assert held.high == pytest.approx(6, rel=0.02)
    assert held.zero_point == 0


def test_a_photo_prepared_with_one_mean_and_std_loses_nothing() -> None:
    values = (np.arange(256, dtype=np.float32) - 127) / 128
    held = choose(histogram(values), UINT8)
    assert held.method == "exact"
    np.testing.assert_allclose(quantized(values.astype(np.float64), held), values, atol=1e-5)


def test_symmetric_formats_have_no_zero_point(rng: np.random.Generator) -> None:
    held = choose(histogram(rng.uniform(0, 6, 1000)), SIGNED)
    assert (held.zero_point, held.dtype) == (0, "int8")
    assert held.high == pytest.approx(6, rel=0.02)


# --- rounding ---------------------------------------------------------------------------------------------------------

ROOMS = {"7 bits": Room(63), "8 bits": Room(127), "pairs": Room(127, neighbours((1, 48, 1, 1), convolution=True))}


def problem(
    rng: np.random.Generator, groups: int = 1, outputs: int = 12, length: int = 48
) -> tuple[np.ndarray, np.ndarray]:
    """Weights f32[G, O, K] and second moments of correlated inputs f64[G, K, K]."""
    mixing = rng.standard_normal((groups, length, length)) + 2 * rng.standard_normal((groups, length, 1))
    return rng.standard_normal((groups, outputs, length)).astype(np.float32), mixing @ mixing.transpose(
        0, 2, 1
    ) / length


def lost(rows: np.ndarray, levels: np.ndarray, scales: np.ndarray, moments: np.ndarray) -> float:
    return rounding.output_power(levels * scales[..., None].astype(np.float64) - rows, moments)


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_errors_that_compensate_each_other_are_smaller(room: Room, rng: np.random.Generator) -> None:
    rows, moments = problem(rng, groups=2)
    scales = rounding.weight_scales(rows, np.einsum("gkk->gk", moments), room, np.zeros((2, 12)))
    plain, better = rounding.nearest(rows, scales, room), rounding.compensated(rows, scales, moments, room)
    assert lost(rows, better, scales, moments) < 0.5 * lost(rows, plain, scales, moments)
    for levels in (plain, better):
        assert np.abs(levels.astype(int)).max() <= room.largest
        if room.numbers is not None:
            assert largest_pairs(np.abs(levels.astype(int)), room.numbers).max() <= LARGEST_SAFE_PAIR


@pytest.mark.parametrize("length", [1, 9, 64, 65, 200])
def test_the_factor_is_that_of_the_inverse(length: int, rng: np.random.Generator) -> None:
    _, moments = problem(rng, groups=2, length=length)
    factor = rounding._inverse_factor(moments)
    assert factor is not None
    assert np.abs(np.tril(factor, -1)).max() == 0
    damped = moments + rounding._DAMPING * np.einsum("gkk->g", moments)[:, None, None] / length * np.eye(length)
    np.testing.assert_allclose(factor.transpose(0, 2, 1) @ factor @ damped, np.stack([np.eye(length)] * 2), atol=1e-8)


def test_pairs_lose_less_than_7_bits_and_more_than_8(rng: np.random.Generator) -> None:
    rows, moments = problem(rng, outputs=64)
    losses = {}
    for name, room in ROOMS.items():
        scales = rounding.weight_scales(rows, np.einsum("gkk->gk", moments), room, np.zeros((1, 64)))
        losses[name] = lost(rows, rounding.compensated(rows, scales, moments, room), scales, moments)
    assert losses["8 bits"] < losses["pairs"] < 0.75 * losses["7 bits"]


def test_what_a_pair_has_no_room_for_is_cut_from_both() -> None:
    room = Room(127, np.array([0, 0, 0, 0, 1, 1]))
    levels = np.array([100.0, -90, 10, 0, 127, -1])
    assert room.held(levels).tolist() == [64, -64, 10, 0, 127, -1]
    assert room.held(np.array([127.0, 30, 30, 0, 200, 0])).tolist() == [98, 30, 30, 0, 127, 0]


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_a_step_leaves_room_for_every_weight_and_for_the_bias(room: Room, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1, 5, 48)).astype(np.float32)
    rows[0, 4] = 0
    floor = np.array([[0, 0, 0, 1.5, 1e-6]])
    scales = rounding.weight_scales(rows, np.ones((1, 48)), room, floor)
    assert (scales > 0).all()
    assert scales[0, 3] == np.float32(1.5)
    assert (scales[0, :3] >= 0.69 * np.abs(rows[0, :3]).max(axis=1) / room.largest).all()


def test_singular_moments_are_no_obstacle(rng: np.random.Generator) -> None:
    """Dead inputs, and fewer vectors than inputs."""
    vectors = rng.standard_normal((5, 48))
    vectors[:, :4] = 0
    rows = rng.standard_normal((1, 3, 48)).astype(np.float32)
    scales = rounding.weight_scales(rows, np.ones((1, 48)), Room(127), np.zeros((1, 3)))
    for moments in ((vectors.T @ vectors)[None], np.zeros((1, 48, 48))):
        levels = rounding.compensated(rows, scales, moments, Room(127))
        assert np.isfinite(levels).all()
        assert lost(rows, levels, scales, moments) <= lost(
            rows, rounding.nearest(rows, scales, Room(127)), scales, moments
        )


# --- what layers see --------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": ("kernel_shape = [3,3]", (4, 3, 3, 3)), "padded": ("pads = [1,0,2,1]", (4, 3, 3, 3)),
    "strides": ("strides = [2,1], pads = [1,1,1,1]", (4, 3, 3, 3)), "dilated": ("dilations = [1,2]", (4, 3, 3, 3)),
    "grouped": ("group = 3, pads = [1,1,1,1]", (6, 1, 3, 3)),
    "same upper": ('auto_pad = "SAME_UPPER", strides = [2,2]', (4, 3, 3, 3)),
    "same lower": ('auto_pad = "SAME_LOWER", strides = [2,3]', (4, 3, 3, 3)), "1x1": ("strides = [2,2]", (4, 3, 1, 1)),
    "valid": ('auto_pad = "VALID"', (4, 3, 3, 3)),
}  # fmt: skip


def parse(body: str, **weights: np.ndarray) -> ir.Model:
    """The graph, where each `weights` stands for an input of that name."""
    model = with_weights(f"{HEAD} {body}", weights)
    infer(model)
    return model


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    opened = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return dict(zip([item.name for item in opened.get_outputs()], opened.run(None, feeds), strict=True))


def only_layer(model: ir.Model) -> Layer:
    layers, refused = find_layers(model, UINT8)
    assert not refused
    (layer,) = layers.values()
    return layer


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_patches_of_a_convolution_are_what_its_weights_meet(
    case: str, rng: np.random.Generator, tolerance: dict[str, dict[str, float]]
) -> None:
    attributes, shape = CONVOLUTIONS[case]
    weight, x = rng.standard_normal(shape).astype(np.float32), rng.standard_normal((2, 3, 9, 8)).astype(np.float32)
    model = parse(
        f"g (float[2,3,9,8] x, float[{','.join(map(str, shape))}] w) => (float[] y) {{ y = Conv<{attributes}>(x, w) }}",
        w=weight,
    )
    layer = only_layer(model)
    expected = run(model, {"x": x})["y"]
    patches = layer.patches(x, 10**9, rng)  # f32[G, P, K]
    made = np.einsum("gok,gpk->gop", layer.rows(weight), patches).reshape(len(weight), -1)
    limits = {"rtol": tolerance["float32"]["rtol"], "atol": tolerance["float32"]["atol"]}
    np.testing.assert_allclose(made, np.moveaxis(expected, 1, 0).reshape(len(weight), -1), **limits)
    np.testing.assert_allclose(layer.mean_patch(x), patches.mean(axis=1), **limits)
    assert layer.patches(x, 5, rng).shape[1] == 5
    np.testing.assert_array_equal(layer.from_rows(layer.rows(weight)), weight)


@pytest.mark.parametrize(("size", "kernel"), [((11,), (3,)), ((5, 6, 4), (2, 3, 1))])
def test_patches_along_one_axis_and_along_three(
    size: tuple[int, ...], kernel: tuple[int, ...], rng: np.random.Generator, tolerance: dict[str, dict[str, float]]
) -> None:
    weight = rng.standard_normal((4, 3, *kernel)).astype(np.float32)
    x = rng.standard_normal((2, 3, *size)).astype(np.float32)
    pads = [1] * len(size) + [0] * len(size)
    shapes = [",".join(map(str, array.shape)) for array in (x, weight)]
    layer = only_layer(
        model := parse(
            f"g (float[{shapes[0]}] x, float[{shapes[1]}] w) => (float[] y) {{ y = Conv<pads = {pads}>(x, w) }}",
            w=weight,
        )
    )
    expected = run(model, {"x": x})["y"]
    made = np.einsum("gok,gpk->op", layer.rows(weight), layer.patches(x, 10**9, rng))
    limits = {"rtol": tolerance["float32"]["rtol"], "atol": tolerance["float32"]["atol"]}
    np.testing.assert_allclose(made, np.moveaxis(expected, 1, 0).reshape(4, -1), **limits)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("y = Gemm(x, w, b)", (5, 7)),
        ("y = Gemm<transB = 1>(x, w, b)", (7, 5)),
        ("p = MatMul(x, w) y = Add(p, b)", (5, 7)),
        ("p = MatMul(x, w) y = Add(b, p)", (5, 7)),
    ],
)
def test_linear_layers_are_one_map_with_its_bias(
    text: str, shape: tuple[int, int], rng: np.random.Generator, tolerance: dict[str, dict[str, float]]
) -> None:
    weight, bias = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(7).astype(np.float32)
    model = parse(
        f"g (float[4,5] x, float[{shape[0]},{shape[1]}] w, float[7] b) => (float[4,7] y) {{ {text} }}", w=weight, b=bias
    )
    layer = only_layer(model)
    x = rng.standard_normal((4, 5)).astype(np.float32)
    assert layer.bias is not None
    made = np.einsum("ok,pk->po", layer.rows(weight)[0], layer.patches(x, 100, rng)[0]) + layer.bias
    np.testing.assert_allclose(made, run(model, {"x": x})["y"], rtol=tolerance["float32"]["rtol"], atol=1e-5)
    np.testing.assert_array_equal(layer.from_rows(layer.rows(weight)), weight)


@pytest.mark.parametrize(
    ("body", "given", "reason"),
    [
        ("y = Gemm<alpha = 2.0>(x, w)", "float[4,4] w", "alpha"),
        ("y = Gemm<transA = 1>(x, w)", "float[4,4] w", "transposes its input"),
        ("y = ConvTranspose(x, w)", "float[4,4,1,1] w", "no static int8 form"),
        ("y = MatMul(x, w)", "float[2,4,4] w", "3 axes"),
    ],
)
def test_layers_that_cannot_be_say_why(body: str, given: str, reason: str, rng: np.random.Generator) -> None:
    shape = tuple(map(int, given.partition("[")[2].partition("]")[0].split(",")))
    size = "1,4,4,4" if "Conv" in body else "4,4"
    model = parse(
        f"g (float[{size}] x, {given}) => (float[] y) {{ {body} }}", w=rng.standard_normal(shape).astype(np.float32)
    )
    layers, refused = find_layers(model, UINT8)
    assert not layers
    assert reason in refused["y"]


# --- placement --------------------------------------------------------------------------------------------------------


def placed(body: str, form: QuantFormat, rng: np.random.Generator, keep: tuple[str, ...] = ()) -> Placement:
    """Where a graph of 4-channel convolutions is quantized; `W` stands for new weights of a 1x1 convolution."""
    names = [f"w{i}" for i in range(body.count("W"))]
    for name in names:
        body = body.replace("W", name, 1)
    given = "".join(f", float[4,4,1,1] {name}" for name in names)
    outputs = "float[] y" + (", float[] y2" if "y2 =" in body else "")
    model = parse(
        f"g (float[1,4,8,8] x{given}) => ({outputs}) {{ {body} }}",
        **{name: rng.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in names},
    )
    layers, _ = find_layers(model, form)
    return place(model, {name: layer for name, layer in layers.items() if name not in keep}, form)


PLACES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {  # graph, points closed, points open
    "chain": ("a = Conv(x, W) b = Relu(a) y = Conv(b, W)", ("x", "b", "y"), ("x", "b")),
    "Clip from 0": (
        "lo = Constant<value = float {0.0}>() hi = Constant<value = float {6.0}>() "
        "a = Conv(x, W) b = Clip(a, lo, hi) y = Conv(b, W)",
        ("x", "b", "y"),
        ("x", "b"),
    ),
    "Clip from below 0": (
        "lo = Constant<value = float {-1.0}>() a = Conv(x, W) b = Clip(a, lo) y = Conv(b, W)",
        ("x", "a", "b", "y"),
        ("x", "b"),
    ),
    "residual": ("a = Conv(x, W) b = Conv(a, W) s = Add(a, b) y = Conv(s, W)", ("x", "a", "b", "s", "y"), ("x", "a", "s")),
    "an Add that nothing in int8 reads": ("a = Conv(x, W) b = Conv(a, W) s = Add(a, b) y = Sin(s)", ("x", "a", "b"), ("x", "a")),
    "Relu that two read": ("a = Conv(x, W) y2 = Sin(a) b = Relu(a) y = Conv(b, W)", ("x", "a", "b", "y"), ("x", "b")),
    "MaxPool": ("a = Conv(x, W) m = MaxPool<kernel_shape = [2,2]>(a) y = Conv(m, W)", ("x", "a", "m", "y"), ("x", "a")),
    "Concat": (
        "a = Conv(x, W) b = Conv(x, W) s = Concat<axis = 0>(a, b) y = Conv(s, W)", ("x", "a", "b", "s", "y"), ("x", "s")
    ),
    "Concat with float": (
        "a = Conv(x, W) b = Sin(x) s = Concat<axis = 0>(a, b) y = Conv(s, W)", ("x", "a", "s", "y"), ("x", "s")
    ),
    "two heads": ("a = Conv(x, W) y = Conv(a, W) y2 = Conv(a, W)", ("x", "a", "y", "y2"), ("x", "a")),
    "a branch in float": (
        "a = Conv(x, W) b = Relu(a) y2 = Sin(b) y = Conv(b, W)", ("x", "b", "y"), ("x", "b")
    ),
    "Flatten at the end": ("a = Conv(x, W) y = Flatten(a)", ("x", "a"), ("x",)),
    "float between": ("a = Conv(x, W) s = Sin(a) y = Conv(s, W)", ("x", "a", "s", "y"), ("x", "s")),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_what_is_quantized(case: str, rng: np.random.Generator) -> None:
    body, closed, opened = PLACES[case]
    assert set(placed(body, CLOSED, rng).points) == set(closed)
    assert set(placed(body, OPEN, rng).points) == set(opened)


def test_tensors_that_hold_the_same_values_share_a_range(rng: np.random.Generator) -> None:
    found = placed(PLACES["MaxPool"][0], CLOSED, rng)
    assert found.owner("m") == "a"
    assert found.owner("y") == "y"


def test_a_layer_kept_in_float_leaves_its_neighbours_in_int8(rng: np.random.Generator) -> None:
    body = "a = Conv(x, W) b = Conv(a, W) y = Conv(b, W)"
    found = placed(body, CLOSED, rng, keep=("b",))
    assert set(found.layers) == {"a", "y"}
    assert set(found.points) == {"x", "a", "b", "y"}


def test_nothing_to_do_is_nothing(rng: np.random.Generator) -> None:
    found: Any = placed("y = Conv(x, W)", CLOSED, rng, keep=("y",))
    assert not found.points
    assert not found.layers


def test_layers_that_quantize_for_themselves_leave_other_readers_in_float(rng: np.random.Generator) -> None:
    body = "a = Conv(x, w1) b = Conv(a, w2) y = Add(a, b)"
    weights = {name: rng.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
    model = parse(f"g (float[1,4,8,8] x, float[4,4,1,1] w1, float[4,4,1,1] w2) => (float[] y) {{ {body} }}", **weights)
    layers, _ = find_layers(model, OWN)
    placement = place(model, layers, OWN)
    ranges = {name: Range(0.1, 0, "int8", (-1.0, 1.0), "minmax", 0.0, 0.0, 0.0) for name in placement.points}
    assembly.quantize(model, placement, ranges, {})
    read = {node.op_type: [value.name for value in node.inputs] for node in model.graph}
    assert read["Add"] == ["a", "b"]
    assert read["Conv"][0] == "a:dq"


@pytest.mark.parametrize(
    ("given", "weight", "attributes", "reason"),
    [
        ("float[1,4,8]", (4, 4, 3), "", "of 1 spatial axes"),
        ("float[1,4,8,8]", (4, 2, 1, 1), "<group=2>", "of groups of several channels"),
    ],
)
def test_convolutions_that_a_format_leaves_out_say_why(
    given: str, weight: tuple[int, ...], attributes: str, reason: str, rng: np.random.Generator
) -> None:
    shape = ",".join(map(str, weight))
    text = f"g ({given} x, float[{shape}] w) => (float[] y) {{ y = Conv{attributes}(x, w) }}"
    model = parse(text, w=rng.standard_normal(weight).astype(np.float32))
    assert not find_layers(model, OPEN)[1]
    assert reason in find_layers(model, OWN)[1]["y"]


def test_a_depthwise_convolution_is_none_of_groups_of_several_channels(rng: np.random.Generator) -> None:
    text = "g (float[1,4,8,8] x, float[8,1,1,1] w) => (float[] y) { y = Conv<group=4>(x, w) }"
    model = parse(text, w=rng.standard_normal((8, 1, 1, 1)).astype(np.float32))
    assert reason_of(model)
    text = "g (float[1,4,8,8] x, float[4,1,1,1] w) => (float[] y) { y = Conv<group=4>(x, w) }"
    assert not reason_of(parse(text, w=rng.standard_normal((4, 1, 1, 1)).astype(np.float32)))


def reason_of(model: ir.Model) -> dict[str, str]:
    return find_layers(model, OWN)[1]
