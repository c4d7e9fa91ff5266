"""A second, independent meaning of Darknet's layers: plain numpy in float64, cell by cell, and the weights file to go with it.

Nothing of the importer is used. A `Net` draws seeded weights as it runs for the first time and remembers them in the order of
the file. Source: AlexeyAB/darknet at 59596d7, CPU, inference; where its CPU code contradicts an option, the option.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Options = dict[str, str]


def parse(text: str) -> list[tuple[str, Options]]:
    """Sections with their options."""
    sections: list[tuple[str, Options]] = []
    for line in text.split("\n"):
        bare = line.replace(" ", "")
        if bare.startswith("["):
            sections.append((bare.strip("[]"), {}))
        elif "=" in bare and bare[0] not in "#;":
            key, _, value = bare.partition("=")
            sections[-1][1].setdefault(key, value)
    return sections


# --- activations, number by number ------------------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _stair(x: float) -> float:
    n = math.floor(x)
    return math.floor(x / 2) if n % 2 == 0 else (x - n) + math.floor(x / 2)


def _plse(x: float) -> float:
    if x < -4:
        return 0.01 * (x + 4)
    return 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5


def _lhtan(x: float) -> float:
    if x < 0:
        return 0.001 * x
    return 0.001 * (x - 1) + 1 if x > 1 else x


def _hard_mish(x: float) -> float:
    return x if x > 0 else x * x / 2 + x if x > -2 else 0.0


SCALARS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "logistic": lambda x: 1 / (1 + math.exp(-x)),
    "loggy": lambda x: 2 / (1 + math.exp(-x)) - 1,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "elu": lambda x: x if x >= 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (math.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3)),
    "relie": lambda x: x if x > 0 else 0.01 * x,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "tanh": math.tanh,
    "plse": _plse,
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "revleaky": lambda x: x if x > 0 else 0.1 * x,
    "stair": _stair,
    "hardtan": lambda x: -1.0 if x < -1 else 1.0 if x > 1 else x,
    "lhtan": _lhtan,
    "swish": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hard_mish": _hard_mish,
}
OVER_CHANNELS = ("normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval")
ACTIVATIONS = (*SCALARS, *OVER_CHANNELS)


def activate(x: Array, name: str) -> Array:
    if name in SCALARS:
        return np.array([SCALARS[name](float(v)) for v in x.reshape(-1)]).reshape(x.shape)
    if name == "normalize_channels":
        e = np.maximum(x, 0)
    else:
        e = np.exp(x - (x.max(axis=0) if name.endswith("maxval") else 0))
    return e / (e.sum(axis=0) + 1e-4)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


# --- kernels ----------------------------------------------------------------------------------------------------------


def conv(
    x: Array, w: Array, strides: tuple[int, int] = (1, 1), pad: int = 0, dilation: int = 1, groups: int = 1
) -> Array:
    """Darknet's convolution: `pad` counts in dilated cells."""
    size, p = w.shape[-1], pad * dilation
    grown = np.pad(x, ((0, 0), (p, p), (p, p)))
    h, wd = (((n - dilation * (size - 1) - 1) // s + 1) for n, s in zip(grown.shape[1:], strides, strict=True))
    out = np.zeros((len(w), h, wd))
    m, c = len(w) // groups, len(x) // groups
    for o in range(len(w)):
        first = o // m * c
        for i in range(h):
            for j in range(wd):
                top, left = i * strides[0], j * strides[1]
                part = grown[
                    first : first + c, top : top + dilation * size : dilation, left : left + dilation * size : dilation
                ]
                out[o, i, j] = (part[:, :size, :size] * w[o]).sum()
    return out


def pool(x: Array, size: int, strides: tuple[int, int], padding: int, mean: bool) -> Array:
    c, h, w = x.shape
    out = np.zeros((c, (h + padding - size) // strides[0] + 1, (w + padding - size) // strides[1] + 1))
    for k, i, j in np.ndindex(*out.shape):
        cells = []
        for a, b in np.ndindex(size, size):
            y, z = i * strides[0] + a - padding // 2, j * strides[1] + b - padding // 2
            if 0 <= y < h and 0 <= z < w:
                cells.append(x[k, y, z])
        out[k, i, j] = np.mean(cells) if mean else max(cells, default=-3.4028234663852886e38)
    return out


def blur(x: Array, strides: tuple[int, int], mode: int) -> Array:
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16 if mode != 2 else np.ones((2, 2)) / 4
    return conv(x, np.tile(kernel, (len(x), 1, 1, 1)), strides, 0 if mode == 2 else 1, 1, len(x))


def reorg_cells(c: int, h: int, w: int, s: int) -> list[tuple[int, int]]:
    """Pairs (packed place, spread place) of Darknet's reorg_cpu for the sizes c, h, w."""
    pairs = []
    small = c // (s * s)
    for k, j, i in np.ndindex(c, h, w):
        offset = k // small
        spread = i * s + offset % s + w * s * (j * s + offset // s + h * s * (k % small))
        pairs.append((i + w * (j + h * k), spread))
    return pairs


# --- the network ------------------------------------------------------------------------------------------------------


class Net:
    """A network that draws its weights when it first runs.

    Attributes:
        sections: What it was made from, [net] first.
        outputs: Output of every layer at the last step, f64[C, H, W], None where there is none.
    """

    def __init__(
        self, text: str, *, seed: int = 0, version: tuple[int, int, int] = (0, 2, 5), tree: list[int] | None = None
    ) -> None:
        self.sections = parse(text)
        self.version, self.tree = version, tree
        self._rng = np.random.default_rng(seed)
        self._arrays: dict[tuple[int, str], Array] = {}
        self._file: list[Array] = []
        self._state: dict[tuple[int, str], Array] = {}
        self.outputs: list[Array | None] = []

    def step(self, x: Array) -> list[Array | None]:
        """Every layer's output for one image; recurrent layers keep their state."""
        self.outputs = []
        x = x.astype(np.float64)
        for index, (name, options) in enumerate(self.sections[1:]):
            self._i, self._o, before = index, options, x
            y = getattr(self, "_" + name.lower())(before)
            self.outputs.append(y)
            x = before if y is None else y
        return self.outputs

    def weights(self) -> bytes:
        """The file: header and arrays in Darknet's order."""
        major, minor, revision = self.version
        seen = struct.pack("<Q" if major * 10 + minor >= 2 else "<I", 12345)
        return (
            struct.pack("<3i", major, minor, revision) + seen + b"".join(a.astype("<f4").tobytes() for a in self._file)
        )

    def write(self, folder: Path, text: str) -> Path:
        """cfg and weights in `folder`."""
        (folder / "net.cfg").write_text(text, encoding="utf-8")
        (folder / "net.weights").write_bytes(self.weights())
        return folder / "net.cfg"

    # what sections say

    def _int(self, key: str, default: int = 0) -> int:
        return int(self._o.get(key, default))

    def _other(self, number: int) -> Array:
        out = self.outputs[number if number >= 0 else self._i + number]
        assert out is not None
        return out

    def _froms(self, key: str = "from") -> list[Array]:
        return [self._other(int(n)) for n in self._o[key].split(",")]

    def _draw(self, name: str, shape: tuple[int, ...], kind: str = "weight", transposed: bool = False) -> Array:
        """An array of the file; f64, but with f32's digits. `transposed`: stored so."""
        key = (self._i, name)
        if key not in self._arrays:
            if kind == "weight":
                a = self._rng.normal(0, 1.4 / math.sqrt(math.prod(shape[1:]) or 1), shape)
            elif kind == "positive":
                a = self._rng.uniform(0.5, 1.5, shape)
            else:
                a = self._rng.normal(0, 0.3, shape)
            a = a.astype(np.float32)
            self._file.append(a.reshape(len(a), -1).T if transposed else a)
            self._arrays[key] = a.astype(np.float64)
        return self._arrays[key]

    def _norm_arrays(self, n: int, part: str) -> list[Array]:
        if self._int("dontloadscales"):
            return [np.ones(n), np.zeros(n), np.zeros(n)]
        return [self._draw(part + k, (n,), kind) for k, kind in (("s", "positive"), ("m", "bias"), ("v", "positive"))]

    def _conv_layer(self, x: Array, n: int, pad: int, strides: tuple[int, int], dilation: int, groups: int, part: str = "",
                    binary: bool = False, key: int | None = None, norm: bool | None = None) -> Array:  # fmt: skip
        size = self._int("size", 3 if part else 1)
        mine, self._i = self._i, self._i if key is None else key
        normed = bool(self._int("batch_normalize")) if norm is None else norm
        b = self._draw(part + "b", (n,), "bias")
        triple = self._norm_arrays(n, part) if normed else None
        w = self._draw(part + "w", (n, len(x) // groups, size, size), transposed=bool(self._int("flipped")))
        self._i = mine
        if binary:
            w = np.stack([np.where(f > 0, np.abs(f).mean(), -np.abs(f).mean()) for f in w])
        y = conv(x, w, strides, pad, dilation if size > 1 else 1, groups)
        return self._bias(y, b, triple)

    def _bias(self, y: Array, b: Array, triple: list[Array] | None) -> Array:
        def column(a: Array) -> Array:
            return a.reshape(-1, *[1] * (y.ndim - 1))

        if triple is not None:
            s, m, v = triple
            y = (y - column(m)) / np.sqrt(column(v) + 1e-5) * column(s)
        return y + column(b)

    def _matrix(self, x: Array, n: int, part: str = "") -> Array:
        b = self._draw(part + "b", (n,), "bias")
        w = self._draw(part + "w", (n, x.size), transposed=max(self.version[:2]) > 1000)
        triple = self._norm_arrays(n, part) if self._int("batch_normalize") else None
        return self._bias(w @ x.reshape(-1), b, triple)

    def _memory(self, name: str, shape: tuple[int, ...]) -> Array:
        return self._state.get((self._i, name), np.zeros(shape))

    def _strides(self) -> tuple[int, int]:
        stride = self._int("stride", 1)
        return self._int("stride_y", stride), self._int("stride_x", stride)

    def _pad(self, size: int) -> int:
        return size // 2 if self._int("pad") else self._int("padding")

    # layers

    def _convolutional(self, x: Array) -> Array:
        size, strides, mode = self._int("size", 1), self._strides(), self._int("antialiasing")
        if self._int("xnor"):
            x = np.where(x > 0, 1.0, -1.0)
        shared = self._int("share_index") if "share_index" in self._o else None
        key = None if shared is None else shared if shared >= 0 else self._i + shared
        y = self._conv_layer(
            x, self._int("filters", 1), self._pad(size), (1, 1) if mode else strides, self._int("dilation", 1),
            1 if self._int("xnor") else self._int("groups", 1), binary=bool(self._int("xnor") or self._int("binary")), key=key,
            norm=bool(self._int("batch_normalize") or self._int("cbn")),
        )  # fmt: skip
        y = activate(y, self._o.get("activation", "logistic"))
        return blur(y, strides, mode) if mode else y

    def _deconvolutional(self, x: Array) -> Array:
        size, stride, n = self._int("size", 1), self._int("stride", 1), self._int("filters", 1)
        pad = self._pad(size)
        b = self._draw("b", (n,), "bias")
        triple = self._norm_arrays(n, "") if self._int("batch_normalize") else None
        w = self._draw("w", (len(x), n, size, size))
        h, wd = ((s - 1) * stride + size for s in x.shape[1:])
        full = np.zeros((n, h, wd))
        for c, i, j in np.ndindex(*x.shape):
            full[:, i * stride : i * stride + size, j * stride : j * stride + size] += x[c, i, j] * w[c]
        return activate(
            self._bias(full[:, pad : h - pad, pad : wd - pad], b, triple), self._o.get("activation", "logistic")
        )

    def _connected(self, x: Array) -> Array:
        y = self._matrix(x, self._int("output", 1)).reshape(-1, 1, 1)
        return activate(y, self._o.get("activation", "logistic"))

    def _local(self, x: Array) -> Array:
        n, size, stride = self._int("filters", 1), self._int("size", 1), self._int("stride", 1)
        pad = size // 2 if self._int("pad") else 0
        h, w = (((s - 1) if pad or self._int("pad") else s - size) // stride + 1 for s in x.shape[1:])
        b = self._draw("b", (n, h, w), "bias")
        weight = self._draw("w", (h * w, n, len(x), size, size))
        grown = np.pad(x, ((0, 0), (pad, pad + size), (pad, pad + size)))
        y = np.zeros((n, h, w))
        for o, i, j in np.ndindex(n, h, w):
            part = grown[:, i * stride : i * stride + size, j * stride : j * stride + size]
            y[o, i, j] = (part * weight[i * w + j, o]).sum() + b[o, i, j]
        return activate(y, self._o.get("activation", "logistic"))

    def _maxpool(self, x: Array) -> Array:
        strides, mode = self._strides(), self._int("antialiasing")
        size = self._int("size", self._int("stride", 1))
        if self._int("maxpool_depth"):
            out = self._int("out_channels", 1)
            y = np.stack([x[k::out].max(axis=0) for k in range(out)])
        else:
            y = pool(x, size, (1, 1) if mode else strides, self._int("padding", size - 1), False)
        return blur(y, strides, mode) if mode else y

    def _local_avgpool(self, x: Array) -> Array:
        size = self._int("size", self._int("stride", 1))
        return pool(x, size, self._strides(), self._int("padding", size - 1), True)

    def _avgpool(self, x: Array) -> Array:
        return x.mean(axis=(1, 2), keepdims=True)

    def _route(self, x: Array) -> Array:
        groups, one = self._int("groups", 1), self._int("group_id")
        parts = self._froms("layers")
        return np.concatenate([p[len(p) // groups * one : len(p) // groups * (one + 1)] for p in parts])

    def _shortcut(self, x: Array) -> Array:
        others = self._froms()
        count, kind = len(others) + 1, self._o.get("weights_type", "none")
        if kind == "none":
            w = np.ones((count, len(x)))
        else:
            width = len(x) if kind == "per_channel" else 1
            w = np.broadcast_to(self._draw("w", (count, width), "bias"), (count, len(x))).copy()
            rule = self._o.get("weights_normalization", self._o.get("weights_normalizion", "none"))
            if rule in ("relu", "avg_relu"):
                w = np.maximum(w, 0) / (np.maximum(w, 0).sum(axis=0) + 1e-4)
            elif rule == "softmax":
                e = np.exp(w - w.max(axis=0))
                w = e / (e.sum(axis=0) + 1e-4)
        y = x * w[0][:, None, None]
        for other, factor in zip(others, w[1:], strict=True):
            for c in range(min(len(x), len(other))):
                y[c] += other[c] * factor[c]
        return activate(y, self._o.get("activation", "linear"))

    def _scale_channels(self, x: Array) -> Array:
        return activate(self._froms()[0] * x, self._o.get("activation", "linear"))

    def _sam(self, x: Array) -> Array:
        return activate(self._froms()[0] * x, self._o.get("activation", "linear"))

    def _implicit(self, x: Array) -> Array:
        return self._draw("w", (self._int("filters", 128), self._int("atoms", 1), 1), "bias")

    def _upsample(self, x: Array) -> Array:
        stride, scale = self._int("stride", 2), float(self._o.get("scale", 1))
        if stride > 0:
            return x.repeat(stride, axis=1).repeat(stride, axis=2) * scale
        c, h, w = x.shape
        return x.reshape(c, h // -stride, -stride, w // -stride, -stride).sum(axis=(2, 4)) * scale

    def _reorg3d(self, x: Array) -> Array:
        s, (c, h, w) = self._int("stride", 1), x.shape
        sizes = (c // (s * s), h * s, w * s) if self._int("reverse") else (c * s * s, h // s, w // s)
        return self._moved(x, sizes, sizes, s)

    def _reorg(self, x: Array) -> Array:
        s, (c, h, w) = self._int("stride", 1), x.shape
        sizes = (c // (s * s), h * s, w * s) if self._int("reverse") else (c * s * s, h // s, w // s)
        return self._moved(x, (c, h, w), sizes, s)

    def _moved(self, x: Array, loop: tuple[int, ...], sizes: tuple[int, ...], s: int) -> Array:
        flat, out = x.reshape(-1), np.zeros(x.size)
        for packed, spread in reorg_cells(*loop, s):
            if self._int("reverse"):
                out[spread] = flat[packed]
            else:
                out[packed] = flat[spread]
        return out.reshape(sizes)

    def _crop(self, x: Array) -> Array:
        h, w = self._int("crop_height", 1), self._int("crop_width", 1)
        top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
        y = x[:, top : top + h, left : left + w]
        return y if self._int("noadjust") else y * 2 - 1

    def _dropout(self, x: Array) -> Array:
        return x

    _empty = _silence = _dropout

    def _cost(self, x: Array) -> None:
        return None

    _contrastive = _cost

    def _activation(self, x: Array) -> Array:
        return activate(x, self._o.get("activation", "linear"))

    def _logistic(self, x: Array) -> Array:
        return sigmoid(x)

    def _l2norm(self, x: Array) -> Array:
        return x / np.sqrt((x * x).sum(axis=0))

    def _batchnorm(self, x: Array) -> Array:
        b = self._draw("b", (len(x),), "bias")
        return self._bias(x, b, self._norm_arrays(len(x), ""))

    def _softmax(self, x: Array) -> Array:
        t = float(self._o.get("temperature", 1))
        if self.tree is not None:
            return self._by_tree(x.reshape(-1) / t).reshape(x.shape)
        if self._int("spatial"):
            e = np.exp(x / t - (x / t).max(axis=0))
            return e / e.sum(axis=0)
        rows = (x / t).reshape(self._int("groups", 1), -1)
        return np.stack([softmax(row) for row in rows]).reshape(x.shape)

    def _by_tree(self, x: Array) -> Array:
        assert self.tree is not None
        out, start = np.zeros_like(x), 0
        for end in range(1, len(x) + 1):
            if end == len(x) or self.tree[end] != self.tree[start]:
                out[start:end] = softmax(x[start:end])
                start = end
        return out

    def _normalization(self, x: Array) -> Array:
        size, c = self._int("size", 5), len(x)
        alpha, beta, kappa = (float(self._o.get(k, d)) for k, d in (("alpha", 0.0001), ("beta", 0.75), ("kappa", 1)))
        sq, norm = x * x, np.zeros_like(x)
        norm[0] = kappa + alpha * sum(sq[k] for k in range(min(size // 2, c)))
        for k in range(1, c):
            norm[k] = norm[k - 1]
            if k - (size - 1) // 2 - 1 >= 0:
                norm[k] -= alpha * sq[k - (size - 1) // 2 - 1]
            if k + size // 2 < c:
                norm[k] += alpha * sq[k + size // 2]
        return x * norm**-beta

    _lrn = _normalization
    _conv, _conn, _max, _local_avg, _soft = _convolutional, _connected, _maxpool, _local_avgpool, _softmax
    _implicit_add = _implicit

    # heads

    def _anchors(self) -> int:
        return len(self._o["mask"].split(",")) if "mask" in self._o else self._int("num", 1)

    def _yolo(self, x: Array) -> Array:
        scale, new = float(self._o.get("scale_x_y", 1)), self._int("new_coords")
        y = x.reshape(self._anchors(), -1, *x.shape[1:]).copy()
        if not new:
            y[:, :2], y[:, 4:] = sigmoid(y[:, :2]), sigmoid(y[:, 4:])
        y[:, :2] = y[:, :2] * scale - 0.5 * (scale - 1)
        return y.reshape(x.shape)

    def _gaussian_yolo(self, x: Array) -> Array:
        scale = float(self._o.get("scale_x_y", 1))
        y = x.reshape(self._anchors(), -1, *x.shape[1:]).copy()
        for entry in range(y.shape[1]):
            if entry not in (4, 6):
                y[:, entry] = sigmoid(y[:, entry])
            if entry in (0, 2):
                y[:, entry] = y[:, entry] * scale - 0.5 * (scale - 1)
        return y.reshape(x.shape)

    def _region(self, x: Array) -> Array:
        n, classes = self._int("num", 1), self._int("classes", 20)
        boxes = x.reshape(n, 5 + classes, -1).transpose(2, 0, 1).reshape(-1, 5 + classes).copy()
        for box in boxes:
            box[4] = sigmoid(box[4])
            if self.tree is not None:
                box[5:] = self._by_tree(box[5:])
            elif self._int("softmax"):
                box[5:] = softmax(box[5:])
        return boxes.reshape(x.shape)

    def _detection(self, x: Array) -> Array:
        y = x.reshape(-1).copy()
        classes = self._int("classes", 1)
        for cell in range(self._int("side", 7) ** 2 if self._int("softmax") else 0):
            y[cell * classes : (cell + 1) * classes] = softmax(y[cell * classes : (cell + 1) * classes])
        return y.reshape(x.shape)

    # memory

    def _rnn(self, x: Array) -> Array:
        hidden, act = self._int("hidden", 1), self._o.get("activation", "logistic")
        own = {0: act, 1: "logistic", 2: "loggy"}[self._int("logistic")]
        old = self._memory("s", (hidden,))
        state = activate(self._matrix(x, hidden, "i"), act) + activate(self._matrix(old, hidden, "s"), own)
        state = state + old if self._int("shortcut") else state
        self._state[self._i, "s"] = state
        return activate(self._matrix(state, self._int("output", 1), "o"), act).reshape(-1, 1, 1)

    def _crnn(self, x: Array) -> Array:
        hidden, act = self._int("hidden", 1), self._o.get("activation", "logistic")
        old = self._memory("s", (hidden, *x.shape[1:]))

        def layer(v: Array, n: int, part: str) -> Array:
            pad = self._pad(self._int("size", 3))
            y = self._conv_layer(v, n, pad, (1, 1), self._int("dilation", 1), self._int("groups", 1), part)
            return activate(y, act)

        state = layer(x, hidden, "i") + layer(old, hidden, "s")
        state = state + old if self._int("shortcut") else state
        self._state[self._i, "s"] = state
        return layer(state, self._int("output", 1), "o")

    def _gru(self, x: Array) -> Array:
        n = self._int("output", 1)
        old = self._memory("s", (n,))
        given = [self._matrix(x, n, f"i{k}") for k in "zrh"]
        z = sigmoid(given[0] + self._matrix(old, n, "sz"))
        r = sigmoid(given[1] + self._matrix(old, n, "sr"))
        h = sigmoid(given[2] + self._matrix(r * old, n, "sh"))
        self._state[self._i, "s"] = new = z * old + (1 - z) * h
        return new.reshape(-1, 1, 1)

    def _lstm(self, x: Array) -> Array:
        n = self._int("output", 1)
        h, c = self._memory("h", (n,)), self._memory("c", (n,))
        w = [self._matrix(h, n, f"w{k}") for k in "figo"]
        u = [self._matrix(x, n, f"u{k}") for k in "figo"]
        f, i, g, o = (a + b for a, b in zip(w, u, strict=True))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        self._state[self._i, "h"], self._state[self._i, "c"] = h, c
        return h.reshape(-1, 1, 1)

    def _conv_lstm(self, x: Array) -> Array:
        n, act, curve = (
            self._int("output", 1),
            self._o.get("activation", "linear"),
            self._o.get("lstm_activation", "tanh"),
        )
        peep, narrow = self._int("peephole"), self._int("bottleneck")
        h, c = (self._memory(k, (n, *x.shape[1:])) for k in "hc")

        def layer(v: Array, part: str) -> Array:
            pad = self._pad(self._int("size", 3))
            y = self._conv_layer(v, n, pad, (1, 1), self._int("dilation", 1), self._int("groups", 1), part)
            return activate(y, act)

        def zero(v: Array, part: str) -> Array:  # draws the weights in the order of the file
            return layer(v, part) if peep else np.zeros(1)

        vf, vi = zero(c, "vf"), zero(c, "vi")
        zero(c, "vo")
        if narrow:
            mixed = activate(layer(np.concatenate([h, x]), "wf"), curve)
            sums = {k: layer(mixed, f"u{k}") for k in "figo"}
        else:
            w = {k: layer(h, f"w{k}") for k in "figo"}
            sums = {k: w[k] + layer(x, f"u{k}") for k in "figo"}
        c = sigmoid(sums["f"] + vf) * c + sigmoid(sums["i"] + vi) * activate(sums["g"], curve)
        h = sigmoid(sums["o"] + zero(c, "vo")) * activate(c, curve)
        limit = self._int("state_constrain", 32)
        self._state[self._i, "h"], self._state[self._i, "c"] = h, np.clip(c, -limit, limit) if limit else c
        return h

    def _history(self, x: Array) -> Array:
        size = self._int("history_size", 4)
        old = self._memory("s", ((size - 1) * len(x), *x.shape[1:]))
        whole = np.concatenate([x, old])
        self._state[self._i, "s"] = whole[: (size - 1) * len(x)]
        return whole
