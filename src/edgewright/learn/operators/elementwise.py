"""Element by element: arithmetic, comparison, logic and casts. All binary operators broadcast as numpy does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import operator, scalar, together, torch_dtype

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # halves to even
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def evaluate(x: Tensor) -> Tensor:
        return function(x)

    return evaluate


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def evaluate(a: Tensor, b: Tensor) -> Tensor:
        return function(*together(a, b))

    return evaluate


for _name, _one in _UNARY.items():
    operator(_name)(_unary(_one))
for _name, _two in _BINARY.items():
    operator(_name)(_binary(_two))


@operator("Div")
def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b; integers are cut towards zero, as in C."""
    a, b = together(a, b)
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@operator("Mod")
def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder of a / b with the sign of b, or with the sign of a where `fmod` is 1."""
    return (torch.fmod if fmod else torch.remainder)(*together(a, b))


@operator("Pow")
def power(base: Tensor, exponent: Tensor) -> Tensor:
    """base ** exponent, of the base's type; the two types may differ."""
    base, exponent = together(base, exponent)
    if exponent.numel() == 1 and not exponent.requires_grad:  # a number: no logarithm of the base is needed
        return (
            torch.pow(base, exponent.item()).to(base.dtype).expand(torch.broadcast_shapes(base.shape, exponent.shape))
        )
    return torch.pow(base, exponent).to(base.dtype)


@operator("Max")
def maximum(*tensors: Tensor) -> Tensor:
    """The largest of all inputs."""
    return functools.reduce(torch.maximum, together(*tensors))


@operator("Min")
def minimum(*tensors: Tensor) -> Tensor:
    """The smallest of all inputs."""
    return functools.reduce(torch.minimum, together(*tensors))


@operator("Sum")
def total(*tensors: Tensor) -> Tensor:
    """The sum of all inputs, from left to right."""
    return functools.reduce(torch.add, together(*tensors))


@operator("Mean")
def mean(*tensors: Tensor) -> Tensor:
    """The sum of all inputs over their number."""
    return total(*tensors) / len(tensors)


@operator("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, else y."""
    return torch.where(*together(condition, x, y))


@operator("Clip", host=(1, 2))
def clip(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """min(max(x, low), high): `high` where the two limits cross."""
    least, most = (None if limit is None else scalar(limit) for limit in (low, high))
    if least is None and most is None:
        return x
    if x.is_floating_point() and least is not None and most is not None and least < most:
        return functional.hardtanh(x, least, most)  # twice as fast as clamp with its gradient
    return torch.clamp(x, least, most)


@operator("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """x in another type; floats become integers by cutting off the fraction."""
    return x.to(torch_dtype(to))


@operator("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:
    """x in the type of `like`."""
    return x.to(like.dtype)


@operator("Dropout")
def dropout(x: Tensor, ratio: Any = None, training_mode: Any = None, *, seed: Any = None) -> tuple[Tensor, Tensor]:
    """x, and a mask that keeps all: deployed networks drop nothing."""
    return x, torch.ones_like(x, dtype=torch.bool)
