"""Activations, softmax included. Narrow floats are computed in float32 and rounded once to the type of the input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgewright.runtimes.reference.elementwise import error_function
from edgewright.runtimes.reference.operators import Array, axis_of, operator, widen


def _like(x: Array, value: Array) -> Array:
    return np.asarray(value).astype(x.dtype)


@operator("Relu")
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _like(x, np.maximum(widen(x), 0))


@operator("LeakyRelu")
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """x where it is positive, else alpha x."""
    value = widen(x)
    return _like(x, np.where(value < 0, value * alpha, value))


@operator("PRelu")
def prelu(x: Array, slope: Array) -> Array:
    """x where it is positive, else slope x; the slope broadcasts to x, never the other way."""
    value = widen(x)
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise ValueError(f"slope {list(slope.shape)} does not broadcast to x {list(x.shape)}")
    return _like(x, np.where(value < 0, value * widen(slope), value))


@operator("ThresholdedRelu")
def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where it is above alpha, else 0."""
    value = widen(x)
    return _like(x, np.where(value > np.float32(alpha), value, 0))


@operator("Elu")
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha (exp(x) - 1)."""
    value = widen(x)
    return _like(x, np.where(value < 0, alpha * np.expm1(np.minimum(value, 0)), value))


@operator("Celu")
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    value = widen(x)
    return _like(x, np.maximum(value, 0) + np.minimum(alpha * np.expm1(np.minimum(value, 0) / alpha), 0))


@operator("Selu")
def selu(x: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Array:
    """gamma x where it is positive, else gamma alpha (exp(x) - 1)."""
    value = widen(x)
    return _like(x, gamma * np.where(value < 0, alpha * np.expm1(np.minimum(value, 0)), value))


@operator("Sigmoid")
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _like(x, 1 / (1 + np.exp(-widen(x))))


@operator("HardSigmoid")
def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """alpha x + beta, held between 0 and 1."""
    return _like(x, np.clip(alpha * widen(x) + beta, 0, 1))


@operator("HardSwish")
def hard_swish(x: Array) -> Array:
    """x times the hard sigmoid with alpha 1/6 and beta 1/2."""
    value = widen(x)
    return _like(x, value * np.clip(value * np.float32(1 / 6) + np.float32(0.5), 0, 1))


@operator("Softplus")
def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return _like(x, np.logaddexp(widen(x), 0))


@operator("Softsign")
def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    value = widen(x)
    return _like(x, value / (1 + np.abs(value)))


@operator("Mish")
def mish(x: Array) -> Array:
    """x tanh(log(1 + exp(x)))."""
    value = widen(x)
    return _like(x, value * np.tanh(np.logaddexp(value, 0)))


@operator("Gelu")
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """x times the normal distribution function; "tanh" is its usual approximation.

    Source: Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2.
    """
    value = widen(x)
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)
        return _like(x, 0.5 * value * (1 + np.tanh(inner)))
    return _like(x, 0.5 * value * (1 + error_function(value / math.sqrt(2))))


@operator("Shrink")
def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    value = widen(x)
    return _like(x, np.where(value < -lambd, value + bias, np.where(value > lambd, value - bias, 0)))


@operator("Softmax")
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) over its sum along `axis`."""
    return _like(x, _exponentials(x, axis)[0])


@operator("LogSoftmax")
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """The logarithm of softmax, without overflow."""
    _, shifted, total = _exponentials(x, axis)
    return _like(x, shifted - np.log(total))


def _exponentials(x: Array, axis: int) -> tuple[Array, Array, Array]:
    value, axis = widen(x), axis_of(axis, x.ndim)
    shifted = value - np.max(value, axis=axis, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=axis, keepdims=True)
    return exponentials / total, shifted, total


@operator("Hardmax")
def hardmax(x: Array, *, axis: int = -1) -> Array:
    """1 at the first largest value along `axis`, else 0."""
    axis = axis_of(axis, x.ndim)
    largest = np.expand_dims(np.argmax(widen(x), axis=axis), axis)
    positions = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return _like(x, positions == largest)


#: Activations that recurrent operators name in their `activations`, with the standard's default alpha and beta.
#: Source: ONNX operator specification, LSTM, "Activation functions".
RECURRENT: dict[str, tuple[Callable[[Array, float, float], Array], float, float]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, 1.0, 0.0),
    "elu": (lambda x, alpha, beta: elu(x, alpha=alpha), 1.0, 0.0),
    "hardsigmoid": (lambda x, alpha, beta: hard_sigmoid(x, alpha=alpha, beta=beta), 0.2, 0.5),
    "leakyrelu": (lambda x, alpha, beta: leaky_relu(x, alpha=alpha), 0.01, 0.0),
    "relu": (lambda x, alpha, beta: relu(x), 0.0, 0.0),
    "scaledtanh": (lambda x, alpha, beta: alpha * np.tanh(beta * x), 1.0, 1.0),
    "sigmoid": (lambda x, alpha, beta: sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, alpha, beta: softplus(x), 0.0, 0.0),
    "softsign": (lambda x, alpha, beta: softsign(x), 0.0, 0.0),
    "tanh": (lambda x, alpha, beta: np.tanh(x), 0.0, 0.0),
    "thresholdedrelu": (lambda x, alpha, beta: thresholded_relu(x, alpha=alpha), 1.0, 0.0),
}
