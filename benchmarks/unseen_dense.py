"""Detectors and segmentation networks for architectures_unseen.py, each the least network that has its family's idea."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from unseen_blocks import Cross, cbr, family, mlp, tokens

IMAGE = (1, 3, 32, 32)


def up(x: torch.Tensor, scale: int = 2, mode: str = "nearest") -> torch.Tensor:
    corners = None if mode == "nearest" else False
    return functional.interpolate(x, scale_factor=float(scale), mode=mode, align_corners=corners)


@family(IMAGE, stays=2 * 3 * 7, free=8 + 12 + 6 + 6 + 6 + 12 + 6 + 12 + 8 + 8)
class YoloV5(nn.Module):
    """Focus slices, cross-stage parts, pyramid of pools, two levels whose boxes are decoded in the graph."""

    anchors: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.focus, self.down = cbr(12, 8, 3, act=nn.SiLU), cbr(8, 12, 3, 2, act=nn.SiLU)
        self.left, self.right, self.inner = cbr(12, 6), cbr(12, 6), nn.Sequential(cbr(6, 6), cbr(6, 6, 3))
        self.join, self.squeeze, self.spread = cbr(12, 12), cbr(12, 6), cbr(24, 12)
        self.lateral, self.deep = cbr(12, 8), cbr(12, 8, 3, 2)
        self.heads = nn.ModuleList(nn.Conv2d(8, 21, 1) for _ in range(2))
        self.register_buffer("anchors", torch.rand(1, 3, 1, 1, 2))

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        y = x.view(n, 3, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        xy, wh, rest = y.split((2, 2, 3), 4)
        return torch.cat((xy * 2 - 0.5, (wh * 2) ** 2 * self.anchors, rest), 4).view(n, -1, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        x = self.down(self.focus(x))
        left = self.left(x)
        x = self.join(torch.cat([left + self.inner(left), self.right(x)], 1))
        pools = [self.squeeze(x)]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        x = self.spread(torch.cat(pools, 1))
        return torch.cat([self.decode(self.heads[0](self.lateral(x))), self.decode(self.heads[1](self.deep(x)))], 1)


@family(IMAGE, stays=4 + 1 + 3, free=12 + 8 + 8 + 8)
class YoloX(nn.Module):
    """Decoupled heads, laid behind one another along the places."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.stem, self.kinds, self.boxes = cbr(3, 12, 3, 4), cbr(12, 8), cbr(8, 8, 3), cbr(8, 8, 3)
        self.score, self.box, self.object = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.body(x))
        kinds, boxes = self.kinds(x), self.boxes(x)
        y = torch.cat([self.box(boxes), self.object(boxes).sigmoid(), self.score(kinds).sigmoid()], 1)
        y = y.flatten(2).permute(0, 2, 1)
        return torch.cat([y[..., :2] * 4, y[..., 2:4].exp() * 4, y[..., 4:]], -1)


