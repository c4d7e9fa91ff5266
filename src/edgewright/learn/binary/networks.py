"""Binary ResNet-20, ResNet-18 and VGG-small: the first and the last layer are float, all others binary.

A shortcut runs around every binary convolution of the ResNets (Liu et al. 2018, "Bi-Real Net", section 3.1), or around every
two where the method says so. Where a stage begins it skips every other pixel and fills missing channels with zeros
(ResNet-20), or is an average pool and a float 1 x 1 convolution (ResNet-18). A batch norm stands before ResNet-20's
classifier.
Source: Qin et al. 2020, "Forward and Backward Information Retention", section 4, and the authors' networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import EdgewrightError
from edgewright.learn.binary.layers import BinaryConv2d, RPReLU
from edgewright.learn.binary.method import METHODS, Method

_IRNET = METHODS["irnet"]


class _Thinned(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """Every other pixel, with channels of zeros on both sides: f32[N, C, H, W] -> f32[N, 2 C, H / 2, W / 2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        each = self.channels // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, each, each))


class Unit(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """activation(norm(3 x 3 binary convolution) + what leads around it, if anything)."""

    def __init__(self, channels: int, filters: int, stride: int, method: Method, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv = BinaryConv2d(channels, filters, 3, stride=stride, padding=1, method=method)
        self.norm = nn.BatchNorm2d(filters)
        self.shortcut = shortcut
        self.activate = _activation(filters, method)

    def forward(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        """f32[N, C, H, W] -> f32[N, M, H / stride, W / stride]; `around` is added where the unit has no shortcut."""
        y = self.norm(self.conv(x))
        if self.shortcut is not None:
            around = self.shortcut(x)
        made: Tensor = self.activate(y if around is None else y + around)
        return made


class Pair(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """Two units with one shortcut around both, as in float residual networks."""

    def __init__(self, channels: int, filters: int, stride: int, method: Method, shortcut: nn.Module) -> None:
        super().__init__()
        self.first = Unit(channels, filters, stride, method, None)
        self.second = Unit(filters, filters, 1, method, None)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, M, H / stride, W / stride]."""
        y: Tensor = self.second(self.first(x), self.shortcut(x))
        return y


def _shortcut(channels: int, filters: int, stride: int, *, thinned: bool) -> nn.Module:
    if stride == 1 and channels == filters:
        return nn.Identity()
    if thinned:
        return _Thinned(channels)
    return nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters))


def _activation(channels: int, method: Method) -> nn.Module:
    if method.activation == "rprelu":
        return RPReLU(channels)
    return nn.Hardtanh() if method.activation == "hardtanh" else nn.Identity()


def _stages(widths: tuple[int, ...], pairs: int, method: Method, *, thinned: bool) -> nn.Sequential:
    """`pairs` of convolutions in each stage; all stages but the first begin with a stride."""
    made: list[nn.Module] = []
    before = widths[0]
    for stage, width in enumerate(widths):
        for number in range(pairs):
            stride = 2 if stage and not number else 1
            around = _shortcut(before, width, stride, thinned=thinned)
            if method.shortcuts:
                made += [Unit(before, width, stride, method, around), Unit(width, width, 1, method, nn.Identity())]
            else:
                made.append(Pair(before, width, stride, method, around))
            before = width
    return nn.Sequential(*made)


class ResNet(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """f32[N, 3, H, W] -> scores f32[N, classes]."""

    def __init__(self, stem: nn.Module, stages: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, stages, head

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes, f32[N, classes]."""
        scores: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return scores


def resnet20(classes: int = 10, *, depth: int = 20, method: Method = _IRNET) -> nn.Module:
    """ResNet of 6 n + 2 layers for pictures of 32 x 32, widths 16, 32 and 64.

    Raises:
        EdgewrightError: E103 for a depth that is none.
    """
    if depth < 8 or (depth - 2) % 6:
        raise EdgewrightError("E103", f"depth is {depth}, but must be 6 n + 2, such as 20 or 32")
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), _activation(16, method))
    head = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, classes))
    return ResNet(stem, _stages((16, 32, 64), (depth - 2) // 6, method, thinned=True), head)


def resnet18(classes: int = 10, *, large: bool = False, method: Method = _IRNET) -> nn.Module:
    """ResNet-18, widths 64 to 512, for pictures of 32 x 32, or `large` ones of about 224 x 224."""
    if large:
        first = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)]
    else:
        first = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)]
    stem = nn.Sequential(*first, _activation(64, method))
    return ResNet(stem, _stages((64, 128, 256, 512), 2, method, thinned=False), nn.Linear(512, classes))


class VggSmall(nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """Six convolutions and a linear layer, f32[N, 3, 32, 32] -> f32[N, classes]; no shortcuts."""

    def __init__(self, classes: int, method: Method, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers.append(_activation(width, method))
        before = width
        for times, pooled in ((1, True), (2, False), (2, True), (4, False), (4, True)):
            filters = times * width
            layers.append(BinaryConv2d(before, filters, 3, padding=1, method=method))
            layers += [nn.MaxPool2d(2)] if pooled else []
            layers += [nn.BatchNorm2d(filters), _activation(filters, method)]
            before = filters
        self.features = nn.Sequential(*layers)
        self.score = nn.Linear(before * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes, f32[N, classes]."""
        scores: Tensor = self.score(torch.flatten(self.features(x), 1))
        return scores


def vgg_small(classes: int = 10, *, width: int = 128, method: Method = _IRNET) -> nn.Module:
    """VGG-small for pictures of 32 x 32; the published network has `width` 128."""
    return VggSmall(classes, method, width)


#: Networks for pictures of 32 x 32 by name: (classes, method) -> network.
NETWORKS: dict[str, Callable[[int, Method], nn.Module]] = {
    "resnet20": lambda classes, how: resnet20(classes, method=how),
    "resnet8": lambda classes, how: resnet20(classes, depth=8, method=how),
    "resnet18": lambda classes, how: resnet18(classes, method=how),
    "vgg-small": lambda classes, how: vgg_small(classes, method=how),
}
