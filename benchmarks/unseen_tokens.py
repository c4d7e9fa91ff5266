"""Networks over tokens for architectures_unseen.py: attention, mixers, and what mixes both with convolutions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from unseen_blocks import CLASSES, Attention, Cross, Excite, Head, cbr, family, mlp, places, tokens

IMAGE = (1, 3, 32, 32)


@family(IMAGE, stays=5 + 3 * 12, free=6 + 8 + 8 + 20)
class MobileVit(nn.Module):
    """Patches are unfolded by reshapes and permutations, attended, folded back and joined with the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.local, self.attention, self.mlp = (
            cbr(3, 6, 3, 4),
            nn.Conv2d(6, 12, 1),
            Attention(12, 2, 4),
            mlp(12, 20),
        )
        self.norms, self.back, self.head = nn.ModuleList(nn.LayerNorm(12) for _ in range(2)), cbr(12, 8), Head(14)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.local(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w // 4, 4).permute(0, 3, 2, 1)
        y = y.reshape(n * 4, h * w // 4, c)
        y = y + self.attention(self.norms[0](y))
        y = y + self.mlp(self.norms[1](y))
        y = y.view(n, 4, h * w // 4, c).permute(0, 3, 2, 1)
        y = y.reshape(n * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.cat([x, self.back(y)], 1))


@family(IMAGE, stays=5, free=12 + 8 + 8 + 24)
class LeVit(nn.Module):
    """Attention with batch norms: nothing keeps the trunk."""

    bias: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.norm = cbr(3, 12, 3, 4), nn.Linear(12, 48, bias=False), nn.BatchNorm1d(48)
        self.proj, self.wide, self.narrow, self.out = (
            nn.Linear(16, 12),
            nn.Linear(12, 24),
            nn.Linear(24, 12),
            nn.Linear(12, 5),
        )
        self.register_buffer("bias", torch.randn(2, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.stem(x))
        n, length, _ = x.shape
        y = self.norm(self.qkv(x).flatten(0, 1)).reshape(n, length, 2, 24)
        q, k, v = y.split([8, 8, 8], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        y = ((q @ k) * 0.35 + self.bias).softmax(-1) @ v
        x = x + self.proj(functional.hardswish(y.transpose(1, 2).reshape(n, length, 16)))
        x = x + self.narrow(functional.hardswish(self.wide(x)))
        return self.out(x.mean(1))


@family(IMAGE, stays=12 * 3 + 6 + 6 + 5, free=8 + 6 + 16)
class Xcit(nn.Module):
    """Channels attend channels, each head's by their directions: a softmax over them keeps these, values are weighed too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.project, self.qk, self.v = (
            cbr(3, 8, 3, 4),
            nn.Conv2d(8, 12, 1),
            nn.Linear(12, 12),
            nn.Linear(12, 6),
        )
        self.proj, self.norm, self.mlp, self.head = nn.Linear(6, 12), nn.LayerNorm(12), mlp(12, 16), nn.Linear(12, 5)
        self.heat = nn.Parameter(torch.ones(1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.project(self.stem(x)))
        y = self.norm(x)
        q, k = self.qk(y).transpose(1, 2).chunk(2, 1)
        weights = (
            functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(1, 2) * self.heat
        ).softmax(-1)
        x = x + self.proj((weights @ self.v(y).transpose(1, 2)).transpose(1, 2))
        return self.head((x + self.mlp(self.norm(x))).mean(1))


@family(IMAGE, stays=12 * 4 + 5, free=8 + 4 + 4 + 16)
class SegFormer(nn.Module):
    """Keys and values of a strided map; a depthwise filter inside the mixing layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patch, self.reduce, self.cross = (
            cbr(3, 8, 3, 2),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.Conv2d(12, 12, 2, 2),
            Cross(12, 2, 4),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(3))
        self.wide, self.deep, self.narrow = nn.Linear(12, 16), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Linear(16, 12)
        self.out = nn.Conv2d(12, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.patch(self.stem(x)))
        y = self.norms[0](x)
        x = x + self.cross(y, self.norms[1](tokens(self.reduce(places(y, 8)))))
        y = tokens(self.deep(places(self.wide(self.norms[2](x)), 8)))
        return self.out(places(x + self.narrow(functional.gelu(y)), 8))


@family(IMAGE, stays=12 + 64 + 5, free=8 + 10)
class GMlp(nn.Module):
    """Half of the channels gates the other half after a mix over places; the gate's norm keeps both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.norm, self.mix = (
            cbr(3, 8, 3, 4),
            nn.Linear(8, 12),
            nn.LayerNorm(6),
            nn.Conv1d(64, 64, 1),
        )
        self.narrow, self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.stem(x))
        u, v = functional.gelu(self.wide(x)).chunk(2, -1)
        x = x + self.narrow(u * self.mix(self.norm(v)))
        return self.out(torch.relu(self.hidden(x)).mean(1))


@family(IMAGE, stays=64 + 5, free=12 + 20 + 24)
class ResMlp(nn.Module):
    """Scales and shifts instead of norms; tokens are mixed by one matrix, whose inner width may go as well."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.wide, self.narrow = nn.Conv2d(3, 12, 4, 4), nn.Linear(64, 20), nn.Linear(20, 64)
        self.scale, self.shift, self.gain = (nn.Parameter(torch.ones(12)) for _ in range(3))
        self.mlp, self.out = mlp(12, 24), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.patch(x))
        y = torch.addcmul(self.shift, self.scale, x)
        x = x + self.gain * self.narrow(functional.gelu(self.wide(y.transpose(1, 2)))).transpose(1, 2)
        return self.out((x + self.mlp(x)).mean(1))


@family(IMAGE, stays=12 * 5 + 5, free=8 + 8 + 8 + 16 + 16)
class CaiT(nn.Module):
    """A class token that joins late and asks the others; scores of heads are mixed before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.project, self.token = cbr(3, 8, 3, 4), nn.Conv2d(8, 12, 1), nn.Parameter(torch.randn(1, 1, 12))
        self.attention, self.cross, self.mlps = (
            Attention(12, 2, 4),
            Cross(12, 2, 4),
            nn.ModuleList(mlp(12, 16) for _ in range(2)),
        )
        self.gains, self.norms = nn.Parameter(torch.ones(4, 12)), nn.ModuleList(nn.LayerNorm(12) for _ in range(4))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tokens(self.project(self.stem(x)))
        x = x + self.gains[0] * self.attention(self.norms[0](x))
        x = x + self.gains[1] * self.mlps[0](self.norms[1](x))
        token = self.token.expand(x.shape[0], -1, -1)
        y = self.norms[2](torch.cat([token, x], 1))
        token = token + self.gains[2] * self.cross(y[:, :1], y)
        token = token + self.gains[3] * self.mlps[1](self.norms[3](token))
        return self.head(token[:, 0])


@family(IMAGE, stays=12 * 4 + 5, free=8 + 16 + 4 + 4 + 4 + 16)
class CoAtNet(nn.Module):
    """Inverted residuals first, then windows with a table of relative places."""

    index: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.widen, self.deep, self.excite = (
            cbr(3, 8, 3, 2),
            cbr(8, 16),
            cbr(16, 16, 3, 2, g=16),
            Excite(16, 4),
        )
        self.project, self.short, self.table = (
            nn.Conv2d(16, 12, 1),
            nn.Conv2d(8, 12, 1, 2),
            nn.Parameter(torch.randn(49, 2)),
        )
        self.qkv, self.proj, self.mlp = nn.Linear(12, 24), nn.Linear(8, 12), mlp(12, 16)
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(12) for _ in range(3)), nn.Linear(12, CLASSES)
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        far = (grid[:, :, None] - grid[:, None, :]) + 3
        self.register_buffer("index", (far[0] * 7 + far[1]).reshape(-1))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(length, length, 2).permute(2, 0, 1)
        return self.proj(((q @ k.transpose(-2, -1)) + bias).softmax(-1).matmul(v).transpose(1, 2).flatten(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.short(x) + self.project(self.excite(self.deep(self.widen(x))))
        n, c, h, w = x.shape
        y = torch.roll(self.norms[0](x.permute(0, 2, 3, 1)), (-2, -2), (1, 2))
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attend(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x.permute(0, 2, 3, 1) + torch.roll(y, (2, 2), (1, 2))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x).mean((1, 2)))


@family(IMAGE, stays=12 + 12 + 5, free=8 + 24 + 12)
class ConvNeXtV2(nn.Module):
    """Norms over channels last, and a response norm that divides by the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patch, self.deep = (
            cbr(3, 8, 3, 2),
            nn.Conv2d(8, 12, 2, 2),
            nn.Conv2d(12, 12, 7, 1, 3, groups=12),
        )
        self.norm, self.first, self.second = nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
        self.last = nn.Conv2d(12, 12, 1)
        self.gamma, self.beta, self.head = (
            nn.Parameter(torch.ones(12)),
            nn.Parameter(torch.zeros(12)),
            nn.Linear(12, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(self.stem(x))
        y = self.second(functional.gelu(self.first(self.norm(self.deep(x).permute(0, 2, 3, 1)))))
        g = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        y = y + self.gamma * (y * (g / (g.mean(-1, keepdim=True) + 1e-6))) + self.beta
        x = self.last(x + y.permute(0, 3, 1, 2))
        return self.head(x.permute(0, 2, 3, 1).mean((1, 2)))


@family(IMAGE, stays=5, free=12 + 4 + 4 + 12)
class LinearAttention(nn.Module):
    """EfficientViT: products of rectified queries and keys, summed over places, divided by a sum; no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj = cbr(3, 12, 3, 4), nn.Conv2d(12, 24, 1, bias=False), cbr(8, 12, act=None)
        self.head = nn.Sequential(cbr(12, 12), Head(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 2, 12, h * w).transpose(2, 3).split(4, 3)
        q, k = torch.relu(q), torch.relu(k)
        y = (q @ (k.transpose(2, 3) @ v)) / (q @ k.sum(2, keepdim=True).transpose(2, 3) + 1e-3)
        return self.head(x + self.proj(y.transpose(2, 3).reshape(n, 8, h, w)))


# --- text and tables --------------------------------------------------------------------------------------------------


@family((1, 12), stays=12 * 3 + 5, free=6 + 6 + 16 + 12, whole=20)
class Bert(nn.Module):
    """torch's own encoder layer over an embedding and a table of places."""

    place: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = (
            nn.Embedding(20, 12),
            nn.TransformerEncoderLayer(12, 2, 16, activation="gelu", batch_first=True),
        )
        self.register_buffer("place", torch.randn(1, 12, 12))
        self.pool, self.out = nn.Linear(12, 12), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.words(x) + self.place)
        return self.out(torch.tanh(self.pool(x[:, 0])))


@family((1, 12), stays=5, free=10 + 6 + 6 + 6, whole=20)
class TextCnn(nn.Module):
    """Windows of three lengths over an embedding, the largest of each filter."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.convs = nn.Embedding(20, 10), nn.ModuleList(nn.Conv2d(1, 6, (k, 10)) for k in (2, 3, 4))
        self.out = nn.Linear(18, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.words(x).unsqueeze(1)
        found = [torch.relu(conv(x)).squeeze(3) for conv in self.convs]
        return self.out(torch.cat([functional.max_pool1d(y, y.shape[2]).squeeze(2) for y in found], 1))


@family((1, 12), stays=4 + 4, free=8 + 12 + 12, whole=20)
class DeepFm(nn.Module):
    """Sums, their squares and all pairs of embeddings, beside layers over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.linear, self.a, self.b = (
            nn.Embedding(20, 8),
            nn.Embedding(20, 1),
            nn.Linear(96, 12),
            nn.Linear(12, 12),
        )
        self.out, self.pairs = nn.Linear(12, 4), nn.Linear(144, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = self.words(x)
        square = (e.sum(1).square() - e.square().sum(1)).sum(1, keepdim=True) / 2 + self.linear(x).sum(1)
        pairs = self.pairs(torch.bmm(e, e.transpose(1, 2)).flatten(1))
        return self.out(torch.relu(self.b(torch.relu(self.a(e.flatten(1)))))) + square + pairs
