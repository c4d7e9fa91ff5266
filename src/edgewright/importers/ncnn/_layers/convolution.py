"""Convolutions of lines, maps and volumes, plain, grouped and transposed, float and int8.

Source: Tencent/ncnn, src/layer/convolution.cpp, convolution1d.cpp, convolution3d.cpp, convolutiondepthwise*.cpp,
deconvolution*.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import UNSET, Layer, Sizes
from edgewright.importers.ncnn._layers import quantization
from edgewright.importers.ncnn._layers.dense import multiplied
from edgewright.importers.ncnn._layers.pointwise import activate
from edgewright.importers.ncnn._layers.shaping import padded

if TYPE_CHECKING:
    import onnx_ir as ir

_SAME_LOWER = -234
_LARGEST_WINDOW = 2**16
#: Parameters of each axis, innermost first: kernel, dilation, stride, pad before, pad after.
_AXES = ((1, 2, 3, 4, 15), (11, 12, 13, 14, 16), (21, 22, 23, 24, 17))


@dataclass(frozen=True)
class Window:
    """How a kernel moves, outermost axis first.

    Attributes:
        kernel: Its sizes.
        dilations: Distance of its cells.
        strides: Steps.
        before: Padding before each axis; -233 and -234 stand for SAME.
        after: Padding behind.
    """

    kernel: Sizes
    dilations: Sizes
    strides: Sizes
    before: Sizes
    after: Sizes

    @property
    def extents(self) -> Sizes:
        """Places from the first cell of the kernel to the last."""
        return tuple(dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True))

    def pads(self, layer: Layer, sides: Sizes) -> tuple[list[int], list[int]]:
        """Padding before and behind each axis of an input with `sides`.

        Raises:
            EdgewrightError: E215 for padding that cannot be.
        """
        marks = {*self.before, *self.after}
        if marks in ({UNSET}, {_SAME_LOWER}):
            extra = [
                max(extent + (side - 1) // stride * stride - side, 0)
                for extent, side, stride in zip(self.extents, sides, self.strides, strict=True)
            ]
            small, large = [n // 2 for n in extra], [n - n // 2 for n in extra]
            return (small, large) if marks == {UNSET} else (large, small)
        if min(marks) < 0:
            raise layer.refuse(f"its padding is {min(marks)}")
        return list(self.before), list(self.after)


def read_window(layer: Layer, rank: int) -> Window:
    """The kernel that a layer's parameters describe; outer axes take what the width has, where they have nothing."""
    axes: list[tuple[int, int, int, int, int]] = []
    for number, (kernel, dilation, stride, before, after) in enumerate(_AXES[:rank]):
        width = axes[0] if number else (0, 1, 1, 0, 0)
        size = layer.integer(kernel, width[0], low=1, high=_LARGEST_WINDOW)
        apart = layer.integer(dilation, width[1], low=1, high=_LARGEST_WINDOW)
        step = layer.integer(stride, width[2], low=1, high=_LARGEST_WINDOW)
        pad = layer.integer(before, width[3], low=_SAME_LOWER, high=_LARGEST_WINDOW)
        axes.append((size, apart, step, pad, layer.integer(after, pad, low=_SAME_LOWER, high=_LARGEST_WINDOW)))
    if axes[0][0] < 1:
        raise layer.refuse("its kernel has no size")
    return Window(*zip(*reversed(axes), strict=True))


def convolution(rank: int, *, grouped: bool = False) -> Callable[[Layer], ir.Value]:
    """The builder of convolutions over `rank` axes."""

    def build(layer: Layer) -> ir.Value:
        return _convolution(layer, rank, layer.integer(7, 1, low=1) if grouped else 1, grouped)

    return build


