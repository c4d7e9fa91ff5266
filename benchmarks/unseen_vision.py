"""Classifiers and generators of images for architectures_unseen.py, each the least network that has its family's idea."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from unseen_blocks import CLASSES, Excite, Head, cbr, family

IMAGE = (1, 3, 32, 32)


@family(IMAGE, stays=5, free=52)
class InceptionV4(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = cbr(3, 8, 3, 2), cbr(8, 8)
        self.b = nn.Sequential(cbr(8, 6), cbr(6, 6, (1, 7)), cbr(6, 8, (7, 1)))
        self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), cbr(8, 4))
        self.reduce, self.head = cbr(20, 12, 3, 2), Head(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([self.a(x), self.b(x), self.c(x)], 1)
        return self.head(torch.cat([self.reduce(x), functional.max_pool2d(x, 3, 2, 1)], 1))


@family(IMAGE, stays=5, free=16)
class SelectiveKernel(nn.Module):
    """Grouped branches: each group loses the same places, 4 of the trunk and 4 of the branches; 8 in the squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = cbr(3, 16, 3, 2), cbr(16, 16, 3, g=4), cbr(16, 16, 3, g=4, d=2)
        self.down, self.up, self.head = cbr(16, 8), nn.Conv2d(8, 32, 1), Head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        both = torch.stack([self.a(x), self.b(x)], 1)
        z = self.up(self.down(both.sum(1).mean((2, 3), keepdim=True)))
        weights = z.view(z.shape[0], 2, 16, 1, 1).softmax(1)
        return self.head((both * weights).sum(1))


@family(IMAGE, stays=5, free=28)
class SplitAttention(nn.Module):
    """ResNeSt: radix 2, the convolution's two groups are what is weighed against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = cbr(3, 16, 3, 2), cbr(16, 24, 3, g=2)
        self.down, self.up, self.head = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 24, 1), Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.stem(x))
        a, b = torch.split(x, 12, 1)
        z = self.up(torch.relu(self.down((a + b).mean((2, 3), keepdim=True))))
        u, v = torch.split(z.view(z.shape[0], 2, -1).softmax(1).reshape(z.shape[0], -1, 1, 1), 12, 1)
        return self.head(a * u + b * v)


@family(IMAGE, stays=16 + 16 + 16 + 1 + 5, free=4 + 12)
class Cbam(nn.Module):
    """Means and extremes over channels keep the trunk, and what the gate, used twice, gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = cbr(3, 16, 3, 2), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.spatial, self.conv, self.head = nn.Conv2d(2, 1, 7, padding=3), cbr(16, 12, 3), Head(12)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(torch.relu(self.down(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        largest = functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)) + self.gate(largest))
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(self.conv(x * torch.sigmoid(self.spatial(both))))


@family(IMAGE, stays=5, free=36)
class CoordinateAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = cbr(3, 16, 3, 2), cbr(16, 8, act=nn.Hardswish)
        self.rows, self.columns = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)
        self.conv, self.head = cbr(16, 12, 3), Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        side = x.shape[2]
        y = self.mix(torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2))
        a, b = torch.split(y, [side, y.shape[2] - side], 2)
        return self.head(self.conv(x * self.rows(a).sigmoid() * self.columns(b.permute(0, 1, 3, 2)).sigmoid()))


