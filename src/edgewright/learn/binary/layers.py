"""BinaryConv2d and BinaryLinear: layers of signs with float weights behind them, and RPReLU.

Both look at the signs of what they are given, pad with a sign, and multiply by two values for each filter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import EdgewrightError
from edgewright.learn.binary.method import METHODS, Method
from edgewright.learn.binary.signs import sign
from edgewright.learn.binary.weights import Binarized, binarize

_IRNET = METHODS["irnet"]


class Binary(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """What both layers share.

    Attributes:
        weight: f32[M, ...], learnt.
        method: How weights and activations become binary.
        bias: f32[M], or None.
        threshold: What activations are compared with, broadcasting to them; None for 0.
        spread: Half the distance of AdaBin's two activations, f32[]; None elsewhere.
        t: EDE's t, f32[].
        k: EDE's k, f32[].
    """

    def __init__(self, shape: tuple[int, ...], method: Method, *, bias: bool, channels: int) -> None:
        super().__init__()
        if min(shape) < 1:
            raise EdgewrightError("E103", f"a binary layer with weights {list(shape)}: sizes are positive")
        self.method = method
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        places = [1] * (len(shape) - 2)
        adaptive = method.weights == "adabin"
        learnt = torch.zeros(1, *places) if adaptive else torch.zeros(channels, *places) if method.thresholds else None
        self.threshold = None if learnt is None else nn.Parameter(learnt)
        self.spread = nn.Parameter(torch.ones(())) if adaptive else None
        self.register_buffer("t", torch.ones(()), persistent=False)
        self.register_buffer("k", torch.ones(()), persistent=False)

    def signs(self, x: Tensor) -> Tensor:
        """The signs of f32[N, C, ...], of its shape."""
        how = {"t": self.t, "k": self.k}
        if self.spread is not None:  # AdaBin measures in units of the distance of its two values
            return sign((x - self.threshold) / self.half(), self.method.gradient, **how)
        return sign(x, self.method.gradient, threshold=self.threshold, **how)

    def half(self) -> Tensor:
        """Half the distance of AdaBin's two activations, f32[], above 0."""
        assert self.spread is not None
        return self.spread.abs().clamp(min=1e-4)

    def binarized(self) -> Binarized:
        """The two values of each filter."""
        return binarize(self.weight, self.method.weights, self.method.weight_gradient, self.t, self.k)

    def activations(self, signs: Tensor) -> Tensor:
        """What the signs stand for: themselves, or AdaBin's two values."""
        return signs if self.spread is None else signs * self.half() + self.threshold


class BinaryConv2d(Binary):
    """A binary convolution: f32[N, C, H, W] -> f32[N, M, OH, OW].

    Args:
        channels: C.
        filters: M.
        kernel: Its height and width.
        stride: Down and across.
        padding: On all sides, filled with the method's sign.
        dilation: Down and across.
        groups: Groups of channels.
        bias: Add a number for each filter.
        method: How weights and activations become binary.

    Raises:
        EdgewrightError: E103 for sizes that cannot be.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        method: Method = _IRNET,
    ) -> None:
        if min(stride, dilation, groups) < 1 or padding < 0 or channels % groups or filters % groups:
            raise EdgewrightError(
                "E103",
                f"a binary convolution of {channels} to {filters} channels in {groups} groups, stride {stride}, padding "
                f"{padding}, dilation {dilation} cannot be",
            )
        if groups > 1 and method.weights == "adabin":
            raise EdgewrightError("E103", f"AdaBin has no groups of channels, but the convolution has {groups}")
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        super().__init__((filters, channels // groups, high, wide), method, bias=bias, channels=channels)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, M, OH, OW]."""
        signs = self.signs(x)
        if self.padding:
            signs = functional.pad(signs, (self.padding,) * 4, value=float(self.method.pad_value))
        made: Tensor = functional.conv2d(
            self.activations(signs), self.binarized().values(), self.bias, self.stride, 0, self.dilation, self.groups
        )
        return made


class BinaryLinear(Binary):
    """A binary linear layer: f32[N, C] -> f32[N, M].

    Args:
        channels: C.
        filters: M.
        bias: Add a number for each filter.
        method: How weights and activations become binary.

    Raises:
        EdgewrightError: E103 for sizes that cannot be.
    """

    def __init__(self, channels: int, filters: int, *, bias: bool = False, method: Method = _IRNET) -> None:
        super().__init__((filters, channels), method, bias=bias, channels=channels)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C] -> f32[N, M]."""
        made: Tensor = functional.linear(self.activations(self.signs(x)), self.binarized().values(), self.bias)
        return made


class RPReLU(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """x - before, times a slope where that is negative, + after: three learnt numbers for each channel.

    Source: Liu et al. 2020, "ReActNet", section 4.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels, 1, 1))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.after = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W], of the same shape."""
        made: Tensor = functional.prelu(x - self.before, self.slope) + self.after
        return made
