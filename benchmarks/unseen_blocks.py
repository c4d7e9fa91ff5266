"""What the networks of architectures_unseen.py are written with: the register of families, and blocks that several share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Shapes = tuple[tuple[int, ...], ...]
CLASSES = 5


@dataclass(frozen=True)
class Family:
    """A network and what is expected of it.

    Attributes:
        build: Makes the module.
        shapes: Of its inputs.
        stays: Output positions of layers that have to stay, layers counted as often as they run.
        free: Channels that can go, each without the others.
        whole: Inputs are integers below this, or None where they are floats.
    """

    build: Callable[[], nn.Module]
    shapes: Shapes
    stays: int
    free: int
    whole: int | None = None


FAMILIES: dict[str, Family] = {}


def family(*shapes: tuple[int, ...], stays: int, free: int, whole: int | None = None) -> Callable[[Any], Any]:
    """Register a module under its class's name."""

    def register(kind: Any) -> Any:
        FAMILIES[kind.__name__] = Family(kind, shapes, stays, free, whole)
        return kind

    return register


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Random weights of which none is zero or one by design: norms, biases, scales, statistics."""
    torch.manual_seed(seed)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            with torch.no_grad():
                if parameter.ndim > 1:
                    fan = parameter[0].numel()
                    parameter.copy_(torch.randn_like(parameter) / fan**0.5)
                elif "weight" in name:
                    parameter.copy_(torch.rand_like(parameter) + 0.5)
                else:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_var is not None:
            part.running_mean.copy_(torch.randn_like(part.running_mean) * 0.3)
            part.running_var.copy_(torch.rand_like(part.running_var) + 0.5)
    return module.eval()


def cbr(i: int, o: int, k: Any = 1, s: int = 1, g: int = 1, d: int = 1, act: Any = nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    sides = (k, k) if isinstance(k, int) else k
    pads = tuple(d * (side // 2) for side in sides)
    conv = nn.Conv2d(i, o, sides, s, pads, d, g, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), *([act()] if act else []))


def cbr1(i: int, o: int, k: int = 1, g: int = 1, d: int = 1, act: Any = nn.ReLU) -> nn.Sequential:
    """The same along one axis."""
    conv = nn.Conv1d(i, o, k, padding=d * (k // 2), dilation=d, groups=g, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(o), *([act()] if act else []))


class Head(nn.Module):
    """Mean over places, then classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((2, 3)))


class Excite(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    """Heads over tokens, queries, keys and values from one projection laid out as (3, heads, depth)."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.qkv, self.proj = nn.Linear(dim, 3 * heads * depth), nn.Linear(heads * depth, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * self.depth**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, length, self.heads * self.depth))


class Cross(nn.Module):
    """Heads with keys and values from elsewhere, three projections."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.q, self.k, self.v = (nn.Linear(dim, heads * depth) for _ in range(3))
        self.proj = nn.Linear(heads * depth, dim)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.depth).transpose(1, 2)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(other)), self.split(self.v(other))
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(found.transpose(1, 2).flatten(2))


def mlp(dim: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))


def tokens(x: torch.Tensor) -> torch.Tensor:
    """f32[N, C, H, W] as f32[N, H x W, C]."""
    return x.flatten(2).transpose(1, 2)


def places(x: torch.Tensor, side: int) -> torch.Tensor:
    """And back."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, side)
