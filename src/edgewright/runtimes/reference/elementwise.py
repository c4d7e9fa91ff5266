"""Element by element: arithmetic, comparison, logic, bits and casts. All binary operators broadcast as numpy does.

Narrow floats are computed in float32 and rounded once to the type of the input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, is_float, numpy_dtype, operator, widen


def error_function(x: Array) -> Array:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x, each element by the C library in double precision."""
    values = np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size)
    return values.reshape(x.shape).astype(x.dtype)


def _unary(function: Callable[[Array], Any]) -> Callable[[Array], Array]:
    def evaluate(x: Array) -> Array:
        return np.asarray(function(widen(x))).astype(x.dtype)

    return evaluate


_UNARY: dict[str, Callable[[Array], Any]] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseNot": np.invert,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Erf": error_function,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,  # halves to even
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Tan": np.tan,
    "Tanh": np.tanh,
}
for _name, _function in _UNARY.items():
    operator(_name)(_unary(_function))


def _binary(function: Callable[[Array, Array], Any]) -> Callable[[Array, Array], Array]:
    def evaluate(a: Array, b: Array) -> Array:
        _same_type(a, b)
        return np.asarray(function(widen(a), widen(b))).astype(a.dtype)

    return evaluate


def _comparison(function: Callable[[Array, Array], Any]) -> Callable[[Array, Array], Array]:
    def evaluate(a: Array, b: Array) -> Array:
        _same_type(a, b)
        return np.asarray(function(widen(a), widen(b)))

    return evaluate


def _same_type(*tensors: Array) -> None:
    names = dict.fromkeys(x.dtype.name for x in tensors)
    if len(names) > 1:
        raise ValueError(f"inputs must have one type, but are {', '.join(names)}")


_BINARY: dict[str, Callable[[Array, Array], Any]] = {
    "Add": np.add,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
_COMPARISONS: dict[str, Callable[[Array, Array], Any]] = {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
for _name, _pair in _BINARY.items():
    operator(_name)(_binary(_pair))
for _name, _pair in _COMPARISONS.items():
    operator(_name)(_comparison(_pair))


@operator("Div")
def divide(a: Array, b: Array) -> Array:
    """a / b; integers are cut towards zero, as in C."""
    _same_type(a, b)
    if is_float(a):
        return np.asarray(np.divide(widen(a), widen(b))).astype(a.dtype)
    quotient, remainder = np.divmod(widen(a), widen(b))
    return np.asarray(quotient + ((remainder != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


@operator("Mod")
def modulo(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """The remainder of a / b with the sign of b, or with the sign of a where `fmod` is 1."""
    _same_type(a, b)
    return np.asarray((np.fmod if fmod else np.mod)(widen(a), widen(b))).astype(a.dtype)


@operator("Pow")
def power(base: Array, exponent: Array) -> Array:
    """base ** exponent, of the base's type; the two types may differ."""
    x, y = widen(base), widen(exponent)
    if not is_float(base) and (is_float(exponent) or (y < 0).any()):
        x = x.astype(np.float64)
    if is_float(base) and not is_float(exponent):
        y = y.astype(x.dtype)
    return np.asarray(np.power(x, y)).astype(base.dtype)


@operator("BitShift")
def bit_shift(x: Array, amount: Array, *, direction: str) -> Array:
    """Unsigned integers moved by `amount` bits, "LEFT" or "RIGHT"."""
    return np.asarray((np.left_shift if direction == "LEFT" else np.right_shift)(x, amount)).astype(x.dtype)


@operator("Max")
def maximum(*tensors: Array) -> Array:
    """The largest of all inputs; nan wins."""
    _same_type(*tensors)
    return np.asarray(functools.reduce(np.maximum, map(widen, tensors))).astype(tensors[0].dtype)


@operator("Min")
def minimum(*tensors: Array) -> Array:
    """The smallest of all inputs; nan wins."""
    _same_type(*tensors)
    return np.asarray(functools.reduce(np.minimum, map(widen, tensors))).astype(tensors[0].dtype)


@operator("Sum")
def total(*tensors: Array) -> Array:
    """The sum of all inputs, from left to right."""
    _same_type(*tensors)
    return np.asarray(functools.reduce(np.add, map(widen, tensors))).astype(tensors[0].dtype)


@operator("Mean")
def mean(*tensors: Array) -> Array:
    """The sum of all inputs over their number."""
    _same_type(*tensors)
    return np.asarray(functools.reduce(np.add, map(widen, tensors)) / len(tensors)).astype(tensors[0].dtype)


@operator("Where")
def where(condition: Array, x: Array, y: Array) -> Array:
    """x where the condition holds, else y."""
    _same_type(x, y)
    return np.where(condition, x, y)


@operator("Clip")
def clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """min(max(x, low), high): `high` where the two limits cross."""
    value = widen(x)
    if low is not None:
        value = np.maximum(value, widen(low).reshape(()))
    if high is not None:
        value = np.minimum(value, widen(high).reshape(()))
    return np.asarray(value).astype(x.dtype)


@operator("IsNaN")
def is_nan(x: Array) -> Array:
    """True for nan."""
    return np.asarray(np.isnan(widen(x)))


@operator("IsInf")
def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """True for the infinities asked for."""
    value = widen(x)
    infinite = np.isinf(value)
    return np.asarray(infinite & (((value > 0) & bool(detect_positive)) | ((value < 0) & bool(detect_negative))))


@operator("Identity")
def identity(x: Any) -> Any:
    """x."""
    return x


@operator("Cast")
def cast(x: Array, *, to: int, saturate: int = 1) -> Array:
    """x in another type, nearest value (halves to even); floats become integers by cutting off the fraction.

    `saturate` clips what is too large for a float8 type to its largest value.
    """
    return convert_type(x, numpy_dtype(to), saturate=bool(saturate))


@operator("CastLike")
def cast_like(x: Array, like: Array, *, saturate: int = 1) -> Array:
    """x in the type of `like`, as `cast`."""
    return convert_type(x, like.dtype, saturate=bool(saturate))


def convert_type(x: Array, dtype: np.dtype[Any], *, saturate: bool) -> Array:
    """x as `dtype`; with `saturate`, values beyond the range of a float8 type become its largest."""
    value = widen(x)
    if saturate and dtype.name.startswith("float8"):
        import ml_dtypes

        limit = float(ml_dtypes.finfo(dtype).max)
        value = np.clip(value, -limit, limit)
    if dtype.name in ("int4", "uint4", "int2", "uint2") and is_float(x):
        value = np.trunc(value).astype(np.int64)
    return np.asarray(value).astype(dtype)
