"""Sliding windows: where convolution and pooling look. Shared by both; shapes are f32[N, C, *spatial].

A window is visited offset by offset: for each position inside the kernel, one strided view of the padded input holds
what every output sees there. Memory stays at one padded input, whatever the kernel's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.runtimes.reference.operators import Array


@dataclass(frozen=True)
class Windows:
    """The geometry of one convolution or pooling; every tuple has one entry for each spatial axis.

    Attributes:
        kernel: Size of the kernel.
        strides: Step from window to window.
        dilations: Step from element to element inside a window.
        begin: Padding in front, may be negative (cropping).
        end: Padding behind.
        sizes: Size of the input.
        outputs: Size of the output.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def overhang(self) -> tuple[int, ...]:
        """How far the last window reaches beyond the padding, by `ceil_mode`; 0 or more."""
        axes = zip(self.outputs, self.strides, self.extents, self.sizes, self.begin, self.end, strict=True)
        return tuple(max((o - 1) * s + e - (n + b + a), 0) if o else 0 for o, s, e, n, b, a in axes)

    @property
    def extents(self) -> tuple[int, ...]:
        """Size of a window with its dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def pad(self, x: Array, value: float, overhang: float | None = None) -> Array:
        """`x` with its padding of `value` (crops where negative) and overhang (of the same value by default)."""
        crop = tuple(
            slice(max(-b, 0), n - max(-a, 0)) for b, a, n in zip(self.begin, self.end, self.sizes, strict=True)
        )
        x = x[(slice(None), slice(None), *crop)]
        around = [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(self.begin, self.end, strict=True))]
        x = np.pad(x, around, constant_values=value) if any(map(any, around)) else x
        if not any(self.overhang):
            return x
        behind = [(0, 0), (0, 0), *((0, size) for size in self.overhang)]
        return np.pad(x, behind, constant_values=value if overhang is None else overhang)

    def visit(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """(offset inside the kernel, what every output sees there: f32[N, C, *outputs]) for each offset."""
        for offset in np.ndindex(*self.kernel):
            yield offset, padded[(slice(None), slice(None), *self.seen(offset))]

    def seen(self, offset: Sequence[int]) -> tuple[slice, ...]:
        """Slices of the padded input's spatial axes that all outputs see at `offset` of the kernel."""
        axes = zip(offset, self.dilations, self.strides, self.outputs, strict=True)
        return tuple(slice(k * d, k * d + (o - 1) * s + 1 if o else k * d, s) for k, d, s, o in axes)


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Windows:
    """The geometry that a node's attributes describe, for an input of `sizes`.

    Raises:
        ValueError: An attribute has the wrong length or value, or the kernel does not fit into the padded input.

    Source: ONNX operator specification, Conv and MaxPool, "auto_pad" and output shape.
    """
    rank = len(sizes)
    strides, dilations = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    pads = tuple(pads or (0,) * 2 * rank)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    for name, values in attributes.items():
        needed = 2 * rank if name == "pads" else rank
        if len(values) != needed:
            raise ValueError(f"`{name}` has {len(values)} values, but {rank} spatial axes need {needed}")
    if min((*kernel, *strides, *dilations), default=1) < 1:
        raise ValueError(
            f"kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)} must be 1 or more"
        )
    begin, end, outputs = [], [], []
    for axis, size in enumerate(sizes):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        before, behind = same_padding(size, extent, strides[axis], auto_pad) or (pads[axis], pads[rank + axis])
        begin.append(before)
        end.append(behind)
        outputs.append(_output_size(size, extent, stride=strides[axis], pads=(before, behind), ceil_mode=ceil_mode))
    return Windows(tuple(kernel), strides, dilations, tuple(begin), tuple(end), tuple(sizes), tuple(outputs))


def same_padding(size: int, extent: int, stride: int, auto_pad: str) -> tuple[int, int] | None:
    """Padding in front and behind that `auto_pad` asks for; None for NOTSET.

    Raises:
        ValueError: An unknown `auto_pad`.
    """
    if auto_pad == "NOTSET":
        return None
    if auto_pad == "VALID":
        return 0, 0
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"`auto_pad` is `{auto_pad}`, but must be NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def _output_size(size: int, extent: int, *, stride: int, pads: tuple[int, int], ceil_mode: bool) -> int:
    room = size + sum(pads) - extent
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + pads[0]:
        count -= 1  # a window that starts in the padding behind the input is left out
    if count < 1:
        raise ValueError(
            f"a window of {extent} does not fit into an input of {size} with padding {pads[0]} + {pads[1]}"
        )
    return count
