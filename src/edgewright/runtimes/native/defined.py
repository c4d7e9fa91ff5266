"""The steps of a plan in numpy: what each kernel means, and what runs where the package has no C++ kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgewright.ops import binary, packing
from edgewright.ops.binary import Affine, Window
from edgewright.runtimes.native.plan import KERNELS, pool_sizes

Span = tuple[int, int]
Arrays = dict[str, np.ndarray]
_SIGMOID, _TANH, _EXP = range(3)


class Defined:
    """A network of numpy steps, with the calls of `_native.Network`."""

    def __init__(self, arena_bytes: int) -> None:
        self._arena = np.zeros(arena_bytes, np.uint8)
        self._steps: list[Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], None]] = []

    def add(
        self,
        kernel: str,
        sizes: list[int],
        numbers: list[float],
        reads: list[Span],
        writes: list[Span],
        constants: list[np.ndarray | None],
    ) -> None:
        """One more step; its arrays are views of the arena."""
        inside = [[self._view(span) for span in spans] for spans in (reads, writes)]
        if kernel in ("feed", "take"):
            self._steps.append(_exchange(kernel, sizes, (inside[0] or inside[1])[0]))
            return
        fields = KERNELS[kernel]
        given = dict(zip(fields.sizes, sizes, strict=False))
        named = {
            f"{group}.{name.rstrip('?')}": array
            for group, names, arrays in (
                ("in", fields.reads, inside[0]), ("out", fields.writes, inside[1]), ("const", fields.constants, constants)
            )
            if "..." not in names
            for name, array in zip(names, arrays, strict=True)
            if array is not None
        }  # fmt: skip
        if kernel == "concat":
            self._steps.append(lambda _i, _o: _concat(sizes, inside[0], inside[1][0]))
            return
        self._steps.append(lambda _i, _o: _KERNELS[kernel](given, numbers, named))

    def finish(self) -> None:
        """Nothing: the memory is there."""

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray], seconds: Any, pool: Any) -> None:
        """All steps; arrays are bytes, in the order of the feed and take steps."""
        for step in self._steps:
            step(inputs, outputs)

    def _view(self, span: Span) -> Any:
        offset, size_bytes = span
        return None if offset < 0 else self._arena[offset : offset + size_bytes]


def _exchange(kernel: str, sizes: list[int], place: np.ndarray) -> Callable[..., None]:
    index, item, batch, rows, columns = sizes
    dtype = np.float32 if item == 4 else np.uint8

    def run(inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        inside = place.view(dtype).reshape(batch, columns, rows)
        outside = (inputs if kernel == "feed" else outputs)[index].view(dtype).reshape(batch, rows, columns)
        if kernel == "feed":
            inside[...] = outside.transpose(0, 2, 1)
        else:
            outside[...] = inside.transpose(0, 2, 1)

    return run


def _floats(array: np.ndarray | None) -> Any:
    return None if array is None else array.view(np.float32)


def _finished(y: np.ndarray, residual: np.ndarray | None, numbers: Sequence[float], named: Arrays) -> np.ndarray:
    """limit(slope(y + shift + residual)), channels last."""
    if "const.shift" in named:
        y = y + _floats(named["const.shift"])
    if residual is not None:
        y = y + _floats(residual).reshape(y.shape)
    if "const.slope" in named:
        y = np.where(y < 0, y * _floats(named["const.slope"]), y)
    limited: np.ndarray = np.clip(y, np.float32(numbers[0]), np.float32(numbers[1]))
    return limited


def _patches(s: dict[str, int], x: np.ndarray, fill: float) -> np.ndarray:
    """f32[N, OH, OW, kh, kw, C]: each output's window."""
    pads = ((0, 0), (s["top"], s["bottom"]), (s["left"], s["right"]), (0, 0))
    padded = np.pad(x, pads, constant_values=fill)
    reach = (s["dilation_h"] * (s["kernel_h"] - 1) + 1, s["dilation_w"] * (s["kernel_w"] - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))  # [N, H, W, C, rh, rw]
    windows = windows[:, :: s["stride_h"], :: s["stride_w"], :, :: s["dilation_h"], :: s["dilation_w"]]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def _image(s: dict[str, int], named: Arrays) -> np.ndarray:
    image: np.ndarray = _floats(named["in.x"]).reshape(s["batch"], s["height"], s["width"], s["channels"])
    return image


