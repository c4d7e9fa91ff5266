"""Layers that work on each value by itself, those that hand on what they get, and softmax.

Source: Tencent/ncnn, src/layer/*.cpp of the same names, fused_activation.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import UNSET, Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_FLT_MAX = float(np.finfo(np.float32).max)
#: alpha and beta of ONNX's HardSwish, in single precision, as files round them.
_SIXTH, _NEAR = 1 / 6, 1e-6


def same(layer: Layer) -> ir.Value:
    """Noop: the input as it is."""
    return layer.x


def split(layer: Layer) -> Sequence[ir.Value]:
    """Split: the input once for each reader."""
    return [layer.x] * len(layer.line.tops)


def dropout(layer: Layer) -> ir.Value:
    """Dropout: x * scale, which is 1 but in networks of old."""
    factor = layer.number(0, 1.0)
    return layer.x if factor == 1 else layer.graph.node("Mul", layer.x, layer.graph.scalar(factor))


# --- activations --------------------------------------------------------------------------------------------------------


def activate(layer: Layer, x: ir.Value) -> ir.Value:
    """The activation that a layer with weights has fused: parameters 9 (type) and 10 (its numbers).

    Raises:
        EdgewrightError: E204 for a type that is not known.
    """
    kind, numbers = layer.integer(9, 0), layer.numbers(10)
    needed = {2: 1, 3: 2, 6: 2}.get(kind, 0)
    if len(numbers) < needed:
        raise layer.refuse(f"activation {kind} needs {needed} numbers in parameter 10, which has {len(numbers)}")
    if kind == 0:
        return x
    if kind == 1:
        return positive(layer, layer.graph.node("Relu", x))
    if kind == 2:
        return layer.graph.node("LeakyRelu", x, alpha=numbers[0])
    if kind == 3:
        return clipped(layer, x, numbers[0], numbers[1])
    if kind == 4:
        return positive(layer, layer.graph.node("Sigmoid", x))
    if kind == 5:
        return layer.graph.node("Mish", x)
    if kind == 6:
        return _hard_swish(layer, x, numbers[0], numbers[1])
    raise layer.unsupported(f"activation {kind}")


def positive(layer: Layer, value: ir.Value) -> ir.Value:
    """`value`, noted as never below 0: rounding it to int8 needs no lower limit."""
    layer.network.positive.add(value)
    return value


def clipped(layer: Layer, x: ir.Value, low: float, high: float) -> ir.Value:
    """min(max(x, low), high)."""
    y = layer.graph.node("Clip", x, layer.graph.scalar(low), layer.graph.scalar(high))
    return positive(layer, y) if low >= 0 else y


def relu(layer: Layer) -> ir.Value:
    """ReLU: with a slope below 0 where one is given."""
    slope = layer.number(0, 0.0)
    if slope:
        return layer.graph.node("LeakyRelu", layer.x, alpha=slope)
    return positive(layer, layer.graph.node("Relu", layer.x))


def prelu(layer: Layer) -> ir.Value:
    """PReLU: one slope, or one for each channel."""
    count = layer.count(0)
    if count > 1:
        layer.require_channels(count, "slopes")
    return layer.graph.node("PRelu", layer.x, layer.per_channel("slope", layer.plain(count)))


def clip(layer: Layer) -> ir.Value:
    """Clip."""
    return clipped(layer, layer.x, layer.number(0, -_FLT_MAX), layer.number(1, _FLT_MAX))


def elu(layer: Layer) -> ir.Value:
    """ELU."""
    return layer.graph.node("Elu", layer.x, alpha=layer.number(0, 0.1))


def celu(layer: Layer) -> ir.Value:
    """CELU."""
    alpha = layer.number(0, 1.0)
    if alpha == 0:
        raise layer.refuse("its alpha is 0")
    return layer.graph.node("Celu", layer.x, alpha=alpha)


def selu(layer: Layer) -> ir.Value:
    """SELU."""
    alpha, gamma = layer.number(0, 1.67326324), layer.number(1, 1.050700987)
    return layer.graph.node("Selu", layer.x, alpha=alpha, gamma=gamma)


def shrink(layer: Layer) -> ir.Value:
    """Shrink: values nearer to 0 than `lambd` become 0, others `bias` nearer."""
    return layer.graph.node("Shrink", layer.x, bias=layer.number(0, 0.0), lambd=layer.number(1, 0.5))


def gelu(layer: Layer) -> ir.Value:
    """GELU, by tanh where `fast_gelu` is set."""
    return layer.graph.node("Gelu", layer.x, approximate="tanh" if layer.flag(0) else "none")


def swish(layer: Layer) -> ir.Value:
    """Swish: x * sigmoid(x)."""
    return layer.graph.node("Mul", layer.x, layer.graph.node("Sigmoid", layer.x))


def hard_sigmoid(layer: Layer) -> ir.Value:
    """HardSigmoid."""
    y = layer.graph.node("HardSigmoid", layer.x, alpha=layer.number(0, 0.2), beta=layer.number(1, 0.5))
    return positive(layer, y)


def hard_swish(layer: Layer) -> ir.Value:
    """HardSwish."""
    return _hard_swish(layer, layer.x, layer.number(0, 0.2), layer.number(1, 0.5))


def _hard_swish(layer: Layer, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    if abs(alpha - _SIXTH) < _NEAR and beta == 0.5:
        return layer.graph.node("HardSwish", x)
    return layer.graph.node("Mul", x, layer.graph.node("HardSigmoid", x, alpha=alpha, beta=beta))


def mish(layer: Layer) -> ir.Value:
    """Mish."""
    return layer.graph.node("Mish", layer.x)


def sigmoid(layer: Layer) -> ir.Value:
    """Sigmoid."""
    return positive(layer, layer.graph.node("Sigmoid", layer.x))


def tanh(layer: Layer) -> ir.Value:
    """TanH."""
    return layer.graph.node("Tanh", layer.x)


def softplus(layer: Layer) -> ir.Value:
    """Softplus, BNLL: log(1 + exp(x))."""
    return layer.graph.node("Softplus", layer.x)


def softmax(layer: Layer) -> ir.Value:
    """Softmax. Parameter 1 marks files that are not of a time when axes were counted another way."""
    axis = layer.axis(0, 0, len(layer.sizes))
    if not layer.flag(1) and axis:
        layer.warn(
            "its axis is of a file from before 2019, which ncnn itself refuses; it is taken as ncnn counts today"
        )
    return positive(layer, layer.graph.node("Softmax", layer.x, axis=axis + 1))


# --- functions ----------------------------------------------------------------------------------------------------------


def absolute(layer: Layer) -> ir.Value:
    """AbsVal."""
    return positive(layer, layer.graph.node("Abs", layer.x))


def erf(layer: Layer) -> ir.Value:
    """Erf."""
    return layer.graph.node("Erf", layer.x)


def threshold(layer: Layer) -> ir.Value:
    """Threshold: 1 above it, else 0."""
    above = layer.graph.node("Greater", layer.x, layer.graph.scalar(layer.number(0, 0.0)))
    above = layer.graph.typed(above, np.bool_)
    one, zero = layer.graph.scalar(1), layer.graph.scalar(0)
    return positive(layer, layer.graph.node("Where", above, one, zero, shape=layer.graph.shape(layer.x)))


def exponential(layer: Layer) -> ir.Value:
    """Exp: base ^ (shift + x * scale), base -1 standing for e."""
    base = layer.number(0, -1.0)
    y = _linear(layer, layer.number(1, 1.0), layer.number(2, 0.0))
    if base == -1:
        return layer.graph.node("Exp", y)
    return layer.graph.node("Pow", layer.graph.scalar(base), y, shape=layer.graph.shape(layer.x))


def logarithm(layer: Layer) -> ir.Value:
    """Log: log(shift + x * scale) to a base, -1 standing for e."""
    base = layer.number(0, -1.0)
    y = layer.graph.node("Log", _linear(layer, layer.number(1, 1.0), layer.number(2, 0.0)))
    if base == -1:
        return y
    if base <= 0 or base == 1:
        raise layer.refuse(f"the base of its logarithm is {base}")
    return layer.graph.node("Mul", y, layer.graph.scalar(1 / math.log(base)))


def power(layer: Layer) -> ir.Value:
    """Power: (shift + x * scale) ^ power."""
    exponent = layer.number(0, 1.0)
    y = _linear(layer, layer.number(1, 1.0), layer.number(2, 0.0))
    return y if exponent == 1 else layer.graph.node("Pow", y, layer.graph.scalar(exponent))


def _linear(layer: Layer, factor: float, shift: float) -> ir.Value:
    y = layer.x if factor == 1 else layer.graph.node("Mul", layer.x, layer.graph.scalar(factor))
    return y if shift == 0 else layer.graph.node("Add", y, layer.graph.scalar(shift))


#: UnaryOp's type -> operators, one after the other.
_UNARY: dict[int, tuple[str, ...]] = {
    0: ("Abs",), 1: ("Neg",), 2: ("Floor",), 3: ("Ceil",), 5: ("Sqrt",), 6: ("Sqrt", "Reciprocal"), 7: ("Exp",),
    8: ("Log",), 9: ("Sin",), 10: ("Cos",), 11: ("Tan",), 12: ("Asin",), 13: ("Acos",), 14: ("Atan",),
    15: ("Reciprocal",), 16: ("Tanh",), 18: ("Round",),
}  # fmt: skip
_SQUARE, _LOG10, _TRUNC = 4, 17, 19


def unary(layer: Layer) -> ir.Value:
    """UnaryOp."""
    kind, graph = layer.integer(0, 0), layer.graph
    if kind == _SQUARE:
        return positive(layer, graph.node("Mul", layer.x, layer.x))
    if kind == _LOG10:
        return graph.node("Mul", graph.node("Log", layer.x), graph.scalar(1 / math.log(10)))
    if kind == _TRUNC:
        return graph.node("Mul", graph.node("Sign", layer.x), graph.node("Floor", graph.node("Abs", layer.x)))
    if kind not in _UNARY:
        raise layer.unsupported(f"operation {kind}")
    y = layer.x
    for op_type in _UNARY[kind]:
        y = graph.node(op_type, y)
    return positive(layer, y) if kind == 0 else y


# --- with numbers of each channel ---------------------------------------------------------------------------------------


def bias(layer: Layer) -> ir.Value:
    """Bias: x + a number of each channel."""
    count = layer.count(0)
    layer.require_channels(count, "biases")
    return layer.graph.node("Add", layer.x, layer.per_channel("bias", layer.plain(count)))


def scale(layer: Layer) -> ir.Value:
    """Scale: x * a number of each channel, + another; the factors may be the second blob."""
    count, shifted = layer.integer(0, 0), layer.flag(1)
    if count == UNSET:
        if len(layer.inputs) != 2 or layer.sizes_of(layer.inputs[1]) != layer.sizes[:1]:
            raise layer.refuse("its second blob must have a factor for each channel")
        channels = layer.sizes[0]
        factors = layer.reshape(layer.inputs[1], channels, *[1] * (len(layer.sizes) - 1))
    else:
        layer.require_channels(count, "factors")
        channels, factors = count, layer.per_channel("scale", layer.plain(count))
    y = layer.graph.node("Mul", layer.x, factors, shape=layer.shaped(*layer.sizes))
    return layer.graph.node("Add", y, layer.per_channel("bias", layer.plain(channels))) if shifted else y
