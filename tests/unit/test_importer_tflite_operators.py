"""Every TFLite operator that is read, against LiteRT's own kernels, on two runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tflite_nets import Feed, Op, Variable, answers, op, random_feeds, write

import edgewright as ew

Tolerance = dict[str, dict[str, float]]
RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    """Tests draw the same weights whichever of them ran before."""
    RNG.bit_generator.state = np.random.default_rng(5).bit_generator.state


IMAGE = (1, 9, 12, 6)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def conv(x: Any, w: np.ndarray, bias: np.ndarray | None = None, **fields: Any) -> Op:
    given = {"padding": 0, "stride_w": 1, "stride_h": 1} | fields
    return op("CONV_2D", x, w, weights(len(w)) if bias is None else bias, options="Conv2DOptions", **given)


def depthwise(x: Any, w: np.ndarray, multiplier: int = 1, **fields: Any) -> Op:
    given = {"padding": 0, "stride_w": 1, "stride_h": 1, "depth_multiplier": multiplier} | fields
    return op("DEPTHWISE_CONV_2D", x, w, weights(w.shape[3]), options="DepthwiseConv2DOptions", **given)


def transposed(size: tuple[int, ...], w: np.ndarray, x: Any, **fields: Any) -> Op:
    given = {"padding": 0, "stride_w": 2, "stride_h": 2} | fields
    return op("TRANSPOSE_CONV", ints(*size), w, x, options="TransposeConvOptions", **given)


def pool(kind: str, x: Any, **fields: Any) -> Op:
    given = {"padding": 0, "stride_w": 2, "stride_h": 2, "filter_width": 3, "filter_height": 2} | fields
    return op(kind, x, options="Pool2DOptions", **given)


def strided(x: Any, begin: list[int], end: list[int], steps: list[int], **masks: int) -> Op:
    return op("STRIDED_SLICE", x, ints(*begin), ints(*end), ints(*steps), options="StridedSliceOptions", **masks)


def lstm(x: Any, inputs: int, hidden: int, *, coupled: bool = False, peepholes: bool = False, **fields: Any) -> Op:
    """Operands in the order of the schema."""
    gates: list[Any] = [weights(hidden, inputs) for _ in range(4)] + [weights(hidden, hidden) for _ in range(4)]
    diagonals: list[Any] = [weights(hidden) for _ in range(3)] if peepholes else [None] * 3
    biases: list[Any] = [weights(hidden) for _ in range(4)]
    if coupled:
        gates[0] = gates[4] = diagonals[0] = biases[0] = None
    states = [Variable((2, hidden)), Variable((2, hidden))]
    given = {"fused_activation_function": 4, "cell_clip": 10.0, "time_major": False} | fields
    operands = [x, *gates, *diagonals, *biases, None, None, *states]
    return op("UNIDIRECTIONAL_SEQUENCE_LSTM", *operands, options="UnidirectionalSequenceLSTMOptions", **given)


def image() -> Feed:
    return Feed(IMAGE)


def inner() -> Op:
    """An image whose channels are first already."""
    return conv(image(), weights(6, 1, 1, 6))


UNARY = ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_0_TO_1",
         "RELU_N1_TO_1", "ROUND", "SIGN", "SIN", "SQUARE", "TANH", "ZEROS_LIKE")  # fmt: skip
BINARY = {"ADD": "AddOptions", "DIV": "DivOptions", "MUL": "MulOptions", "SUB": "SubOptions", "MAXIMUM": "", "MINIMUM": "",
          "SQUARED_DIFFERENCE": "", "FLOOR_MOD": "", "FLOOR_DIV": ""}  # fmt: skip
COMPARED = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
REDUCED = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
positive = np.abs(weights(6)) + 1

CASES: dict[str, Any] = {
    "conv": lambda: conv(image(), weights(5, 3, 3, 6), stride_w=2, stride_h=1),
    "conv valid": lambda: conv(image(), weights(5, 3, 2, 6), padding=1, fused_activation_function=1),
    "conv even": lambda: conv(image(), weights(5, 4, 2, 6), stride_w=3, stride_h=3, fused_activation_function=3),
    "conv dilated": lambda: conv(image(), weights(5, 3, 3, 6), dilation_w_factor=2, dilation_h_factor=3),
    "conv groups": lambda: conv(image(), weights(4, 3, 3, 3)),
    "conv activations": lambda: conv(image(), weights(4, 1, 1, 6), fused_activation_function=2),
    "depthwise": lambda: depthwise(image(), weights(1, 3, 3, 6), stride_w=2, stride_h=2),
    "depthwise multiplier": lambda: depthwise(image(), weights(1, 3, 2, 12), 2, fused_activation_function=3),
    "depthwise dilated": lambda: depthwise(image(), weights(1, 3, 3, 6), dilation_w_factor=2, dilation_h_factor=2),
    "transpose conv": lambda: transposed((1, 18, 24, 5), weights(5, 3, 3, 6), image()),
    "transpose conv odd": lambda: transposed((1, 17, 23, 5), weights(5, 4, 3, 6), image()),
    "transpose conv valid": lambda: transposed((1, 19, 25, 5), weights(5, 3, 3, 6), image(), padding=1),
    "transpose conv wide": lambda: transposed(
        (1, 27, 36, 5), weights(5, 2, 2, 6), image(), stride_w=3, stride_h=3, padding=1
    ),
    "fully connected": lambda: op(
        "FULLY_CONNECTED",
        Feed((3, 8)),
        weights(5, 8),
        weights(5),
        options="FullyConnectedOptions",
        fused_activation_function=1,
    ),
    "fully connected of an image": lambda: op(
        "FULLY_CONNECTED", inner(), weights(5, 648), None, options="FullyConnectedOptions"
    ),
    "fully connected of a sequence": lambda: op(
        "FULLY_CONNECTED",
        Feed((2, 4, 8)),
        weights(5, 8),
        weights(5),
        options="FullyConnectedOptions",
        keep_num_dims=True,
    ),
    "fully connected flattens": lambda: op(
        "FULLY_CONNECTED", Feed((2, 4, 8)), weights(5, 8), weights(5), options="FullyConnectedOptions"
    ),
    "batch matmul": lambda: op("BATCH_MATMUL", Feed((2, 3, 4)), Feed((2, 4, 5)), options="BatchMatMulOptions"),
    "batch matmul adjoint": lambda: op(
        "BATCH_MATMUL", Feed((2, 4, 3)), weights(2, 5, 4), options="BatchMatMulOptions", adj_x=True, adj_y=True
    ),
    "average pool": lambda: pool("AVERAGE_POOL_2D", image()),
    "average pool valid": lambda: pool("AVERAGE_POOL_2D", image(), padding=1, fused_activation_function=1),
    "max pool": lambda: pool("MAX_POOL_2D", image()),
    **{
        f"resize {kind.lower()} {corners} {centres}": lambda kind=kind, corners=corners, centres=centres: op(
            f"RESIZE_{kind}",
            image(),
            ints(14, 7),
            align_corners=corners,
            half_pixel_centers=centres,
            options="ResizeBilinearOptions" if kind == "BILINEAR" else "ResizeNearestNeighborOptions",
        )
        for kind in ("BILINEAR", "NEAREST_NEIGHBOR")
        for corners, centres in ((False, False), (True, False), (False, True))
    },
    "space to batch": lambda: op(
        "SPACE_TO_BATCH_ND", Feed((2, 5, 7, 3)), ints(2, 3), np.array([[1, 0], [0, 2]], np.int32)
    ),
    "batch to space": lambda: op(
        "BATCH_TO_SPACE_ND", Feed((12, 3, 4, 2)), ints(2, 3), np.array([[1, 0], [0, 2]], np.int32)
    ),
    "space to depth": lambda: op("SPACE_TO_DEPTH", Feed((1, 8, 4, 3)), options="SpaceToDepthOptions", block_size=2),
    "depth to space": lambda: op("DEPTH_TO_SPACE", Feed((1, 3, 4, 12)), options="DepthToSpaceOptions", block_size=2),
    "lrn": lambda: op(
        "LOCAL_RESPONSE_NORMALIZATION",
        image(),
        options="LocalResponseNormalizationOptions",
        radius=2,
        bias=1.5,
        alpha=0.3,
        beta=0.75,
    ),
    "l2 normalization": lambda: op("L2_NORMALIZATION", Feed((3, 6)), options="L2NormOptions"),
    "l2 normalization inside": lambda: op("L2_NORMALIZATION", inner(), options="L2NormOptions"),
    **{kind.lower(): lambda kind=kind: op(kind, image()) for kind in UNARY},
    "log": lambda: op("LOG", op("ABS", image())),
    "sqrt": lambda: op("SQRT", op("ABS", image())),
    "rsqrt": lambda: op("RSQRT", op("ABS", image())),
    "leaky relu": lambda: op("LEAKY_RELU", inner(), options="LeakyReluOptions", alpha=0.2),
    "gelu": lambda: op("GELU", image(), options="GeluOptions"),
    "gelu by tanh": lambda: op("GELU", image(), options="GeluOptions", approximate=True),
    "prelu": lambda: op("PRELU", inner(), weights(1, 1, 6)),
    **{
        f"{kind.lower()} {name}": lambda kind=kind, options=options, other=other: op(
            kind, inner(), other(), options=options
        )
        for kind, options in BINARY.items()
        for name, other in {
            "vector": lambda: positive,
            "number": lambda: np.array(1.5, np.float32),
            "computed vector": lambda: op("EXP", Feed((6,))),
            "row": lambda: op("EXP", Feed((1, 12, 6))),
            "image": lambda: op("EXP", Feed(IMAGE)),
        }.items()
    },
    "add activation": lambda: op("ADD", inner(), inner(), options="AddOptions", fused_activation_function=3),
    "pow": lambda: op("POW", op("ABS", image()), np.array([2.5], np.float32)),
    "floor div of integers": lambda: op("FLOOR_DIV", Feed((8,), "int32"), ints(3), outputs=["int32"]),
    "floor mod of integers": lambda: op("FLOOR_MOD", Feed((8,), "int32"), ints(-3), outputs=["int32"]),
    "add n": lambda: op("ADD_N", image(), image(), image()),
    **{kind.lower(): lambda kind=kind: op(kind, inner(), image(), outputs=["bool"]) for kind in COMPARED},
    "logical": lambda: op(
        "LOGICAL_OR",
        op("LOGICAL_AND", Feed((4,), "bool"), Feed((4,), "bool"), outputs=["bool"]),
        op("LOGICAL_NOT", Feed((4,), "bool"), outputs=["bool"]),
        outputs=["bool"],
    ),
    "select": lambda: op("SELECT", Feed((3,), "bool"), Feed((3, 4)), Feed((3, 4))),
    "select v2": lambda: op("SELECT_V2", Feed((3, 1), "bool"), Feed((3, 4)), np.array(0, np.float32)),
    "softmax": lambda: op("SOFTMAX", Feed((3, 5)), options="SoftmaxOptions", beta=1.0),
    "softmax beta": lambda: op("SOFTMAX", inner(), options="SoftmaxOptions", beta=0.5),
    "log softmax": lambda: op("LOG_SOFTMAX", Feed((3, 5))),
    "cast": lambda: op("CAST", image(), options="CastOptions", in_data_type=0, out_data_type=2, outputs=["int32"]),
    **{
        f"{kind.lower()} {axes} {keep}": lambda kind=kind, axes=axes, keep=keep: op(
            kind, op("LOGISTIC", inner()), ints(*axes), options="ReducerOptions", keep_dims=keep
        )
        for kind in REDUCED
        for axes, keep in (([1, 2], False), ([1, 2], True), ([-1], False), ([2], True), ([1], False))
    },
    "reduce any": lambda: op("REDUCE_ANY", Feed((3, 4), "bool"), ints(1), options="ReducerOptions", outputs=["bool"]),
    "reduce all": lambda: op("REDUCE_ALL", Feed((3, 4), "bool"), ints(0), options="ReducerOptions", outputs=["bool"]),
    "arg max": lambda: op("ARG_MAX", inner(), ints(-1), options="ArgMaxOptions", output_type=2, outputs=["int32"]),
    "arg min": lambda: op("ARG_MIN", Feed((3, 4)), ints(0), options="ArgMinOptions", output_type=4, outputs=["int64"]),
    "cumsum": lambda: op("CUMSUM", Feed((3, 4)), ints(1), options="CumsumOptions", exclusive=True, reverse=True),
    "reshape": lambda: op("RESHAPE", inner(), ints(1, -1, 6), options="ReshapeOptions", new_shape=[1, -1, 6]),
    "reshape by option": lambda: op("RESHAPE", inner(), options="ReshapeOptions", new_shape=[2, 324]),
    "squeeze": lambda: op("SQUEEZE", inner(), options="SqueezeOptions", squeeze_dims=[0]),
    "squeeze all": lambda: op("SQUEEZE", Feed((1, 3, 1, 4)), options="SqueezeOptions"),
    "expand dims": lambda: op("EXPAND_DIMS", Feed((3, 4)), ints(-2)),
    "transpose": lambda: op("TRANSPOSE", inner(), ints(2, 0, 3, 1)),
    "transpose to channels first": lambda: op("TRANSPOSE", inner(), ints(0, 3, 1, 2)),
    "transpose from channels first": lambda: conv(
        op("TRANSPOSE", Feed((1, 6, 9, 12)), ints(0, 2, 3, 1)), weights(4, 3, 3, 6)
    ),
    **{
        f"concatenation {axis}": lambda axis=axis: op(
            "CONCATENATION", inner(), inner(), options="ConcatenationOptions", axis=axis
        )
        for axis in (1, 2, 3, -1)
    },
    "pack": lambda: op("PACK", Feed((3, 4)), Feed((3, 4)), options="PackOptions", values_count=2, axis=-1),
    "unpack": lambda: op("UNPACK", Feed((3, 4)), options="UnpackOptions", num=3, axis=0, outputs=["float32"] * 3),
    "split": lambda: op(
        "SPLIT", ints(3).reshape(()), inner(), options="SplitOptions", num_splits=3, outputs=["float32"] * 3
    ),
    "split v": lambda: op(
        "SPLIT_V",
        inner(),
        ints(1, -1, 3),
        ints(3).reshape(()),
        options="SplitVOptions",
        num_splits=3,
        outputs=["float32"] * 3,
    ),
    "slice": lambda: op("SLICE", inner(), ints(0, 1, 2, 3), ints(1, -1, 4, 2)),
    "slice at run time": lambda: op("SLICE", Feed((6, 7)), op("ABS", ints(1, 2), outputs=["int32"]), ints(3, -1)),
    "strided slice": lambda: strided(inner(), [0, 1, 2, 0], [1, 8, 9, 6], [1, 2, 3, 2]),
    "strided slice backwards": lambda: strided(Feed((5, 6)), [-1, 4], [0, -5], [-1, -2], end_mask=1),
    "strided slice masks": lambda: strided(
        inner(), [0, 3, 0], [0, 4, 0], [1, 1, 1], begin_mask=5, end_mask=5, shrink_axis_mask=2
    ),
    "strided slice ellipsis": lambda: strided(
        Feed((2, 3, 4)), [0, 1, 0], [0, 2, 0], [1, 1, 1], ellipsis_mask=1, new_axis_mask=4, shrink_axis_mask=2
    ),
    "reverse": lambda: op("REVERSE_V2", Feed((3, 4)), ints(1)),
    "gather": lambda: op("GATHER", Feed((5, 4)), ints(3, 0, 1), options="GatherOptions", axis=0),
    "gather batches": lambda: op(
        "GATHER", Feed((2, 5, 4)), np.array([[3, 0], [1, 2]], np.int32), options="GatherOptions", axis=1, batch_dims=1
    ),
    "gather nd": lambda: op("GATHER_ND", Feed((5, 4, 3)), np.array([[3, 0], [1, 2]], np.int32)),
    "pad": lambda: op("PAD", inner(), np.array([[0, 0], [1, 2], [0, 1], [0, 2]], np.int32)),
    "pad v2": lambda: op("PADV2", Feed((3, 4)), np.array([[1, 0], [2, 1]], np.int32), np.array(-2.5, np.float32)),
    "mirror pad": lambda: op(
        "MIRROR_PAD", Feed((3, 4)), np.array([[1, 2], [2, 1]], np.int32), options="MirrorPadOptions", mode=0
    ),
    "mirror pad at the edge": lambda: op(
        "MIRROR_PAD", Feed((3, 4)), np.array([[1, 0], [1, 1]], np.int32), options="MirrorPadOptions", mode=1
    ),
    "tile": lambda: op("TILE", Feed((3, 4)), ints(2, 3)),
    "broadcast to": lambda: op("BROADCAST_TO", Feed((3, 1)), ints(2, 3, 4), version=2),
    "fill": lambda: op("MUL", Feed((2, 3)), op("FILL", ints(2, 3), np.array(2.5, np.float32)), options="MulOptions"),
    "range": lambda: op(
        "ADD",
        Feed((4,), "int32"),
        op("RANGE", *(ints(n).reshape(()) for n in (1, 9, 2)), outputs=["int32"]),
        options="AddOptions",
        outputs=["int32"],
    ),
    "shape": lambda: op(
        "RESHAPE",
        Feed((8, 6)),
        op(
            "MUL",
            op("SHAPE", Feed((4, 3)), options="ShapeOptions", out_type=2, outputs=["int32"]),
            ints(2),
            options="MulOptions",
            outputs=["int32"],
        ),
    ),
    "top k": lambda: op("TOPK_V2", Feed((3, 9)), ints(4).reshape(()), outputs=["float32", "int32"]),
    "one hot": lambda: op(
        "ONE_HOT",
        Feed((4,), "int32"),
        ints(5).reshape(()),
        np.array(2, np.float32),
        np.array(-1, np.float32),
        options="OneHotOptions",
        axis=-1,
    ),
    "lstm": lambda: lstm(Feed((2, 7, 5)), 5, 4),
    "lstm with time first": lambda: lstm(Feed((7, 2, 5)), 5, 4, time_major=True),
    "lstm with coupled gates": lambda: lstm(Feed((2, 7, 5)), 5, 4, coupled=True),
    "lstm with peepholes": lambda: lstm(Feed((2, 7, 5)), 5, 4, peepholes=True),
    "dequantize half": lambda: op(
        "ADD", Feed((4,)), op("DEQUANTIZE", np.arange(4, dtype=np.float16)), options="AddOptions"
    ),
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_operator(name: str, runtime: str, tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    path = write(tmp_path / "net.tflite", CASES[name]())
    model = ew.load(path)
    feeds = random_feeds(model, rng)
    expected = answers(path, feeds)
    with ew.open(model, runtime=runtime) as session:
        found = session.run(feeds)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        if value.dtype.kind == "f":
            limits = tolerance["float32"]
            np.testing.assert_allclose(found[key], value, rtol=limits["rtol"], atol=limits["atol"])
        else:
            np.testing.assert_array_equal(found[key], value)