@family(IMAGE, stays=16 + 1 + 5, free=12)
class EcaNet(nn.Module):
    """A convolution along channels keeps these."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.along, self.conv, self.head = (
            cbr(3, 16, 3, 2),
            nn.Conv1d(1, 1, 3, padding=1),
            cbr(16, 12),
            Head(12),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.along(x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2))
        return self.head(self.conv(x * y.transpose(-1, -2).unsqueeze(-1).sigmoid()))


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@family(IMAGE, stays=12 + 12 + 5, free=8)
class ShuffleNetV1(nn.Module):
    """Three groups everywhere: 8 places of the trunk. Inner widths stay: a group has to lose the same places as the others, and
    shuffled into other groups every place meets every other one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = cbr(3, 24, 3, 2), Head(24)
        self.squeeze = nn.ModuleList(cbr(24, 12, g=3) for _ in range(2))
        self.deep = nn.ModuleList(cbr(12, 12, 3, g=12, act=None) for _ in range(2))
        self.widen = nn.ModuleList(cbr(12, 24, g=3, act=None) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for squeeze, deep, widen in zip(self.squeeze, self.deep, self.widen, strict=True):
            x = torch.relu(x + widen(deep(shuffled(squeeze(x), 3))))
        return self.head(x)


@family(IMAGE, stays=5, free=16 + 8 + 8 + 8 + 8 + 8 + 12)
class ShuffleNetV2(nn.Module):
    """Halves that are shuffled: nothing ties a channel to another one, except through depthwise filters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = cbr(3, 16, 3, 2), nn.Sequential(cbr(16, 12), Head(12))
        self.units = nn.ModuleList(nn.Sequential(cbr(8, 8), cbr(8, 8, 3, g=8, act=None), cbr(8, 8)) for _ in range(2))
        self.last = cbr(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for unit in self.units:
            a, b = x.chunk(2, 1)
            x = shuffled(torch.cat([a, unit(b)], 1), 2)
        a, b = x.chunk(2, 1)
        return self.head(torch.cat([a, self.last(b)], 1))


@family(IMAGE, stays=5, free=12 + 8)
class WeightStandardized(nn.Module):
    """NFNet: filters are standardized in the graph, and gated by learnt gains."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weight = nn.Conv2d(3, 12, 3, 2, 1), nn.Parameter(torch.randn(8, 12, 3, 3))
        self.gain, self.scale, self.head = nn.Parameter(torch.ones(8, 1, 1, 1)), nn.Parameter(torch.ones(())), Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight
        mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
        w = (w - mean) * torch.rsqrt(var + 1e-4) * self.gain
        return self.head(functional.gelu(functional.conv2d(self.stem(x), w, padding=1)) * 1.7 * self.scale)


@family(IMAGE, stays=5, free=16 + 12)
class MixConv(nn.Module):
    """Depthwise filters of several sizes on parts of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.widen, self.project = cbr(3, 12, 3, 2), cbr(12, 16), cbr(16, 12, act=None)
        self.parts = nn.ModuleList(cbr(c, c, k, g=c) for c, k in ((8, 3), (4, 5), (4, 7)))
        self.head = Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        parts = torch.split(self.widen(x), [8, 4, 4], 1)
        y = torch.cat([part(piece) for part, piece in zip(self.parts, parts, strict=True)], 1)
        return self.head(x + self.project(y))


@family(IMAGE, stays=8 + 5, free=12 + 16)
class AlexNet(nn.Module):
    """Local response normalization keeps the first channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 12, 3, 2, 1)
        self.hidden, self.out = nn.Linear(12 * 64, 16), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.local_response_norm(torch.relu(self.a(x)), 5)
        x = torch.flatten(torch.relu(self.b(x)), 1)
        return self.out(functional.dropout(torch.relu(self.hidden(x)), 0.5, self.training))


@family(IMAGE, stays=5, free=8 + 6 + 10)
class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.hidden = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(8, 18, 3, 2, 1), nn.Linear(6 * 64, 20)
        self.out = nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = x.view(x.shape[0], 8, 2, x.shape[2], x.shape[3]).amax(2)
        x = self.b(x)
        x = torch.maximum(torch.maximum(x[:, 0::3], x[:, 1::3]), x[:, 2::3])
        x = self.hidden(torch.flatten(x, 1))
        return self.out(x.view(x.shape[0], 10, 2).amax(2))


@family(IMAGE, stays=8 + 8 * 8 * 9 + 5, free=4 + 12)
class CondConv(nn.Module):
    """Filters are mixed at run time, so what they read and make stays; whole experts can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.route, self.experts = cbr(3, 8, 3, 2), nn.Linear(8, 4), nn.Parameter(torch.randn(4, 8 * 8 * 9))
        self.after, self.head = cbr(8, 12, 3), Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        route = torch.sigmoid(self.route(x.mean((2, 3))))
        weight = (route @ self.experts).reshape(8, 8, 3, 3)
        return self.head(self.after(torch.relu(functional.conv2d(x, weight, padding=1))))


@family(IMAGE, stays=5, free=12 + 16)
class BlurPool(nn.Module):
    """Reflected edges, then one constant filter for every channel."""

    few: torch.Tensor
    many: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = cbr(3, 12, 3), cbr(12, 16, 3), Head(16)
        row = torch.tensor([1.0, 2.0, 1.0])
        for name, width in (("few", 12), ("many", 16)):
            self.register_buffer(name, (row[:, None] * row / 16).repeat(width, 1, 1, 1))

    def blur(self, x: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        x = functional.pad(x, (1, 1, 1, 1), "reflect")
        return functional.conv2d(x, filters, stride=2, groups=x.shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blur(self.conv(self.blur(self.stem(x), self.few)), self.many))


@family(IMAGE, stays=5, free=12 + 8 + 16 + 10)
class PreActivation(nn.Module):
    """Norm and activation before each convolution; a strided shortcut begins the second stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norms = nn.Conv2d(3, 12, 3, 1, 1), nn.ModuleList(map(nn.BatchNorm2d, (12, 8, 12, 10, 16)))
        self.a, self.b = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.c, self.d, self.short = (
            nn.Conv2d(12, 10, 3, 2, 1),
            nn.Conv2d(10, 16, 3, padding=1),
            nn.Conv2d(12, 16, 1, 2),
        )
        self.head = Head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.b(torch.relu(self.norms[1](self.a(torch.relu(self.norms[0](x))))))
        y = torch.relu(self.norms[2](x))
        x = self.short(y) + self.d(torch.relu(self.norms[3](self.c(y))))
        return self.head(torch.relu(self.norms[4](x)))


