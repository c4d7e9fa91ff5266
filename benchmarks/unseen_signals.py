"""Networks over sound, time, volumes, points and graphs for architectures_unseen.py."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from unseen_blocks import CLASSES, Attention, Head, cbr1, family, mlp

SOUND = (1, 12, 40)


@family(SOUND, stays=5, free=10 + 8 + 10)
class Tcn(nn.Module):
    """Filters of normed length, causal edges that are cut off again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = weight_norm(nn.Conv1d(12, 10, 3, padding=2))
        self.a, self.b = (
            weight_norm(nn.Conv1d(10, 8, 3, padding=4, dilation=2)),
            weight_norm(nn.Conv1d(8, 10, 3, padding=4, dilation=2)),
        )
        self.hidden, self.out = nn.Conv1d(10, 10, 1), nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)[:, :, :-2])
        y = torch.relu(self.b(torch.relu(self.a(x)[:, :, :-4]))[:, :, :-4])
        return self.out(self.hidden(torch.relu(x + y))[:, :, -1])


@family(SOUND, stays=5, free=8 + 6 + 6 + 8)
class WaveNet(nn.Module):
    """Gates, residuals, and skips that are added up; two convolutions make each gate's halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv1d(12, 8, 1), nn.Conv1d(8, 5, 1)
        self.filters, self.gates = (nn.ModuleList(nn.Conv1d(8, 6, 2, dilation=d) for d in (1, 2)) for _ in range(2))
        self.back, self.skips = (nn.ModuleList(nn.Conv1d(6, 8, 1) for _ in range(2)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skip = self.stem(x), torch.zeros(())
        for i in range(2):
            y = torch.tanh(self.filters[i](x)) * torch.sigmoid(self.gates[i](x))
            skip = skip[..., -y.shape[2] :] + self.skips[i](y) if i else self.skips[i](y)
            x = x[:, :, -y.shape[2] :] + self.back[i](y)
        return self.last(torch.relu(skip))


@family(SOUND, stays=6, free=12 + 4 * 4 + 6 + 12 + 10)
class EcapaTdnn(nn.Module):
    """Parts that feed the next part, squeeze and excite, means and deviations over time weighed by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last = cbr1(12, 12, 5), cbr1(12, 12), cbr1(12, 12)
        self.parts = nn.ModuleList(cbr1(4, 4, 3, d=2) for _ in range(2))
        self.down, self.up, self.join = nn.Conv1d(12, 6, 1), nn.Conv1d(6, 12, 1), nn.Conv1d(24, 12, 1)
        self.ask, self.weigh = nn.Conv1d(36, 10, 1), nn.Conv1d(10, 12, 1)
        self.norm, self.out = nn.BatchNorm1d(24), nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        pieces = torch.chunk(self.first(x), 3, 1)
        a = self.parts[0](pieces[1])
        y = self.last(torch.cat([pieces[0], a, self.parts[1](pieces[2] + a)], 1))
        y = x + y * torch.sigmoid(self.up(torch.relu(self.down(y.mean(2, keepdim=True)))))
        y = torch.relu(self.join(torch.cat([x, y], 1)))
        mean, spread = y.mean(2, keepdim=True), y.var(2, keepdim=True).clamp(min=1e-4).sqrt()
        full = torch.cat([y, mean.expand(-1, -1, y.shape[2]), spread.expand(-1, -1, y.shape[2])], 1)
        w = self.weigh(torch.tanh(self.ask(full))).softmax(2)
        mean = (w * y).sum(2)
        return self.out(self.norm(torch.cat([mean, ((w * y**2).sum(2) - mean**2).clamp(min=1e-4).sqrt()], 1)))