def _sums(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> np.ndarray:
    """What a convolution makes, [N, OH, OW, filters]."""
    groups, taps = s["groups"], s["kernel_h"] * s["kernel_w"]
    patches = _patches(s, _image(s, named), 0.0)
    front = patches.shape[:3]
    each, of_each = s["channels"] // groups, s["filters"] // groups
    weights = _floats(named["const.weights"]).reshape(groups, of_each, taps * each)
    seen = patches.reshape(*front, taps, groups, each)
    made = [seen[..., g, :].reshape(-1, taps * each) @ weights[g].T for g in range(groups)]
    y = np.concatenate(made, axis=-1).reshape(*front, s["filters"])
    return _finished(y, named.get("in.residual"), numbers, named)


def _conv(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    _floats(named["out.y"])[...] = _sums(s, numbers, named).reshape(-1)


def _conv_pool(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    largest = _patches(pool_sizes(s), _sums(s, numbers, named), -math.inf).max(axis=(3, 4))
    _floats(named["out.y"])[...] = largest.reshape(-1)


def _pool(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    x, axes = _image(s, named), (3, 4)
    if s["pooling"] == 0:
        y = _patches(s, x, -math.inf).max(axis=axes)
    else:
        count = np.maximum(_patches(s, np.ones_like(x), 0.0).sum(axis=axes), 1)
        y = _patches(s, x, 0.0).sum(axis=axes) / (s["kernel_h"] * s["kernel_w"] if s["pooling"] == 2 else count)
    _floats(named["out.y"])[...] = y.reshape(-1)


def _pointwise(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    y = _floats(named["in.x"]).reshape(s["batch"], s["pixels"], s["channels"])
    if "in.factor" in named:
        y = y * _floats(named["in.factor"]).reshape(s["batch"], 1, s["channels"])
    if "const.scale" in named:
        y = y * _floats(named["const.scale"])
    _floats(named["out.y"])[...] = _finished(y, named.get("in.residual"), numbers, named).reshape(-1)


def _concat(sizes: list[int], parts: list[np.ndarray], to: np.ndarray) -> None:
    joined = np.concatenate([_floats(part).reshape(sizes[0], -1) for part in parts], axis=1)
    _floats(to)[...] = joined.reshape(-1)


def _softmax(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    x = _floats(named["in.x"]).reshape(s["rows"], s["columns"])
    raised = np.exp(x - x.max(axis=1, keepdims=True))
    _floats(named["out.y"])[...] = (raised / raised.sum(axis=1, keepdims=True)).reshape(-1)


def _map(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    x, y = _floats(named["in.x"]), _floats(named["out.y"])
    with np.errstate(over="ignore"):
        if s["function"] == _SIGMOID:
            y[...] = 1 / (1 + np.exp(-x))
        else:
            y[...] = np.tanh(x) if s["function"] == _TANH else np.exp(x)


def _transpose(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    x = _floats(named["in.x"]).reshape(s["batch"], s["rows"], s["columns"])
    _floats(named["out.y"])[...] = x.transpose(0, 2, 1).reshape(-1)


def _expand(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    made = [s[f"size_{axis}"] for axis in range(4)]
    read = [1 if s[f"repeats_{axis}"] else size for axis, size in enumerate(made)]
    _floats(named["out.y"])[...] = np.broadcast_to(_floats(named["in.x"]).reshape(read), made).reshape(-1)


def _slice(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    size, made, start, before, step = (
        [s[f"{what}_{axis}"] for axis in range(4)] for what in ("size", "made", "start", "before", "step")
    )
    x = _floats(named["in.x"]).reshape(size)
    y = np.full(made, numbers[0], np.float32)
    places = [start[axis] - before[axis] + step[axis] * np.arange(made[axis]) for axis in range(4)]
    inside = [(place >= 0) & (place < size[axis]) for axis, place in enumerate(places)]
    taken = np.ix_(*(place[known] for place, known in zip(places, inside, strict=True)))
    y[np.ix_(*inside)] = x[taken]
    _floats(named["out.y"])[...] = y.reshape(-1)


def _pack(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    x = _floats(named["in.x"]).reshape(s["pixels"], s["channels"])
    named["out.signs"][...] = packing.pack_signs(x, _floats(named.get("const.threshold"))).reshape(-1)


def _dots(s: dict[str, int], named: Arrays) -> np.ndarray:
    strides, dilations = (s["stride_h"], s["stride_w"]), (s["dilation_h"], s["dilation_w"])
    pads = (s["top"], s["left"], s["bottom"], s["right"])
    window = Window(strides, dilations, pads, -1 if s["pads_minus"] else 1, s["groups"])
    packed = named["in.signs"].reshape(s["batch"], s["height"], s["width"], -1)
    weights = named["const.weights"].reshape(s["filters"], s["kernel_h"], s["kernel_w"], -1)
    return binary.conv_dots(packed, weights, s["channels"], window)


def _binary_conv(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    dots = _dots(s, named)
    how = Affine(*(_floats(named.get(f"const.{name}")) for name in ("scale", "shift", "slope")), *numbers)
    residual = named.get("in.residual")
    y = binary.affine(dots, how, None if residual is None else _floats(residual).reshape(dots.shape))
    _floats(named["out.y"])[...] = y.reshape(-1)
    if "out.signs" in named:
        signs = packing.pack_signs(y.reshape(-1, s["filters"]), _floats(named.get("const.threshold")))
        named["out.signs"][...] = signs.reshape(-1)


def _binary_signs(s: dict[str, int], numbers: Sequence[float], named: Arrays) -> None:
    threshold, flip = named["const.threshold"].view(np.int32), named["const.flip"].astype(bool)
    named["out.signs"][...] = binary.below(_dots(s, named), threshold, flip).reshape(-1)


_KERNELS: dict[str, Callable[[dict[str, int], Sequence[float], Arrays], None]] = {
    "conv": _conv,
    "conv_pool": _conv_pool,
    "depthwise": _conv,
    "pool": _pool,
    "pointwise": _pointwise,
    "softmax": _softmax,
    "map": _map,
    "transpose": _transpose,
    "expand": _expand,
    "slice": _slice,
    "pack": _pack,
    "binary_conv": _binary_conv,
    "binary_signs": _binary_signs,
}