@family(IMAGE, stays=5, free=8 + 4 + 8 + 4)
class OctaveConv(nn.Module):
    """Two resolutions that feed each other."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = cbr(3, 8, 3), cbr(3, 4, 3)
        self.hh, self.hl = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.lh, self.ll = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, low = self.high(x), self.low(functional.avg_pool2d(x, 2))
        up = functional.interpolate(self.lh(low), scale_factor=2, mode="nearest")
        h, low = torch.relu(self.hh(h) + up), torch.relu(self.hl(functional.avg_pool2d(h, 2)) + self.ll(low))
        return self.head(torch.cat([functional.max_pool2d(h, 2), low], 1))


@family(IMAGE, stays=5, free=16 + 16)
class ConvMixer(nn.Module):
    """The trunk, and what one more point convolution makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.BatchNorm2d(16))
        self.deep, self.point = cbr(16, 16, 5, g=16, act=nn.GELU), cbr(16, 16, act=nn.GELU)
        self.head = Head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.point(x + self.deep(x)))


@family(IMAGE, stays=5, free=12 + 10)
class ShiftNet(nn.Module):
    """Parts of the channels are moved by a place each way; a slice of the convolution's channels skips it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = cbr(3, 12, 3, 2), cbr(12, 10), Head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        left, right = functional.pad(x[:, :4, :, 1:], (0, 1)), functional.pad(x[:, 4:8, :, :-1], (1, 0))
        y = self.conv(torch.cat([left, right, x[:, 8:]], 1))
        return self.head(torch.cat([y, x[:, 5:7]], 1))


# --- generators -------------------------------------------------------------------------------------------------------


@family((1, 10), stays=3, free=16 + 12 + 8)
class DcGan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.norms = nn.Linear(10, 16 * 16), nn.ModuleList(map(nn.BatchNorm2d, (16, 12, 8)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False) for i, o in ((16, 12), (12, 8), (8, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x).view(-1, 16, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(functional.leaky_relu(norm(x), 0.2))
        return torch.tanh(x)


@family((1, 8), stays=3, free=12 + 16 + 10)
class StyleGan(nn.Module):
    """Scales from a style at the convolution's input, its length divided out at the output; noise and a learnt start."""

    noise: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.style = nn.Linear(8, 12), nn.Linear(12, 16)
        self.start, self.strength = nn.Parameter(torch.randn(1, 16, 4, 4)), nn.Parameter(torch.ones(1, 10, 1, 1))
        self.weight, self.rgb = nn.Parameter(torch.randn(10, 16, 3, 3)), nn.Conv2d(10, 3, 1)
        self.register_buffer("noise", torch.randn(1, 1, 8, 8))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-6)
        style = self.style(functional.leaky_relu(self.mapping(z), 0.2))
        x = functional.interpolate(self.start * style[:, :, None, None], scale_factor=2.0, mode="nearest")
        length = torch.rsqrt(style.square() @ self.weight.square().sum((2, 3)).t() + 1e-6)
        x = functional.conv2d(x, self.weight, padding=1) * length[:, :, None, None]
        return self.rgb(functional.leaky_relu(x + self.noise * self.strength, 0.2))


@family((1, 3, 16, 16), stays=3, free=12 + 8 + 4 + 12)
class Rcan(nn.Module):
    """Attended blocks in a long residual; the last 12 channels become a place's 4 neighbours in groups of 4 by 12 / 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.excite, self.up, self.out = Excite(12, 4), nn.Conv2d(12, 48, 3, padding=1), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x - 0.4)
        x = x + self.excite(self.b(torch.relu(self.a(x))))
        return self.out(functional.pixel_shuffle(self.up(x), 2)) + 0.4


@family((1, 3, 16, 16), stays=12 + 12, free=10 + 8)
class SrResNet(nn.Module):
    """Slopes by channel, places unshuffled at the beginning, shuffled into the picture at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.slope, self.inner = (
            nn.Conv2d(12, 10, 3, padding=1),
            nn.PReLU(10),
            nn.Conv2d(10, 8, 3, padding=1),
        )
        self.back, self.up = nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 12, 3, padding=1)
        self.again = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.slope(self.stem(functional.pixel_unshuffle(x, 2)))
        y = y + self.back(torch.relu(self.inner(y)))
        y = functional.pixel_shuffle(self.up(y), 2)
        return functional.pixel_shuffle(self.again(y + x), 2)


@family((1, 3, 16, 16), stays=3, free=8 + 12 + 6 + 8)
class Vae(nn.Module):
    """Mean and logarithmic variance from one layer; the first half and the second go together."""

    noise: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1), nn.Linear(12 * 16, 12)
        self.open, self.up, self.out = nn.Linear(6, 8 * 16), nn.ConvTranspose2d(8, 3, 4, 4), nn.Sigmoid()
        self.register_buffer("noise", torch.randn(1, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        mean, log_var = self.both(x.flatten(1)).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_var) * self.noise
        return self.out(self.up(self.open(z).view(-1, 8, 4, 4)))
