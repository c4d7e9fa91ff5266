"""Every operator of `learn`: the same numbers as the numpy reference, and gradients that finite differences confirm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from edgewright.learn.operators import OPERATORS  # noqa: E402
from edgewright.runtimes.reference import operators as reference  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One call: float64 inputs (learnt), other inputs as they are, attributes."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    gradient: bool = True

    def __str__(self) -> str:
        return f"{self.op}{':' if self.label else ''}{self.label}"


def _f(*shape: int, low: float = -1.0, high: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def _i(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


X, V = _f(2, 4, 5, 6), _f(2, 3, 4)
POSITIVE = _f(2, 3, 4, low=0.5, high=2)
WINDOW = {"kernel_shape": [3, 2]}

UNARY = {
    **dict.fromkeys(
        ["Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Mish",
         "Gelu", "Shrink", "Softmax", "LogSoftmax", "Abs", "Asinh", "Atan", "Cos", "Cosh", "Erf", "Exp", "Identity", "Neg",
         "Sin", "Sinh", "Tan", "Tanh", "Flatten", "Transpose", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax",
         "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "LpNormalization"], V),
    **dict.fromkeys(["Log", "Reciprocal", "Sqrt", "ReduceLogSum"], POSITIVE),
    **dict.fromkeys(["Acos", "Asin", "Atanh"], V * 0.9),
    "Acosh": POSITIVE + 1,
    "ThresholdedRelu": V * 3,
    **dict.fromkeys(["MeanVarianceNormalization", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], X),
}  # fmt: skip
CONSTANT = {"Ceil": V, "Floor": V, "Round": V, "Sign": V, "IsNaN": V, "Hardmax": V, "Shape": X, "Size": X,
            "ArgMax": V, "ArgMin": V}  # fmt: skip

CASES = [
    *(Case(op, (x,)) for op, x in UNARY.items()),
    *(Case(op, (x,), gradient=False) for op, x in CONSTANT.items()),
    *(Case(op, (V, _f(1, 3, 1, seed=1))) for op in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")),
    Case("Div", (V, _f(1, 3, 1, low=0.5, high=2))),
    Case("Mod", (V, _f(1, 3, 1, low=0.5, high=2)), {"fmod": 1}),
    Case("Pow", (POSITIVE, np.array(3.0))),
    Case("Pow", (POSITIVE, _f(1, 3, 1, seed=2)), label="tensor"),
    Case("PRelu", (V, _f(3, 1))),
    Case("Where", (V > 0, V, _f(1, 3, 1, seed=1))),
    Case("Clip", (V, np.array(-0.5), np.array(0.4))),
    Case("Clip", (V, None, np.array(0.4)), label="one limit"),
    Case("Not", (V > 0,), gradient=False),
    *(Case(op, (V > 0, V > 0.5), gradient=False) for op in ("And", "Or", "Xor")),
    *(Case(op, (V, _f(1, 3, 1, seed=1)), gradient=False)
      for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    Case("Cast", (V,), {"to": 11}),
    Case("Cast", (V * 9,), {"to": 7}, "to integers", False),
    Case("CastLike", (V, np.array(1.0))),
    Case("Dropout", (V,)),
    Case("MatMul", (V, _f(2, 4, 2, seed=1))),
    Case("Gemm", (_f(3, 4), _f(2, 4, seed=1), _f(2, seed=2)), {"alpha": 0.5, "beta": 2.0, "transB": 1}),
    Case("Gemm", (_f(4, 3), _f(4, 2, seed=1)), {"transA": 1}, "no bias"),
    Case("Einsum", (V, _f(2, 4, 2, seed=1)), {"equation": "bij, bjk -> bik"}),
    # convolutions
    Case("Conv", (_f(2, 4, 9), _f(6, 2, 3, seed=1), _f(6, seed=2)), {"group": 2, "pads": [1, 2], "strides": [2]}, "1-d"),
    Case("Conv", (X, _f(4, 1, 3, 3, seed=1), _f(4, seed=2)), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
         "depthwise"),
    Case("Conv", (X, _f(3, 4, 3, 3, seed=1)), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}, "dilated"),
    Case("Conv", (X, _f(3, 4, 3, 3, seed=1)), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, "same lower"),
    Case("Conv", (_f(1, 2, 4, 4, 4), _f(3, 2, 2, 2, 2, seed=1)), {"pads": [1, 0, 0, 0, 1, 1]}, "3-d"),
    Case("ConvTranspose", (X, _f(4, 3, 3, 3, seed=1), _f(3, seed=2)),
         {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 1]}),
    Case("ConvTranspose", (X, _f(4, 2, 2, 3, seed=1)), {"group": 2, "dilations": [2, 1]}, "groups"),
    Case("ConvTranspose", (X, _f(4, 3, 3, 3, seed=1)), {"strides": [2, 2], "output_shape": [10, 12]}, "shape"),
    Case("ConvTranspose", (X, _f(4, 3, 3, 3, seed=1)), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, "same"),
    # pools
    *(Case(op, (X,), {**WINDOW, **more}, label) for op in ("MaxPool", "AveragePool") for label, more in {
        "plain": {"strides": [2, 2]},
        "padded": {"pads": [1, 1, 1, 1]},
        "one side": {"pads": [0, 0, 1, 1]},
        "ceil": {"strides": [2, 3], "ceil_mode": 1, "pads": [1, 0, 1, 0]},
        "dilated": {"dilations": [2, 2]},
        "same": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    }.items()),
    Case("AveragePool", (X,), {**WINDOW, "pads": [1, 1, 1, 1], "count_include_pad": 1}, "counted"),
    Case("AveragePool", (X,), {**WINDOW, "strides": [2, 3], "ceil_mode": 1, "pads": [1, 0, 1, 0], "count_include_pad": 1},
         "ceil counted"),
    Case("LpPool", (X,), {**WINDOW, "strides": [2, 2]}),
    # norms
    Case("BatchNormalization", (X, _f(4), _f(4, seed=1), _f(4, seed=2), _f(4, low=0.5, high=2))),
    Case("InstanceNormalization", (X, _f(4), _f(4, seed=1))),
    Case("GroupNormalization", (X, _f(4), _f(4, seed=1)), {"num_groups": 2}),
    Case("GroupNormalization", (_f(1, 4, 1, 1), _f(4), _f(4, seed=1)), {"num_groups": 4}, "groups of one value"),
    Case("LayerNormalization", (V, _f(4), _f(4, seed=1))),
    Case("LayerNormalization", (V, _f(3, 4)), {"axis": 1}, "two axes"),
    Case("LayerNormalization", (V, _f(1), _f(4)), label="broadcast"),
    Case("LRN", (X,), {"size": 3, "alpha": 0.3}),
    # shapes
    Case("Reshape", (V, _i(0, -1))),
    Case("Squeeze", (_f(2, 1, 3, 1), _i(1))),
    Case("Squeeze", (_f(2, 1, 3, 1),), label="all"),
    Case("Unsqueeze", (V, _i(0, -1))),
    Case("Transpose", (V,), {"perm": [1, 0, 2]}, "perm"),
    Case("Concat", (V, _f(2, 1, 4)), {"axis": 1}),
    Case("Split", (V, _i(1, 3)), {"axis": -1, "output_count": 2}),
    Case("Split", (V,), {"axis": 1, "num_outputs": 2, "output_count": 2}, "even"),
    Case("Slice", (X, _i(1, -1), _i(100, -100), _i(2, 3), _i(2, -2))),
    Case("Slice", (X, _i(0), _i(2))),
    Case("Expand", (_f(2, 1, 4), _i(3, 1))),
    Case("Tile", (V, _i(1, 2, 3))),
    *(Case("Pad", (X, _i(0, 0, 2, -1, 0, 0, 1, 3)), {"mode": mode}, mode) for mode in ("reflect", "edge", "wrap")),
    Case("Pad", (X, _i(1, -1, 2, 0), np.array(0.7), _i(2, 3))),
    Case("DepthToSpace", (_f(1, 8, 2, 3),), {"blocksize": 2}),
    Case("DepthToSpace", (_f(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}, "CRD"),
    Case("SpaceToDepth", (_f(1, 2, 4, 6),), {"blocksize": 2}),
    Case("Trilu", (V, np.array(1)), {"upper": 0}),
    Case("ReverseSequence", (V, _i(1, 2, 2)),),
    # indices
    Case("Gather", (V, _i([0, -1], [2, 1])), {"axis": 1}),
    Case("Gather", (V, np.array(-1)), {"axis": 2}, "one"),
    Case("GatherElements", (V, _i([[0, -1, 1, 0]], [[1, 2, 0, 0]])), {"axis": 1}),
    Case("GatherND", (V, _i([0, 1], [1, -1]))),
    Case("GatherND", (V, _i([1], [2])), {"batch_dims": 1}, "batch"),
    Case("ScatterElements", (V, _i([[0, 2, 1, 0]]), _f(1, 1, 4, seed=3)), {"axis": 1}),
    Case("ScatterElements", (V, _i([[0, 2, 1, 0]]), _f(1, 1, 4, seed=3)), {"axis": 1, "reduction": "add"}, "add"),
    Case("ScatterND", (V, _i([0, 1], [1, 2]), _f(2, 4, seed=3))),
    Case("ConstantOfShape", (_i(2, 3),), gradient=False),
    Case("Range", (np.array(1), np.array(7), np.array(2)), gradient=False),
    Case("OneHot", (_i(0, 2, -1), np.array(3), np.array([0.25, 4.0])), {"axis": 0}),
    Case("EyeLike", (_f(3, 4),), {"k": 1}, gradient=False),
    Case("CumSum", (V, np.array(1)), {"exclusive": 1, "reverse": 1}),
    Case("TopK", (V, _i(2)), {"axis": 1}),
    Case("ReduceMean", (X, _i(1, -1)), {"keepdims": 0}, "axes"),
    Case("ReduceSum", (V, _i()), {"noop_with_empty_axes": 1}, "nothing"),
    Case("ArgMax", (V,), {"axis": 1, "keepdims": 0, "select_last_index": 1}, "last", False),
    # resizing
    *(Case("Resize", (X, None, None, _i(2, 4, 8, 9)), {"mode": mode, "coordinate_transformation_mode": how}, f"{mode} {how}")
      for mode in ("nearest", "linear", "cubic")
      for how in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")),
    Case("Resize", (X, None, np.array([0.5, 1.7], np.float32)), {"axes": [2, 3], "mode": "linear", "antialias": 1}, "scales"),
    *(Case("Resize", (X, None, None, _i(7, 4)), {"axes": [2, 3], "nearest_mode": mode}, mode)
      for mode in ("floor", "ceil", "round_prefer_ceil")),
    Case("GridSample", (X, _f(2, 3, 3, 2, seed=4)), {"align_corners": 1}),
    # recurrent
    *(Case(op, (_f(4, 2, 3), _f(2, gates * 5, 3, seed=1), _f(2, gates * 5, 5, seed=2), _f(2, gates * 10, seed=3)),
           {"direction": "bidirectional", "hidden_size": 5}, "both ways")
      for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))),
    Case("LSTM", (_f(4, 2, 3), _f(1, 8, 3, seed=1), _f(1, 8, 2, seed=2), None, np.array([4, 2], np.int32),
                  _f(1, 2, 2, seed=4), _f(1, 2, 2, seed=5), _f(1, 6, seed=6)), {"hidden_size": 2}, "all inputs"),
    Case("LSTM", (_f(2, 4, 3), _f(1, 8, 3, seed=1), _f(1, 8, 2, seed=2)),
         {"hidden_size": 2, "layout": 1, "direction": "reverse", "input_forget": 1, "clip": 0.4}, "options"),
    Case("GRU", (_f(4, 2, 3), _f(1, 6, 3, seed=1), _f(1, 6, 2, seed=2), _f(1, 12, seed=3)),
         {"hidden_size": 2, "linear_before_reset": 1, "activations": ["HardSigmoid", "Softsign"]}, "options"),
]  # fmt: skip


def _evaluate(case: Case, values: list[Any]) -> tuple[Any, ...]:
    found = OPERATORS[case.op]
    given = [v.tolist() if i in found.host and v is not None else v for i, v in enumerate(values)]
    result = found.function(*given, **case.attributes)
    return result if isinstance(result, tuple) else (result,)


def _tensors(case: Case) -> list[Any]:
    return [None if x is None else torch.from_numpy(np.array(x)) for x in case.inputs]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_reference(case: Case, tolerance: dict[str, dict[str, float]]) -> None:
    found = reference.OPERATORS[case.op]
    attributes = {k: v for k, v in case.attributes.items() if k != "output_count" or found.counts_outputs}
    expected = found.function(*case.inputs, **attributes)
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = _evaluate(case, _tensors(case))
    for one, other in zip(got, expected, strict=False):
        assert tuple(one.shape) == np.asarray(other).shape
        limits = tolerance["float32"]
        np.testing.assert_allclose(one.numpy(), other, rtol=limits["rtol"], atol=limits["atol"])


@pytest.mark.parametrize("case", [case for case in CASES if case.gradient], ids=str)
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    values, host = _tensors(case), OPERATORS[case.op].host
    learnt = [
        i for i, v in enumerate(values)
        if v is not None and v.is_floating_point() and i not in host and not (case.op == "BatchNormalization" and i > 2)
    ]  # fmt: skip

    def function(*changed: Any) -> Any:
        given = list(values)
        for index, value in zip(learnt, changed, strict=True):
            given[index] = value
        return tuple(y for y in _evaluate(case, given) if y.is_floating_point())

    for index in learnt:
        values[index] = values[index].double().requires_grad_(True)
    assert torch.autograd.gradcheck(function, [values[index] for index in learnt], fast_mode=True)


def test_every_operator_has_a_case() -> None:
    quantized = {"QuantizeLinear", "DequantizeLinear"}  # their gradients are not those of their numbers
    standard = {name for name in OPERATORS if "." not in name}  # others stand for layers of `learn/binary`
    assert standard - {case.op for case in CASES} - quantized - {"Constant"} == set()


def _quantize(x: np.ndarray, **attributes: Any) -> tuple[Any, Any]:
    value = torch.from_numpy(x).requires_grad_(True)
    scale, zero_point = torch.tensor(0.5), torch.tensor(3, dtype=torch.uint8)
    steps = OPERATORS["QuantizeLinear"].function(value, scale, zero_point, **attributes)
    return value, OPERATORS["DequantizeLinear"].function(steps, scale, zero_point)


def test_fake_quantization_gives_the_numbers_of_the_integers_and_a_gradient_within_the_range() -> None:
    x = np.array([-9.0, -1.4, 0.2, 0.25, 0.26, 120.0, 200.0], np.float32)
    value, y = _quantize(x)
    steps = reference.OPERATORS["QuantizeLinear"].function(x, np.float32(0.5), np.uint8(3))
    expected = reference.OPERATORS["DequantizeLinear"].function(steps, np.float32(0.5), np.uint8(3))
    assert (y.detach().numpy() == expected).all()
    y.sum().backward()
    assert value.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_fake_quantization_by_channel_and_by_block(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 6)).astype(np.float32)
    for scale, attributes in (
        (rng.uniform(0.01, 0.1, 4), {"axis": 0}),
        (rng.uniform(0.01, 0.1, (4, 3)), {"axis": 1, "block_size": 2}),
    ):
        factor = scale.astype(np.float32)
        zero = np.zeros(factor.shape, np.int8)
        steps = OPERATORS["QuantizeLinear"].function(
            torch.from_numpy(x), torch.from_numpy(factor), torch.from_numpy(zero), limits=(-128, 127), **attributes
        )
        expected = reference.OPERATORS["QuantizeLinear"].function(x, factor, zero, **attributes)
        assert (steps.numpy() == expected).all()


def test_the_check_of_gradients_finds_a_wrong_one() -> None:
    def rounded(x: Any) -> Any:  # passes its gradient as if nothing had happened
        return OPERATORS["QuantizeLinear"].function(x, torch.tensor(0.5, dtype=torch.float64))

    x = torch.tensor([0.9, 1.3], dtype=torch.float64, requires_grad=True)
    assert not torch.autograd.gradcheck(rounded, [x], fast_mode=True, raise_exception=False)
