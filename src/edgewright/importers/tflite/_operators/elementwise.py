"""Operators that work value by value: they keep the layout of what they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.tflite._site import Site

if TYPE_CHECKING:
    import onnx_ir as ir

Builder = Callable[[Site], None]
#: TFLite operator -> ONNX operator of one input.
_UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "COS": "Cos", "ELU": "Elu", "EXP": "Exp", "FLOOR": "Floor", "HARD_SWISH": "HardSwish",
    "LOG": "Log", "LOGICAL_NOT": "Not", "LOGISTIC": "Sigmoid", "NEG": "Neg", "ROUND": "Round", "SIGN": "Sign", "SIN": "Sin",
    "SQRT": "Sqrt",
}  # fmt: skip
#: The same with two inputs.
_BINARY = {
    "ADD": "Add", "DIV": "Div", "EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "MAXIMUM": "Max", "MINIMUM": "Min", "MUL": "Mul",
    "POW": "Pow", "PRELU": "PRelu", "SUB": "Sub",
}  # fmt: skip
_ACTIVATIONS = ("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "TANH")


def _unary(op_type: str) -> Builder:
    return lambda site: _each(site, lambda value: site.graph.node(op_type, value))


def _binary(op_type: str) -> Builder:
    return lambda site: _both(site, lambda a, b: site.graph.node(op_type, a, b))


def _activation(name: str) -> Builder:
    return lambda site: _each(site, lambda value: site.activate(value, name))


def square(site: Site) -> None:
    """SQUARE."""
    _each(site, lambda value: site.graph.node("Mul", value, value))


def rsqrt(site: Site) -> None:
    """RSQRT: 1 / sqrt(x)."""
    _each(site, lambda value: site.graph.node("Reciprocal", site.graph.node("Sqrt", value)))


def leaky_relu(site: Site) -> None:
    """LEAKY_RELU."""
    _each(site, lambda value: site.graph.node("LeakyRelu", value, alpha=float(site.option("alpha"))))


def gelu(site: Site) -> None:
    """GELU, by the error function or by tanh."""
    approximate = "tanh" if site.option("approximate") else "none"
    _each(site, lambda value: site.graph.node("Gelu", value, approximate=approximate))


def zeros_like(site: Site) -> None:
    """ZEROS_LIKE."""
    _each(site, lambda value: site.graph.node("Mul", value, _number(site, value, 0)))


def not_equal(site: Site) -> None:
    """NOT_EQUAL."""
    _both(site, lambda a, b: site.graph.node("Not", site.graph.node("Equal", a, b)))


def squared_difference(site: Site) -> None:
    """SQUARED_DIFFERENCE."""

    def make(a: ir.Value, b: ir.Value) -> ir.Value:
        difference = site.graph.node("Sub", a, b)
        return site.graph.node("Mul", difference, difference)

    _both(site, make)


def floor_div(site: Site) -> None:
    """FLOOR_DIV: the quotient rounded down, also of integers."""

    def make(a: ir.Value, b: ir.Value) -> ir.Value:
        if a.dtype is not None and a.dtype.is_integer():
            rest = site.graph.node("Mod", a, b)  # of the divisor's sign
            return site.graph.node("Div", site.graph.node("Sub", a, rest), b)
        return site.graph.node("Floor", site.graph.node("Div", a, b))

    _both(site, make)


def floor_mod(site: Site) -> None:
    """FLOOR_MOD: the rest, of the divisor's sign."""

    def make(a: ir.Value, b: ir.Value) -> ir.Value:
        if a.dtype is not None and a.dtype.is_integer():
            return site.graph.node("Mod", a, b)
        whole = site.graph.node("Floor", site.graph.node("Div", a, b))
        return site.graph.node("Sub", a, site.graph.node("Mul", whole, b))

    _both(site, make)


def add_n(site: Site) -> None:
    """ADD_N: the sum of any number of tensors."""
    numbers = range(site.count)
    layout = site.layout(*numbers)
    rank = max(site.rank(number) for number in numbers) if numbers else 0
    site.done(site.graph.node("Sum", *(site.aligned(number, layout, rank) for number in numbers)), layout)


def select(site: Site) -> None:
    """SELECT and SELECT_V2: the old one also takes a condition for each row."""
    layout = site.layout(0, 1, 2)
    rank = max(site.rank(number) for number in range(3))
    condition = site.aligned(0, layout, rank)
    if site.operator.kind == "SELECT" and site.rank(0) == 1 and site.rank(1) > 1:
        layout = "file"
        axes = site.graph.numbers(list(range(1, site.rank(1))))
        condition = site.graph.node("Unsqueeze", site.stored(0), axes)
    site.done(site.graph.node("Where", condition, *(site.aligned(n, layout, rank) for n in (1, 2))), layout)


def softmax(site: Site) -> None:
    """SOFTMAX over the last axis of `beta` times the input."""
    beta = float(site.option("beta", 1.0))
    layout = site.layout(0)
    value = site.real(0, layout)
    if beta != 1.0:
        value = site.graph.node("Mul", value, site.graph.numbers(beta, np.float32))
    site.done(site.graph.node("Softmax", value, axis=site.place(_last(site), layout)), layout)


def log_softmax(site: Site) -> None:
    """LOG_SOFTMAX over the last axis."""
    layout = site.layout(0)
    axis = site.place(_last(site), layout)
    site.done(site.graph.node("LogSoftmax", site.real(0, layout), axis=axis), layout)


def cast(site: Site) -> None:
    """CAST to the type of its output."""
    import onnx

    if not site.operator.outputs:
        raise site.refuse("it has no output")
    kind = site.network.numpy_type(site.operator.outputs[0])
    to = int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    _each(site, lambda value: site.graph.node("Cast", value, to=to))


def _last(site: Site) -> int:
    return site.axis(-1, site.rank())


def _each(site: Site, make: Callable[[ir.Value], ir.Value]) -> None:
    layout = site.layout(0)
    site.done(make(site.real(0, layout)), layout)


def _both(site: Site, make: Callable[[ir.Value, ir.Value], ir.Value]) -> None:
    layout = site.layout(0, 1)
    rank = max(site.rank(0), site.rank(1)) if layout == "nchw" else 0
    site.done(make(site.aligned(0, layout, rank), site.aligned(1, layout, rank)), layout)


def _number(site: Site, value: ir.Value, number: float) -> ir.Value:
    assert value.dtype is not None
    return site.graph.numbers(number, value.dtype.numpy())


BUILDERS: dict[str, Builder] = {
    **{name: _unary(op_type) for name, op_type in _UNARY.items()},
    **{name: _binary(op_type) for name, op_type in _BINARY.items()},
    **{name: _activation(name) for name in _ACTIVATIONS},
    "ADD_N": add_n, "CAST": cast, "FLOOR_DIV": floor_div, "FLOOR_MOD": floor_mod, "GELU": gelu, "LEAKY_RELU": leaky_relu,
    "LOG_SOFTMAX": log_softmax, "NOT_EQUAL": not_equal, "RSQRT": rsqrt, "SELECT": select, "SELECT_V2": select,
    "SOFTMAX": softmax, "SQUARE": square, "SQUARED_DIFFERENCE": squared_difference, "ZEROS_LIKE": zeros_like,
}  # fmt: skip
