"""A trained network as what is computed: what its binary layers make of their weights is made once, and batch norms with
their statistics become a factor and a shift.

Every step is one operation that rounds to float32 once, so that numpy, an ONNX runtime without fusions and the kernels
give the same to the last bit wherever a binary layer's factors are powers of two (Libra-PB) or none.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.learn.binary.exact import Levels, make_exact
from edgewright.learn.binary.layers import Binary, BinaryConv2d


def deployed(network: nn.Module, inputs: Levels | None = None) -> nn.Module:
    """A copy of the network in which binary layers and batch norms are deployed ones, in evaluation mode.

    Args:
        network: Any module with layers of this package. It is not changed.
        inputs: What values the input takes; then the sums of the first layer, a `Conv2d`, are exact ([exact.py](exact.py)).

    Raises:
        EdgewrightError: E103 where `inputs` is given and the first layer is none whose sums could be exact.
    """
    made = copy.deepcopy(network).eval()
    with torch.no_grad():
        if inputs is not None:
            make_exact(made, inputs)
        return _replaced(made)


def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, Binary):
        return DeployedConv2d(module) if isinstance(module, BinaryConv2d) else DeployedLinear(module)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return Scaled(module)
    for name, child in module.named_children():
        setattr(module, name, _replaced(child))
    return module


class Scaled(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """x * factor + shift for each channel: a batch norm with its statistics."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        places = (-1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (-1,)
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        shift = -norm.running_mean * factor
        shift = shift if norm.bias is None else shift + norm.bias
        self.register_buffer("factor", factor.detach().reshape(places))
        self.register_buffer("shift", shift.detach().reshape(places))

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, ...], of the same shape."""
        made: Tensor = x * self.factor + self.shift
        return made


class _Deployed(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """Signs by comparison, their products with signs, factors where there are any.

    AdaBin's values h s + b and a w + o multiply to h a (s w) + h o s + b (a w + o): the sum over s is one more filter of
    +1, the last term a constant.
    """

    def __init__(self, layer: Binary) -> None:
        super().__init__()
        parts = layer.binarized()
        signs, factor, shift = parts.signs, parts.scale, layer.bias
        threshold = torch.zeros(()) if layer.threshold is None else layer.threshold
        self.filters = len(signs)
        summed = None
        if parts.offset is not None:
            assert layer.threshold is not None
            half, ones = layer.half(), torch.ones_like(signs[:1])
            constant = layer.threshold.reshape(()) * parts.values().flatten(1).sum(1)
            shift = constant if shift is None else shift + constant
            factor, summed = factor * half, parts.offset * half
            signs = torch.cat((signs, ones))
        places = (-1, *[1] * (signs.ndim - 2))
        self.register_buffer("threshold", threshold.detach().clone())
        self.register_buffer("weight", signs.detach().clone())
        plain = bool((factor == 1).all())
        for name, vector in (("factor", None if plain else factor), ("shift", shift), ("summed", summed)):
            self.register_buffer(name, None if vector is None else vector.detach().clone().reshape(places))

    def _signs(self, x: Tensor) -> Tensor:
        return torch.where(x < self.threshold, -1.0, 1.0)

    def _finished(self, dots: Tensor) -> Tensor:
        y = dots if self.summed is None else dots[:, : self.filters]
        y = y if self.factor is None else y * self.factor
        y = y if self.summed is None else y + dots[:, self.filters :] * self.summed
        return y if self.shift is None else y + self.shift


class DeployedConv2d(_Deployed):
    """`BinaryConv2d`, deployed."""

    def __init__(self, layer: BinaryConv2d) -> None:
        super().__init__(layer)
        self.padding, self.pad_value = layer.padding, float(layer.method.pad_value)
        self.how = (layer.stride, 0, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, M, OH, OW]."""
        signs = self._signs(x)
        if self.padding:
            signs = functional.pad(signs, (self.padding,) * 4, value=self.pad_value)
        return self._finished(functional.conv2d(signs, self.weight, None, *self.how))


class DeployedLinear(_Deployed):
    """`BinaryLinear`, deployed."""

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C] -> f32[N, M]."""
        return self._finished(functional.linear(self._signs(x), self.weight))