@family((1, 1, 160), stays=8 + 16 + 6 + 6 + 1, free=16)
class ConvTasNet(nn.Module):
    """A learnt transform, masks on it, and back; norms over all channels keep what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.norm, self.narrow = nn.Conv1d(1, 8, 16, 8, bias=False), nn.GroupNorm(1, 8), nn.Conv1d(8, 6, 1)
        self.wide, self.slope, self.deep = nn.Conv1d(6, 16, 1), nn.PReLU(), nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.batch, self.back, self.mask = nn.BatchNorm1d(16), nn.Conv1d(16, 6, 1), nn.Conv1d(6, 16, 1)
        self.decode = nn.ConvTranspose1d(8, 1, 16, 8, bias=False)
        self.inner = nn.GroupNorm(1, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.encode(x))
        y = self.narrow(self.norm(x))
        y = self.inner(y + self.back(self.batch(self.deep(self.slope(self.wide(y))))))
        masks = torch.sigmoid(self.mask(y)).view(x.shape[0], 2, 8, -1)
        each = (masks * x.unsqueeze(1)).view(-1, 8, x.shape[2])
        return self.decode(each).view(x.shape[0], 2, -1)


@family((1, 40, 12), stays=12 * 5 + 5, free=16 + 4 + 4 + 12 + 16)
class Conformer(nn.Module):
    """Half steps, heads, a gated depthwise convolution with batch norm, norms between all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.attention, self.again = mlp(12, 16), Attention(12, 2, 4), mlp(12, 16)
        self.enter, self.gate, self.deep = nn.Linear(12, 12), nn.Conv1d(12, 24, 1), cbr1(12, 12, 5, g=12, act=nn.SiLU)
        self.leave, self.norms = nn.Conv1d(12, 12, 1), nn.ModuleList(nn.LayerNorm(12) for _ in range(5))
        self.out = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        x = x + 0.5 * self.begin(self.norms[0](x))
        x = x + self.attention(self.norms[1](x))
        y = functional.glu(self.gate(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.leave(self.deep(y)).transpose(1, 2)
        return self.out(self.norms[4](x + 0.5 * self.again(self.norms[3](x)))).log_softmax(-1)


@family((1, 10), stays=16 + 5, free=10 + 10 + 10, whole=20)
class Seq2Seq(nn.Module):
    """A recurrent encoder in both directions, a decoder that asks it; embeddings may shrink, states stay."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.answers = nn.Embedding(20, 10), nn.Embedding(20, 10)
        self.encode, self.decode = (
            nn.LSTM(10, 8, batch_first=True, bidirectional=True),
            nn.GRU(10, 16, batch_first=True),
        )
        self.ask, self.join, self.out = nn.Linear(16, 16, bias=False), nn.Linear(32, 10), nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory, _ = self.encode(self.words(x))
        states, _ = self.decode(self.answers(x))
        weights = torch.bmm(self.ask(states), memory.transpose(1, 2)).softmax(-1)
        return self.out(torch.tanh(self.join(torch.cat([torch.bmm(weights, memory), states], 2))))


@family((1, 4, 3, 16, 16), stays=5, free=8 + 6)
class ConvLstm(nn.Module):
    """Four frames, gates in four chunks: a state's channel is one of each, and of what reads the state."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gates, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(14, 24, 3, padding=1), Head(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 6, 8, 8)
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([torch.relu(self.stem(frame)), h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


@family((1, 3, 4, 16, 16), stays=5, free=8 + 8 + 12)
class Video(nn.Module):
    """(2+1)D convolutions and parts of the channels shifted in time."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.time = (
            nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
            nn.Conv3d(8, 8, (3, 1, 1), 1, (1, 0, 0)),
        )
        self.norm, self.conv, self.out = nn.BatchNorm3d(8), nn.Conv2d(8, 12, 3, padding=1), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.time(self.space(x))))
        past, future = (
            functional.pad(x[:, :2, 1:], (0, 0, 0, 0, 0, 1)),
            functional.pad(x[:, 2:4, :-1], (0, 0, 0, 0, 1, 0)),
        )
        x = torch.cat([past, future, x[:, 4:]], 1).transpose(1, 2).flatten(0, 1)
        return self.out(torch.relu(self.conv(x)).mean((2, 3)).view(-1, 4, 12).mean(1))


@family((1, 1, 20, 40), stays=5, free=8 + 4)
class BroadcastResidual(nn.Module):
    """Keywords: a norm of its own for each band of frequencies, then means over frequencies added to all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.norm = (
            nn.Conv2d(1, 8, 5, (2, 1), 2),
            nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8),
            nn.BatchNorm2d(40),
        )
        self.time, self.flat, self.point = (
            nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 1),
        )
        self.last, self.out = nn.Conv2d(8, 4, (10, 1)), nn.Conv2d(4, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        n, c, f, t = x.shape
        y = self.norm(self.deep(x).view(n, c * 5, f // 5, t)).view(n, c, f, t)
        z = self.point(functional.silu(self.flat(self.time(y.mean(2, keepdim=True)))))
        x = torch.relu(x + y + z)
        return self.out(self.last(x)).mean((2, 3))


@family((1, 3, 30), stays=5, free=3 + 8 + 6 + 12)
class PointNet(nn.Module):
    """A transform of the points that is made from all of them, then the largest of each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.matrix = cbr1(3, 8), nn.Linear(8, 9)
        self.a, self.b, self.out = cbr1(3, 6), cbr1(6, 12), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turn = self.matrix(self.small(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(2, 1), turn).transpose(2, 1)
        return self.out(self.b(self.a(x)).amax(2))


@family((1, 3, 8, 7), stays=7 + 5, free=8 + 10)
class SkeletonGraph(nn.Module):
    """7 joints are mixed by a constant matrix for each kind of neighbour, whose features come from one convolution."""

    graph: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.time = (
            nn.BatchNorm1d(21),
            nn.Conv2d(3, 24, 1),
            nn.Conv2d(8, 10, (3, 1), padding=(1, 0)),
        )
        self.register_buffer("graph", torch.rand(3, 7, 7))
        self.short, self.head = nn.Conv2d(3, 10, 1), Head(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, t, v = x.shape
        x = self.norm(x.permute(0, 3, 1, 2).reshape(n, v * c, t)).view(n, v, c, t).permute(0, 2, 3, 1)
        y = self.conv(x).view(n, 3, 8, t, v)
        y = torch.einsum("nkctv,kvw->nctw", y, self.graph)
        return self.head(torch.relu(self.short(x) + self.time(torch.relu(y))))


@family((1, 30, 3), stays=4, free=16 + 12)
class Field(nn.Module):
    """NeRF: sines of the place, the place again halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(21, 16), nn.Linear(37, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waves = (x.unsqueeze(-1) * torch.tensor([1.0, 2.0, 4.0])).flatten(-2)
        x = torch.cat([x, waves.sin(), waves.cos()], -1)
        x = torch.relu(self.b(torch.cat([torch.relu(self.a(x)), x], -1)))
        return self.out(x)


@family((1, 3, 16, 16), (1, 6), stays=3, free=8 + 8 + 8)
class Diffusion(nn.Module):
    """Norms by groups of two, a step's embedding added in the middle, scales and shifts from it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
        )
        self.norms, self.step = nn.ModuleList(nn.GroupNorm(8, 16) for _ in range(3)), nn.Linear(6, 8)
        self.shift, self.out = nn.Linear(8, 16), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.a(functional.silu(self.norms[0](x)))
        y = y + self.shift(functional.silu(self.step(t)))[:, :, None, None]
        x = x + self.b(functional.silu(self.norms[1](y)))
        return self.out(functional.silu(self.norms[2](x)))


@family((1, 3, 16, 16), (1, 6), stays=3, free=12 + 10 + 8)
class AdaptiveNorm(nn.Module):
    """Scales and shifts of an instance norm, or of features, computed from another input; mixed by experts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.style = nn.Conv2d(3, 12, 3, padding=1), nn.InstanceNorm2d(12), nn.Linear(6, 8)
        self.both, self.conv, self.out = nn.Linear(8, 24), nn.Conv2d(12, 10, 3, padding=1), nn.Conv2d(10, 3, 1)

    def forward(self, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        scale, shift = self.both(torch.relu(self.style(s))).unsqueeze(2).unsqueeze(3).chunk(2, 1)
        x = self.norm(self.stem(x)) * (1 + scale) + shift
        return self.out(functional.leaky_relu(self.conv(x)))


@family((1, 12), stays=3 + 3 + 6, free=10 + 8)
class Experts(nn.Module):
    """A gate weighs three experts, each with a width of its own inner layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.gate = nn.Linear(12, 10), nn.Linear(10, 3)
        self.first, self.second = nn.Parameter(torch.randn(3, 10, 8)), nn.Parameter(torch.randn(3, 8, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.trunk(x))
        hidden = torch.relu(torch.einsum("nd,edh->neh", x, self.first))
        each = torch.einsum("neh,eho->neo", hidden, self.second)
        return (each * self.gate(x).softmax(-1).unsqueeze(-1)).sum(1)