def _convolution(layer: Layer, rank: int, groups: int, grouped: bool) -> ir.Value:
    outputs, window, size = layer.count(0), read_window(layer, rank), layer.integer(6, 0)
    has_bias, value, term = layer.flag(5), layer.number(18, 0.0), layer.integer(8, 0)
    if layer.flag(19):
        raise layer.unsupported("a kernel that another layer computes")
    if term and rank != 2:
        raise layer.unsupported("int8")
    inputs = _inputs(layer, size, outputs, math.prod(window.kernel), groups)
    if len(layer.sizes) == 1 and set(window.kernel) == {1} and layer.sizes[0] == inputs * groups and not grouped:
        return multiplied(layer, outputs, inputs, has_bias, term)
    x = layer.x
    if len(layer.sizes) < rank + 1:  # ncnn takes a blob of fewer sizes for one with one channel
        x = layer.reshape(x, *(1,) * (rank + 1 - len(layer.sizes)), *layer.sizes)
    sizes = layer.sizes_of(x)
    if len(sizes) != rank + 1 or sizes[0] != inputs * groups:
        raise layer.refuse(f"its {size} weights are for {inputs * groups} channels, its input has {sizes[0]}")
    before, after = window.pads(layer, sizes[1:])
    if value:
        x = padded(layer, x, [(0, 0), *zip(before, after, strict=True)], value)
        before, after = [0] * rank, [0] * rank
    spans = [side + low + high for side, low, high in zip(layer.sizes_of(x)[1:], before, after, strict=True)]
    shape = layer.shaped(
        outputs, *((n - k) // s + 1 for n, k, s in zip(spans, window.extents, window.strides, strict=True))
    )
    values, top_scale = read_weights(layer, x, (outputs, inputs, *window.kernel), has_bias, term, groups)
    y = layer.graph.node(
        "Conv", *values, shape=shape, kernel_shape=window.kernel, strides=window.strides,
        dilations=window.dilations, pads=[*before, *after], group=groups,
    )  # fmt: skip
    y = activate(layer, y)
    return y if top_scale is None else quantization.requantized(layer, y, top_scale)


def _inputs(layer: Layer, size: int, outputs: int, cells: int, groups: int) -> int:
    """Input channels of each group, from the number of weights.

    Raises:
        EdgewrightError: E215 where that is none.
    """
    if outputs % groups or size < 1 or size % (outputs * cells):
        raise layer.refuse(
            f"{size} weights are not those of {outputs} outputs in {groups} groups with kernels of {cells}"
        )
    return size // (outputs * cells)


def read_weights(
    layer: Layer, x: ir.Value, shape: Sizes, has_bias: bool, term: int, groups: int = 1
) -> tuple[list[ir.Value], float | None]:
    """The input, weight and bias of a layer as it computes with them, and the scale by which it hands on int8.

    Args:
        layer: The layer, at its weights.
        x: What it reads.
        shape: Of the weights, outputs first.
        has_bias: Whether a bias follows.
        term: int8_scale_term: 0 is float; 1 has a scale of the weights for each group, 2 for each output of plain
            convolutions and one for all of grouped ones; 100 more hands on int8.
        groups: Groups of channels.
    """
    graph, outputs = layer.graph, shape[0]
    array = layer.stored(*shape)
    bias = layer.plain(outputs) if has_bias else None
    if not term:
        if array.dtype == np.int8:
            raise layer.refuse("its weights are int8, but it has no scales (parameter 8)")
        values = [x, graph.weight("weight", array)]
        return values + ([graph.weight("bias", bias)] if bias is not None else []), None
    if term % 100 not in (1, 2) or not 0 < term < 200:
        raise layer.unsupported(f"int8_scale_term {term}")
    scales = layer.plain(outputs if groups == 1 else groups if term % 100 == 1 else 1)
    scales = np.repeat(scales, outputs // len(scales))
    scale = float(layer.plain(1)[0])
    top_scale = float(layer.plain(1)[0]) if term > 100 else None
    values = [quantization.rounded(layer, x, scale), quantization.weight(layer, array, scales)]
    return values + ([graph.weight("bias", bias)] if bias is not None else []), top_scale


# --- transposed ---------------------------------------------------------------------------------------------------------


def deconvolution(rank: int, *, grouped: bool = False) -> Callable[[Layer], ir.Value]:
    """The builder of transposed convolutions over `rank` axes."""

    def build(layer: Layer) -> ir.Value:
        return _deconvolution(layer, rank, layer.integer(7, 1, low=1) if grouped else 1)

    return build


def _deconvolution(layer: Layer, rank: int, groups: int) -> ir.Value:
    outputs, window, size = layer.count(0), read_window(layer, rank), layer.integer(6, 0)
    has_bias = layer.flag(5)
    extra, targets = _output_sizes(layer, rank)
    if layer.flag(28):
        raise layer.unsupported("a kernel that another layer computes")
    inputs = _inputs(layer, size, outputs, math.prod(window.kernel), groups)
    sizes = layer.sizes
    if len(sizes) != rank + 1 or sizes[0] != inputs * groups:
        raise layer.refuse(f"its {size} weights are for {inputs * groups} channels, its input has {sizes[0]}")
    if any(more >= max(pair) for more, *pair in zip(extra, window.strides, window.dilations, strict=True)):
        raise layer.unsupported(f"as much as {max(extra)} behind its result")
    whole = [
        (side - 1) * stride + extent + more
        for side, stride, extent, more in zip(sizes[1:], window.strides, window.extents, extra, strict=True)
    ]
    before, after = _cuts(layer, window, whole, targets)
    shape = layer.shaped(outputs, *(n - low - high for n, low, high in zip(whole, before, after, strict=True)))
    stored = layer.tagged(groups, outputs // groups, inputs, *window.kernel)
    kernel = np.ascontiguousarray(stored.swapaxes(1, 2)).reshape(inputs * groups, outputs // groups, *window.kernel)
    values = [layer.x, layer.graph.weight("weight", kernel)]
    if has_bias:
        values.append(layer.graph.weight("bias", layer.plain(outputs)))
    y = layer.graph.node(
        "ConvTranspose", *values, shape=shape, kernel_shape=window.kernel, strides=window.strides,
        dilations=window.dilations, pads=[*before, *after], group=groups, output_padding=extra,
    )  # fmt: skip
    return activate(layer, y)


def _output_sizes(layer: Layer, rank: int) -> tuple[list[int], list[int]]:
    """What is added behind each axis, and sizes that are asked for (0: none); outermost axis first."""
    added, asked = ((18,), (20,)) if rank == 1 else ((18, 19), (20, 21)) if rank == 2 else ((18, 19, 20), (25, 26, 27))
    extra: list[int] = []
    targets: list[int] = []
    for key in added:
        extra.append(layer.integer(key, extra[0] if extra else 0, low=0, high=_LARGEST_WINDOW))
    for key in asked:
        targets.append(layer.integer(key, targets[0] if targets else 0, low=0))
    return extra[::-1], targets[::-1]


def _cuts(layer: Layer, window: Window, whole: list[int], targets: list[int]) -> tuple[list[int], list[int]]:
    """What is cut off before and behind each axis of the full result.

    Raises:
        EdgewrightError: E204 for SAME without a size, E215 for padding that cannot be.
    """
    marks = {*window.before, *window.after}
    if marks not in ({UNSET}, {_SAME_LOWER}):
        if min(marks) < 0:
            raise layer.refuse(f"its padding is {min(marks)}")
        if any(targets) and not any(marks):
            raise layer.unsupported("a size of the result without SAME")
        return list(window.before), list(window.after)
    if not all(targets):
        return [0] * len(whole), [0] * len(whole)
    cut = [full - target for full, target in zip(whole, targets, strict=True)]
    if min(cut) < 0:
        raise layer.refuse(f"its result would be {targets}, larger than {whole}")
    small, large = [n // 2 for n in cut], [n - n // 2 for n in cut]
    return (small, large) if marks == {UNSET} else (large, small)
