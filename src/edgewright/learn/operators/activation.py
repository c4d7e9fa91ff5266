"""Activations, softmax included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.learn.operators.table import operator


@operator("Relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return functional.relu(x)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x where it is positive, else alpha x."""
    return functional.leaky_relu(x, alpha)


@operator("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where it is positive, else slope x; the slope broadcasts to x."""
    return torch.where(x < 0, x * slope, x)


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is above alpha, else 0."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha (exp(x) - 1)."""
    return functional.elu(x, alpha)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return functional.celu(x, alpha)


@operator("Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    """gamma x where it is positive, else gamma alpha (exp(x) - 1)."""
    return gamma * functional.elu(x, alpha)


@operator("Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """alpha x + beta, held between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@operator("HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    """x times the hard sigmoid with alpha 1/6 and beta 1/2."""
    return functional.hardswish(x)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("Softsign")
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return functional.softsign(x)


@operator("Mish")
def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x)))."""
    return functional.mish(x)


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x times the normal distribution function; "tanh" is its usual approximation."""
    return functional.gelu(x, approximate=approximate)


@operator("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


@operator("Softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """exp(x) over its sum along `axis`."""
    return torch.softmax(x, axis)


@operator("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """The logarithm of softmax, without overflow."""
    return torch.log_softmax(x, axis)


@operator("Hardmax")
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """1 at the first largest value along `axis`, else 0: no gradient."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


#: Activations that recurrent operators name in their `activations`, with the standard's default alpha and beta.
#: Source: ONNX operator specification, LSTM, "Activation functions".
RECURRENT: dict[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, 1.0, 0.0),
    "elu": (lambda x, alpha, beta: elu(x, alpha=alpha), 1.0, 0.0),
    "hardsigmoid": (lambda x, alpha, beta: hard_sigmoid(x, alpha=alpha, beta=beta), 0.2, 0.5),
    "leakyrelu": (lambda x, alpha, beta: leaky_relu(x, alpha=alpha), 0.01, 0.0),
    "relu": (lambda x, alpha, beta: relu(x), 0.0, 0.0),
    "scaledtanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), 1.0, 1.0),
    "sigmoid": (lambda x, alpha, beta: sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, alpha, beta: softplus(x), 0.0, 0.0),
    "softsign": (lambda x, alpha, beta: softsign(x), 0.0, 0.0),
    "tanh": (lambda x, alpha, beta: torch.tanh(x), 0.0, 0.0),
    "thresholdedrelu": (lambda x, alpha, beta: thresholded_relu(x, alpha=alpha), 1.0, 0.0),
}
