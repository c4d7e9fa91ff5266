"""Element-wise functions of one operand, and the activations made of several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import DTYPES, Held, sizes_of
from edgewright.runtimes.litert.lowering import Lowering, clamp
from edgewright.runtimes.litert.registering import Refused, rule

if TYPE_CHECKING:
    import onnx_ir as ir

_ONE_TO_ONE = {
    "Abs": "ABS", "Ceil": "CEIL", "Cos": "COS", "Exp": "EXP", "Floor": "FLOOR", "HardSwish": "HARD_SWISH", "Log": "LOG",
    "Neg": "NEG", "Not": "LOGICAL_NOT", "Round": "ROUND", "Sigmoid": "LOGISTIC", "Sign": "SIGN", "Sin": "SIN",
    "Sqrt": "SQRT", "Tanh": "TANH",
}  # fmt: skip


class Maker:
    """Arithmetic on tensors of one shape and with numbers, to write formulas as formulas."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering

    def one(self, kind: str, x: Tensor) -> Tensor:
        """An operator on one tensor."""
        return self.lowering.op(kind, [x], sizes_of(x))

    def two(self, kind: str, x: Tensor, y: Tensor | float) -> Tensor:
        """An operator on a tensor and another one, or a number."""
        other = y if isinstance(y, Tensor) else self.lowering.number(y, x)
        return self.lowering.op(kind, [x, other], sizes_of(x))

    def polynomial(self, x: Tensor, *factors: float) -> Tensor:
        """factors[0] x^n + ... + factors[n], by Horner's rule."""
        made = self.two("ADD", self.two("MUL", x, factors[0]), factors[1])
        for factor in factors[2:]:
            made = self.two("ADD", self.two("MUL", made, x), factor)
        return made


@rule(*_ONE_TO_ONE)
def one_to_one(lowering: Lowering, node: ir.Node) -> None:
    """The operator of the same meaning."""
    held = _held(lowering, node)
    lowering.hold(
        node.outputs[0], lowering.op(_ONE_TO_ONE[node.op_type], [held.tensor], sizes_of(held.tensor)), held.order
    )


@rule("Relu", "Clip")
def clip(lowering: Lowering, node: ir.Node) -> None:
    """The activation with these bounds, else MAXIMUM and MINIMUM."""
    held = _held(lowering, node)
    tensor, sizes = held.tensor, sizes_of(held.tensor)
    kind = clamp(node, lowering)
    if kind is not None and tensor.dtype == "float32":
        lowering.hold(node.outputs[0], lowering.op(kind, [tensor], sizes), held.order)
        return
    for bound, operator in ((1, "MAXIMUM"), (2, "MINIMUM")):
        value = node.inputs[bound] if bound < len(node.inputs) else None
        if value is not None:
            limit = lowering.array(lowering.required(value, "bounds").reshape(1))
            tensor = lowering.op(operator, [tensor, limit], sizes)
    if node.op_type == "Relu":
        tensor = lowering.op("MAXIMUM", [tensor, lowering.number(0, tensor)], sizes)
    lowering.hold(node.outputs[0], tensor, held.order)


@rule("LeakyRelu")
def leaky_relu(lowering: Lowering, node: ir.Node) -> None:
    """LEAKY_RELU."""
    held, alpha = _held(lowering, node), node.attributes.get_float("alpha", 0.01)
    tensor = lowering.op("LEAKY_RELU", [held.tensor], sizes_of(held.tensor), alpha=alpha)
    lowering.hold(node.outputs[0], tensor, held.order)


@rule("PRelu")
def parametric_relu(lowering: Lowering, node: ir.Node) -> None:
    """PRELU, slopes by channel or in any shape that broadcasts."""
    held, slope = _held(lowering, node), node.inputs[1]
    assert slope is not None
    slopes = lowering.fit(slope, held.order)
    rank = len(held.order)
    if len(slopes.shape) == 1 and rank > 1:  # kernels want the slopes of one sample
        slopes = lowering.reshaped(slopes, (1,) * (rank - 2) + slopes.shape)
    tensor = lowering.op("PRELU", [held.tensor, slopes], sizes_of(held.tensor))
    lowering.hold(node.outputs[0], tensor, held.order)


@rule("Gelu")
def gelu(lowering: Lowering, node: ir.Node) -> None:
    """GELU, exact or by tanh."""
    held = _held(lowering, node)
    by_tanh = node.attributes.get_string("approximate", "none") == "tanh"
    tensor = lowering.op("GELU", [held.tensor], sizes_of(held.tensor), approximate=by_tanh)
    lowering.hold(node.outputs[0], tensor, held.order)


@rule("Cast", "CastLike")
def cast(lowering: Lowering, node: ir.Node) -> None:
    """CAST; nothing between types that the file holds alike, such as half and single precision."""
    held, made = _held(lowering, node), node.outputs[0]
    name = made.dtype.numpy().name if made.dtype is not None else "float32"
    dtype = DTYPES.get(name)
    if dtype is None:
        raise Refused(f"it makes {name}")
    if dtype == held.tensor.dtype:
        lowering.hold(made, held.tensor, held.order)
        return
    tensor = held.tensor
    if dtype == "bool":
        tensor = lowering.op("NOT_EQUAL", [tensor, lowering.number(0, tensor)], sizes_of(tensor), "bool")
    else:
        tensor = lowering.op("CAST", [tensor], sizes_of(tensor), dtype)
    lowering.hold(made, tensor, held.order)


