"""Fast-SCNN in torch: learning to downsample, global feature extractor, feature fusion, classifier.

The topology is the one that was published; the code is our own. Two things differ, both because photos here are small
and phones run fixed windows best. The first part shrinks 4 times, not 8, so that poles stay wider than a position. The
pyramid pools by fixed windows that divide the map, nearest to 1, 2, 3 and 6 parts a side, so that every runtime has it.
Source: Poudel, Liwicki, Cipolla 2019, "Fast-SCNN: Fast Semantic Segmentation Network", table 1 and section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_PARTS = (1, 2, 3, 6)  # a side, of the pyramid
_EXPANSION = 6


def conv(
    width_in: int, width_out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: bool = True
) -> nn.Module:
    """Convolution, batch norm and, if wanted, Relu; f32[N, C, H, W] -> f32[N, C', ceil(H / stride), ceil(W / stride)]."""
    layers: list[nn.Module] = [
        nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width_out),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


def separable(width_in: int, width_out: int, stride: int = 1) -> nn.Module:
    """A depthwise 3 x 3 and a pointwise convolution."""
    return nn.Sequential(conv(width_in, width_in, 3, stride, groups=width_in), conv(width_in, width_out))


class Bottleneck(nn.Module):
    """Expand, depthwise, project, with a shortcut where shapes allow one. Source: Sandler et al. 2018, MobileNetV2."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = _EXPANSION * width_in
        self.layers = nn.Sequential(
            conv(width_in, inner),
            conv(inner, inner, 3, stride, groups=inner),
            conv(inner, width_out, act=False),
        )
        self.shortcut = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, C', ceil(H / stride), ceil(W / stride)]."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class Pyramid(nn.Module):
    """Means over windows of several sizes beside the map itself. Source: Zhao et al. 2017, PSPNet."""

    def __init__(self, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.windows = [(_window(size[0], parts), _window(size[1], parts)) for parts in _PARTS]
        self.branches = nn.ModuleList(conv(width, width // len(_PARTS)) for _ in _PARTS)
        self.join = conv(width + width // len(_PARTS) * len(_PARTS), width)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> the same shape; H and W are those that the windows were chosen for."""
        means = [
            _resized(branch(functional.avg_pool2d(x, window, window)), self.size)
            for branch, window in zip(self.branches, self.windows, strict=True)
        ]
        return self.join(torch.cat([x, *means], dim=1))


class FastSCNN(nn.Module):
    """The network: f32[N, 3, H, W] -> scores f32[N, classes, H, W].

    Args:
        classes: Number of classes.
        size: Height and width of the input in pixels.
        width: Factor for all widths; 1 is the published network.
    """

    def __init__(self, classes: int, size: tuple[int, int], width: float = 1.0) -> None:
        super().__init__()
        stem, low, high, middle, deep = (max(8, round(width * channels / 8) * 8) for channels in (32, 48, 64, 96, 128))
        self.size = size
        self.fine = _halved(size, 2)
        self.downsample = nn.Sequential(conv(3, stem, 3, 2), separable(stem, low, 2), separable(low, high))
        stages: Sequence[tuple[int, int, int]] = ((high, high, 2), (high, middle, 2), (middle, deep, 1))
        blocks = [
            Bottleneck(before if first else after, after, stride if first else 1)
            for before, after, stride in stages
            for first in (True, False, False)
        ]
        self.extract = nn.Sequential(*blocks)
        self.pyramid = Pyramid(deep, _halved(size, 4))
        self.fuse_fine = conv(high, deep, act=False)
        self.fuse_depthwise = conv(deep, deep, 3, groups=deep)
        self.fuse_coarse = conv(deep, deep, act=False)
        self.classify = nn.Sequential(separable(deep, deep), separable(deep, deep), nn.Dropout(0.1))
        self.score = nn.Conv2d(deep, classes, 1)
        self.helper = nn.Conv2d(deep, classes, 1)  # scores of the coarse map: a second loss, never exported
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Scores of every pixel, f32[N, classes, H, W]."""
        return self.both(x)[0]

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of every pixel, and those of the coarse map, f32[N, classes, H / 16, W / 16]."""
        fine = self.downsample(x)
        coarse = self.pyramid(self.extract(fine))
        wide = self.fuse_coarse(self.fuse_depthwise(_resized(coarse, self.fine)))
        joined = self.activate(self.fuse_fine(fine) + wide)
        scores = self.score(self.classify(joined))
        return _resized(scores, self.size), self.helper(coarse)


def _window(side: int, parts: int) -> int:
    """The divisor of `side` that is nearest to a `parts`-th of it."""
    return min((size for size in range(1, side + 1) if side % size == 0), key=lambda size: abs(size - side / parts))


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    for _ in range(times):
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return size


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)
