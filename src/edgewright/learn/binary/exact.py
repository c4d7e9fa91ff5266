"""A first layer whose sums are exact in float32, so that every order of summing, on every CPU, gives the same to the last bit.

A float sum rounds in the order in which it is taken, and runtimes take it in different ones. Where a sum lies within that
rounding of a threshold, two of them see two signs, and everything behind is computed from other inputs. But where inputs are
multiples of a power of two, as pixels p in (p - 128) / 64 are, and weights are rounded to multiples of another, all products
and partial sums are multiples of the product of both. If none is beyond 2^24 times that, float32 holds each of them, and
every order gives the same. Binary layers sum whole numbers anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import EdgewrightError

#: Whole numbers up to here are exact in float32.
_EXACT = 2.0**24
#: Wider windows are computed by transforms that round (minimal filtering), as the runtime `native` does.
_WIDEST = 4
#: Levels that the largest weight of a filter has at least, either way.
_LEAST = 128


@dataclass(frozen=True)
class Levels:
    """The values that a network's input takes: multiples of `step`, at most `most` either way.

    Photos that are prepared as (pixel - 128) / 64 have `Levels(1 / 64, 2)`.

    Raises:
        EdgewrightError: E103 for a step that is no power of two, or a `most` that is not above 0 and finite.
    """

    step: float
    most: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0 and math.frexp(self.step)[0] == 0.5):
            raise EdgewrightError("E103", f"`step` is {self.step}, but must be a power of two, such as 1 / 64")
        if not (math.isfinite(self.most) and self.most > 0):
            raise EdgewrightError("E103", f"`most` is {self.most}, but must be above 0")

    def check(self, x: Tensor) -> None:
        """Raises EdgewrightError E103 for inputs that are not of these levels."""
        if not bool(((x / self.step).frac() == 0).all() and (x.abs() <= self.most).all()):
            raise EdgewrightError(
                "E103", f"an input is no multiple of {self.step} within {self.most} either way, as it was said to be"
            )


class ExactConv2d(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """A convolution with the batch norm behind it folded in, and weights that make its sums exact."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, levels: Levels) -> None:
        super().__init__()
        self.levels = levels
        self.how = (conv.stride, conv.padding, conv.dilation, conv.groups)
        weight, bias = _rounded(*_folded(conv, norm), levels)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, M, OH, OW].

        Raises:
            EdgewrightError: E103 for an input of other levels.
        """
        if not torch.compiler.is_compiling():  # what is being exported has no values yet
            self.levels.check(x)
        made: Tensor = functional.conv2d(x, self.weight, self.bias, *self.how)
        return made


def make_exact(network: nn.Module, levels: Levels) -> None:
    """Replace the first convolution of the network, and the batch norm right behind it, in place.

    Raises:
        EdgewrightError: E103 where the first module with weights is no float `Conv2d` in an `nn.Sequential`, or its window is
            wider than 4.
    """
    weighted = (name for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False)))
    first = next(weighted, "")
    parent = network.get_submodule(first.rpartition(".")[0])
    conv = network.get_submodule(first)
    if not (type(conv) is nn.Conv2d and isinstance(parent, nn.Sequential) and conv.padding_mode == "zeros"):
        raise EdgewrightError(
            "E103",
            f"`{first}`, the first layer, is no Conv2d padded with zeros in a Sequential, whose sums could be exact",
        )
    if max(conv.kernel_size) > _WIDEST:
        raise EdgewrightError(
            "E103",
            f"`{first}`, the first layer, has a window of {list(conv.kernel_size)}, but sums are exact up to {_WIDEST}",
        )
    place = list(parent).index(conv)
    behind = parent[place + 1] if place + 1 < len(parent) else None
    norm = behind if isinstance(behind, nn.BatchNorm2d) else None
    parent[place] = ExactConv2d(conv, norm, levels)
    if norm is not None:
        parent[place + 1] = nn.Identity()


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weights f64[M, C, kh, kw] and biases f64[M] of both."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight)).to(weight) if conv.bias is None else conv.bias.detach().double()
    if norm is None:
        return weight, bias
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight.detach()
    bias = (bias - norm.running_mean) * factor
    bias = bias if norm.bias is None else bias + norm.bias.detach()
    return weight * factor[:, None, None, None], bias


def _rounded(weight: Tensor, bias: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """The same in float32, each filter in multiples of its own power of two, the smallest at which all sums are exact."""
    flat, limit = weight.flatten(1), _EXACT * levels.step

    def rounded(step: Tensor) -> tuple[Tensor, Tensor]:
        return (flat / step[:, None]).round() * step[:, None], (
            bias / (step * levels.step)
        ).round() * step * levels.step

    def beyond(step: Tensor, rows: Tensor, shift: Tensor) -> Tensor:
        return rows.abs().sum(1) * levels.most + shift.abs() > limit * step

    largest = (flat.abs().sum(1) * levels.most + bias.abs()).clamp_min(torch.finfo(torch.float32).tiny)
    step = torch.exp2(torch.ceil(torch.log2(largest / limit)))
    while bool((more := beyond(step, *rounded(step))).any()):  # rounding makes weights larger, by half a step at most
        step = torch.where(more, 2 * step, step)
    if bool((flat.abs().amax(1) < _LEAST * step).logical_and(flat.abs().amax(1) > 0).any()):
        raise EdgewrightError(
            "E103",
            f"inputs up to {levels.most} in steps of {levels.step} leave a filter fewer than {_LEAST} levels either way",
        )
    rows, shift = rounded(step)
    return rows.reshape(weight.shape).float(), shift.float()