@rule("IsNaN")
def is_nan(lowering: Lowering, node: ir.Node) -> None:
    """NaN is the one value that differs from itself."""
    held = _held(lowering, node)
    tensor = lowering.op("NOT_EQUAL", [held.tensor, held.tensor], sizes_of(held.tensor), "bool")
    lowering.hold(node.outputs[0], tensor, held.order)


def _elu(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha == 1:
        return make.one("ELU", x)
    return _two_sided(make, x, 1.0, alpha)


def _selu(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get_float("gamma", 1.05070102214813232421875)
    return _two_sided(make, x, gamma, gamma * alpha)


def _two_sided(make: Maker, x: Tensor, above: float, below: float) -> Tensor:
    """above * max(x, 0) + below * (exp(min(x, 0)) - 1), where ELU makes the second part exactly."""
    positive = make.two("MUL", make.one("RELU", x), above)
    return make.two("ADD", positive, make.two("MUL", make.one("ELU", make.two("MINIMUM", x, 0.0)), below))


def _celu(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.0)
    scaled = make.one("ELU", make.two("MUL", make.two("MINIMUM", x, 0.0), 1 / alpha))
    return make.two("ADD", make.one("RELU", x), make.two("MUL", scaled, alpha))


def _hard_sigmoid(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    """clip(alpha x + beta, 0, 1), by RELU6 where kernels have it fused: relu6(6 alpha x + 6 beta) / 6."""
    alpha, beta = 6 * node.attributes.get_float("alpha", 0.2), 6 * node.attributes.get_float("beta", 0.5)
    scaled = x if abs(alpha - 1) < 1e-6 else make.two("MUL", x, alpha)
    raised = make.lowering.op(
        "ADD", [scaled, make.lowering.number(beta, x)], sizes_of(x), fusedActivationFunction="RELU6"
    )
    return make.two("MUL", raised, 1 / 6)


def _mish(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    """x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); above 20 the fraction is 1 in float32."""
    e = make.one("EXP", make.two("MINIMUM", x, 20.0))
    n = make.two("MUL", e, make.two("ADD", e, 2.0))
    return make.two("MUL", x, make.two("DIV", n, make.two("ADD", n, 2.0)))


def _softplus(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    small = make.one("EXP", make.one("NEG", make.one("ABS", x)))
    return make.two("ADD", make.one("RELU", x), make.one("LOG", make.two("ADD", small, 1.0)))


def _softsign(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    return make.two("DIV", x, make.two("ADD", make.one("ABS", x), 1.0))


def _thresholded(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.0)
    above = make.lowering.op("GREATER", [x, make.lowering.number(alpha, x)], sizes_of(x), "bool")
    return make.two("MUL", x, make.lowering.op("CAST", [above], sizes_of(x), "float32"))


def _reciprocal(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    return make.lowering.op("DIV", [make.lowering.number(1.0, x), x], sizes_of(x))


def _tan(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    return make.two("DIV", make.one("SIN", x), make.one("COS", x))


def _erf(make: Maker, x: Tensor, node: ir.Node) -> Tensor:
    """erf by what GELU computes: gelu(z) + gelu(-z) = z erf(z / sqrt 2); near 0, where z is no divisor, by its series.

    Source: Abramowitz and Stegun 7.1.5 for the series: 2 / sqrt(pi) (x - x^3 / 3 + x^5 / 10 - x^7 / 42).
    """
    z = make.two("MUL", x, math.sqrt(2))
    both = make.two("ADD", make.one("GELU", z), make.one("GELU", make.one("NEG", z)))
    square = make.two("MINIMUM", make.one("SQUARE", x), 0.0625)
    near = make.two("MUL", x, make.polynomial(square, *(f * 2 / math.sqrt(math.pi) for f in (-1 / 42, 0.1, -1 / 3, 1))))
    large = make.lowering.op("GREATER", [make.one("ABS", x), make.lowering.number(0.25, x)], sizes_of(x), "bool")
    divisor = make.lowering.op("SELECT_V2", [large, z, make.lowering.number(1.0, x)], sizes_of(x), "float32")
    return make.lowering.op("SELECT_V2", [large, make.two("DIV", both, divisor), near], sizes_of(x), "float32")


_FORMULAS: dict[str, Callable[[Maker, Tensor, ir.Node], Tensor]] = {
    "Celu": _celu, "Elu": _elu, "Erf": _erf, "HardSigmoid": _hard_sigmoid, "Mish": _mish, "Reciprocal": _reciprocal,
    "Selu": _selu, "Softplus": _softplus, "Softsign": _softsign, "Tan": _tan, "ThresholdedRelu": _thresholded,
}  # fmt: skip


@rule(*_FORMULAS)
def formula(lowering: Lowering, node: ir.Node) -> None:
    """A function made of several operators."""
    held = _held(lowering, node)
    lowering.hold(node.outputs[0], _FORMULAS[node.op_type](Maker(lowering), held.tensor, node), held.order)


def _held(lowering: Lowering, node: ir.Node) -> Held:
    data = node.inputs[0]
    assert data is not None
    return lowering.get(data)