@family(IMAGE, stays=5, free=8 + 4 + 4 + 4 + 4 + 16 + 8)
class Elan(nn.Module):
    """YOLOv7: several depths side by side, pools beside strides, learnt numbers added and multiplied by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = cbr(3, 8, 3, 2), cbr(8, 4), cbr(8, 4)
        self.c, self.d, self.join = cbr(4, 4, 3), cbr(4, 4, 3), cbr(16, 16)
        self.added, self.times = nn.Parameter(torch.zeros(1, 16, 1, 1)), nn.Parameter(torch.ones(1, 5, 1, 1))
        self.stride, self.out = cbr(16, 8, 3, 2), nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        a, b = self.a(x), self.b(x)
        c = self.c(b)
        x = self.join(torch.cat([self.d(c), c, b, a], 1)) + self.added
        return self.out(torch.cat([functional.max_pool2d(x, 2), self.stride(x)], 1)) * self.times


@family(IMAGE, stays=2 * 7, free=6 + 8)
class BiFpn(nn.Module):
    """Fast normalized fusion: the weights of a sum are learnt, clipped and divided by their sum in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = cbr(3, 6, 3, 2), cbr(6, 8, 3, 2), cbr(6, 8)
        self.fine, self.coarse = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
        self.mix, self.again = (nn.Sequential(cbr(8, 8, 3, g=8, act=None), cbr(8, 8)) for _ in range(2))
        self.head = nn.Sequential(cbr(8, 8, 3, g=8), nn.Conv2d(8, 7, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.a(x)
        fine, coarse = self.c(x), self.b(x)
        w = torch.relu(self.fine)
        w = w / (w.sum() + 1e-4)
        f = fine + self.mix(functional.silu(w[0] * fine + w[1] * up(coarse)))
        v = torch.relu(self.coarse)
        v = v / (v.sum() + 1e-4)
        c = coarse + self.again(v[0] * coarse + v[1] * coarse + v[2] * functional.max_pool2d(f, 3, 2, 1))
        return self.head(f), self.head(c)


@family(IMAGE, stays=3 + 2, free=12 + 8 + 6 + 6)
class CenterNet(nn.Module):
    """Bilinear filters that double a map, one for each channel, then a head for each question."""

    bilinear: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = cbr(3, 12, 3, 4), cbr(12, 8, 3)
        self.heat = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
        self.size = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))
        row = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.register_buffer("bilinear", (row[:, None] * row).repeat(8, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = functional.conv_transpose2d(self.conv(self.stem(x)), self.bilinear, stride=2, padding=1, groups=8)
        return self.heat(x).sigmoid(), self.size(x)


@family(IMAGE, stays=4, free=6 + 8 + 10 + 6 + 8 + 6)
class UNetPlusPlus(nn.Module):
    """Nested decoders, each fed by all before it on its level."""

    def __init__(self) -> None:
        super().__init__()
        self.x00, self.x10, self.x20 = cbr(3, 6, 3), cbr(6, 8, 3), cbr(8, 10, 3)
        self.x01, self.x11, self.x02 = cbr(14, 6, 3), cbr(18, 8, 3), cbr(20, 6, 3)
        self.outs = nn.ModuleList(nn.Conv2d(6, 2, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.x00(x)
        b = self.x10(functional.max_pool2d(a, 2))
        a1 = self.x01(torch.cat([a, up(b, mode="bilinear")], 1))
        b1 = self.x11(torch.cat([b, up(self.x20(functional.max_pool2d(b, 2)), mode="bilinear")], 1))
        a2 = self.x02(torch.cat([a, a1, up(b1, mode="bilinear")], 1))
        return (self.outs[0](a1) + self.outs[1](a2)) / 2


@family(IMAGE, stays=5, free=8 + 6 + 6 + 6 + 6 + 8 + 4 + 10)
class DeepLab(nn.Module):
    """Dilated convolutions and a pooled picture side by side, then joined with early detail."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = cbr(3, 8, 3, 2), cbr(8, 6, 3, 4)
        self.one, self.two, self.four, self.pool = cbr(6, 6), cbr(6, 6, 3, d=2), cbr(6, 6, 3, d=4), cbr(6, 8)
        self.detail, self.fuse, self.out = cbr(8, 4), cbr(4 + 26, 10, 3), nn.Conv2d(10, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low(x)
        y = self.high(low)
        pooled = functional.interpolate(
            self.pool(functional.adaptive_avg_pool2d(y, 1)), size=y.shape[2:], mode="bilinear"
        )
        y = torch.cat([self.one(y), self.two(y), self.four(y), pooled], 1)
        y = functional.interpolate(y, size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.out(self.fuse(torch.cat([self.detail(low), y], 1)))


@family(IMAGE, stays=5, free=8 + 2 + 2 + 2 + 10)
class PspNet(nn.Module):
    """Pools to 1, 2 and 4 places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.parts = cbr(3, 8, 3, 4), nn.ModuleList(cbr(8, 2) for _ in range(3))
        self.join, self.out = nn.Conv2d(14, 10, 1), nn.Conv2d(10, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        pooled = [part(functional.adaptive_avg_pool2d(x, s)) for part, s in zip(self.parts, (1, 2, 4), strict=True)]
        pooled = [functional.interpolate(p, size=x.shape[2:], mode="bilinear") for p in pooled]
        return up(self.out(self.join(torch.cat([x, *pooled], 1))), 4, "bilinear")


@family(IMAGE, stays=5, free=8 + 8 + 8 + 12 + 6)
class BiSeNet(nn.Module):
    """Detail and context, both attended, in one fusion."""

    def __init__(self) -> None:
        super().__init__()
        self.detail, self.a, self.b = cbr(3, 8, 3, 4), cbr(3, 8, 3, 4), cbr(8, 8, 3, 2)
        self.refine, self.tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Sigmoid()), cbr(8, 8)
        self.fuse, self.down, self.widen = cbr(16, 12), nn.Conv2d(12, 6, 1), nn.Conv2d(6, 12, 1)
        self.out = nn.Conv2d(12, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x))
        y = y * self.refine(y.mean((2, 3), keepdim=True)) + self.tail(y.mean((2, 3), keepdim=True))
        z = self.fuse(torch.cat([self.detail(x), up(y)], 1))
        gate = torch.sigmoid(self.widen(torch.relu(self.down(z.mean((2, 3), keepdim=True)))))
        return self.out(z + z * gate)


@family(IMAGE, stays=5, free=8 + 6 + 10)
class Ddrnet(nn.Module):
    """Two branches that add to each other at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = cbr(3, 8, 3, 2), cbr(8, 6, 3, act=None), cbr(8, 10, 3, 2, act=None)
        self.down, self.compress = cbr(6, 10, 3, 2, act=None), cbr(10, 6, act=None)
        self.last, self.out = cbr(6, 6, 3, act=None), nn.Conv2d(6, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        fine, coarse = self.fine(x), self.coarse(x)
        low = torch.relu(coarse + self.down(torch.relu(fine)))
        fine = fine + up(self.compress(torch.relu(low)), 2, "bilinear")
        return self.out(torch.relu(self.last(torch.relu(fine)) + fine))


@family(IMAGE, stays=3 * (2 + 4), free=8 + 8 + 8 + 4 + 2 + 2)
class RetinaFace(nn.Module):
    """One pyramid of two levels; a context module of three sizes, and heads, that both levels share."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.la, self.lb = cbr(3, 8, 3, 4), cbr(8, 8, 3, 2), cbr(8, 8), cbr(8, 8)
        self.three, self.five, self.seven = cbr(8, 4, 3, act=None), cbr(8, 2, 3), cbr(2, 2, 3, act=None)
        self.faces, self.boxes = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 4, 1)

    def context(self, x: torch.Tensor) -> torch.Tensor:
        y = self.five(x)
        return torch.relu(torch.cat([self.three(x), self.seven(y)], 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.a(x)
        b = self.b(a)
        low = self.lb(b)
        levels = [self.context(y) for y in (self.la(a) + up(low), low, functional.max_pool2d(low, 2))]
        faces = [self.faces(y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 2) for y in levels]
        boxes = [self.boxes(y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 4) for y in levels]
        return torch.cat(faces, 1).softmax(-1), torch.cat(boxes, 1)


@family(IMAGE, stays=4 + 4, free=8 + 6 + 6 + 8)
class Hourglass(nn.Module):
    """Guesses of the first stage are fed back into the trunk of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.downs = cbr(3, 8, 3, 2), nn.ModuleList(cbr(8, 6, 3) for _ in range(2))
        self.ups, self.guess = (
            nn.ModuleList(cbr(6, 8, 3) for _ in range(2)),
            nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2)),
        )
        self.back, self.trunk = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = cbr(8, 8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        y = x + up(self.ups[0](self.downs[0](functional.max_pool2d(x, 2))))
        first = self.guess[0](y)
        x = x + self.back(first) + self.trunk(y)
        y = x + up(self.ups[1](self.downs[1](functional.max_pool2d(x, 2))))
        return first, self.guess[1](self.last(y))


@family(IMAGE, stays=2, free=8 + 12 + 8 + 6 + 6 + 6 + 6)
class DbText(nn.Module):
    """Two maps from transposed convolutions and a soft step between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mix = cbr(3, 8, 3, 4), cbr(8, 12, 3, 2), nn.Conv2d(20, 8, 3, padding=1)
        self.maps = nn.ModuleList(
            nn.Sequential(
                cbr(8, 6, 3),
                nn.ConvTranspose2d(6, 6, 2, 2),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.ConvTranspose2d(6, 1, 2, 2),
            )
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        x = self.mix(torch.cat([a, up(self.b(a))], 1))
        likely, limit = self.maps[0](x).sigmoid(), self.maps[1](x).sigmoid()
        return torch.cat([likely, limit, torch.reciprocal(1 + torch.exp(-50 * (likely - limit)))], 1)


@family(IMAGE, stays=12 + 12 + 12 + 3 + 4 + 6, free=8 + 4 + 4 + 16 + 12)
class Detr(nn.Module):
    """Learnt queries, of which there are 6, ask a map's places; norms keep the trunk, heads lose the same places each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.project = cbr(3, 8, 3, 4), nn.Conv2d(8, 12, 1)
        self.query, self.place = nn.Parameter(torch.randn(1, 6, 12)), nn.Parameter(torch.randn(1, 64, 12))
        self.cross, self.mlp = Cross(12, 2, 4), mlp(12, 16)
        self.norms, self.kinds = nn.ModuleList(nn.LayerNorm(12) for _ in range(3)), nn.Linear(12, 3)
        self.boxes = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        memory = self.norms[0](tokens(self.project(self.body(x))) + self.place)
        y = self.norms[1](self.query + self.cross(self.query, memory))
        y = self.norms[2](y + self.mlp(y))
        return self.kinds(y), self.boxes(y).sigmoid()


@family(IMAGE, stays=4 + 5, free=8 + 6 + 6 + 6 + 8 + 8)
class ObjectContext(nn.Module):
    """OCRNet: rough regions weigh places, their means are asked back by each place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.rough, self.query, self.key = (
            cbr(3, 8, 3, 4),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(8, 6, 1),
            nn.Linear(8, 6),
        )
        self.value, self.join, self.out = nn.Linear(8, 6), cbr(14, 8), nn.Conv2d(8, 5, 1)
        self.back = nn.Conv2d(6, 6, 1)
        self.last = cbr(8, 8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        rough = self.rough(x)
        n, _, h, w = x.shape
        regions = rough.view(n, 4, -1).softmax(2) @ x.view(n, 8, -1).transpose(1, 2)
        query = self.query(x).view(n, 6, -1).transpose(1, 2)
        weights = (query @ self.key(regions).transpose(1, 2) * 6**-0.5).softmax(-1)
        found = (weights @ self.value(regions)).transpose(1, 2).reshape(n, 6, h, w)
        return rough, self.out(self.last(self.join(torch.cat([x, self.back(found)], 1))))


@family(IMAGE, stays=1 + 5, free=8 + 4 + 4 + 8 + 4)
class NonLocal(nn.Module):
    """Places ask places, without heads; then a global context of weighed places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.q, self.k, self.v = cbr(3, 8, 3, 4), *(nn.Conv2d(8, 4, 1) for _ in range(3))
        self.back, self.weigh, self.last = (
            nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)),
            nn.Conv2d(8, 1, 1),
            cbr(8, 8),
        )
        self.down, self.norm, self.widen = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1)
        self.out = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        q, k, v = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("ncp,ncq->npq", q, k).softmax(-1)
        x = x + self.back(torch.matmul(v, weights.transpose(1, 2)).view(n, 4, h, w))
        weights = self.weigh(x).view(n, 1, h * w).softmax(2).unsqueeze(-1)
        context = (x.view(n, 1, c, h * w) @ weights).permute(0, 2, 1, 3)
        return self.out(self.last(x + self.widen(torch.relu(self.norm(self.down(context))))))


@family(IMAGE, stays=8 + 8 + 4, free=10 + 6)
class SegNet(nn.Module):
    """Places of maxima are handed to the decoder, and count all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle, self.again = cbr(3, 8, 3), cbr(8, 10, 3), cbr(10, 8, 3)
        self.after, self.out, self.pool = cbr(8, 6, 3), nn.Conv2d(6, 4, 1), nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, where = self.pool(self.down(x))
        x = self.again(self.middle(x))
        x = torch.zeros(x.shape[0], 8, 32 * 32).scatter(2, where.flatten(2), x.flatten(2)).view(-1, 8, 32, 32)
        return self.out(self.after(x))
