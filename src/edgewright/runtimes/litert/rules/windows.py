"""Windows over places: padding and sizes that convolutions and pools have in common, in channels-last order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import Batch, channels_last
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Windows:
    """Windows over an image, rows first; a signal is an image of one row.

    Attributes:
        kernel: Places of a window.
        strides: Steps from window to window.
        dilations: Steps within a window.
        pads: (before, after) of each axis, in places.
        sizes: Places of the image.
        made: Windows.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    sizes: tuple[int, int]
    made: tuple[int, int]

    @property
    def extent(self) -> tuple[int, int]:
        """Places from the first to the last of a window."""
        (a, b), (c, d) = self.kernel, self.dilations
        return ((a - 1) * c + 1, (b - 1) * d + 1)

    def scheme(self) -> str | None:
        """ "VALID" or "SAME" where that pads as asked for, else None.

        Source: tensorflow/lite/kernels/padding.h.
        """
        if not any(map(any, self.pads)) and self._made_by(self.sizes):
            return "VALID"
        for size, step, reach, pads, made in zip(
            self.sizes, self.strides, self.extent, self.pads, self.made, strict=True
        ):
            total = max((made - 1) * step + reach - size, 0)
            if made != -(-size // step) or pads[0] != total // 2 or pads[1] < total - total // 2:
                return None
        return "SAME"

    def covering(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pads with which "VALID" windows are as many as asked for: those at the end are cut or lengthened."""
        after = [
            (made - 1) * step + reach - size - pads[0]
            for size, step, reach, pads, made in zip(
                self.sizes, self.strides, self.extent, self.pads, self.made, strict=True
            )
        ]
        (top, _), (left, _) = self.pads
        return ((top, max(after[0], 0)), (left, max(after[1], 0)))

    def _made_by(self, sizes: Sequence[int]) -> bool:
        steps = zip(sizes, self.extent, self.strides, self.made, strict=True)
        return all((size - reach) // step + 1 == made for size, reach, step, made in steps)


def windows(lowering: Lowering, node: ir.Node, kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or a pool over its first input.

    Raises:
        Refused: For more than two spatial axes, and where places grow with the batch.
    """
    data = node.inputs[0]
    assert data is not None
    sizes, made = lowering.sizes(data)[2:], lowering.sizes(node.outputs[0])[2:]
    if len(sizes) not in (1, 2):
        raise Refused(f"it slides over {len(sizes)} axes; one or two are known here")
    if any(isinstance(size, Batch) for size in (*sizes, *made)):
        raise Refused("its places grow with the batch")
    ones = [1] * len(sizes)
    strides = node.attributes.get_ints("strides", ones)
    dilations = node.attributes.get_ints("dilations", ones)
    pads = _pads(node, sizes, kernel, strides, dilations)
    lead = (1,) * (2 - len(sizes))
    return Windows(
        kernel=_pair(lead, kernel),
        strides=_pair(lead, strides),
        dilations=_pair(lead, dilations),
        pads=(pads[-2] if len(pads) == 2 else (0, 0), pads[-1]),
        sizes=_pair(lead, sizes),
        made=_pair(lead, made),
    )


def _pair(lead: Sequence[int], values: Sequence[int]) -> tuple[int, int]:
    first, second = (*lead, *values)
    return int(first), int(second)


def _pads(
    node: ir.Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    rule = node.attributes.get_string("auto_pad", "NOTSET")
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, places, step, apart in zip(sizes, kernel, strides, dilations, strict=True):
            total = max((-(-size // step) - 1) * step + (places - 1) * apart + 1 - size, 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if rule == "SAME_UPPER" else (more, less))
        return found
    flat = node.attributes.get_ints("pads", [0] * 2 * len(sizes)) if rule == "NOTSET" else [0] * 2 * len(sizes)
    return list(zip(flat[: len(sizes)], flat[len(sizes) :], strict=True))


def image(lowering: Lowering, value: ir.Value, *, integers: bool = False) -> Tensor:
    """`value` as NHWC; a signal NCL as N1LC."""
    held = lowering.raw(value) if integers else lowering.get(value)
    tensor = lowering.ordered(held, channels_last(len(held.order)))
    if len(held.order) == 4:
        return tensor
    batch, length, channels = sizes_of(tensor)
    return lowering.reshaped(tensor, (batch, 1, length, channels))


def padded(lowering: Lowering, tensor: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """NHWC `tensor` with its places padded by `value`."""
    if not any(map(any, pads)):
        return tensor
    batch, height, width, channels = sizes_of(tensor)
    (top, bottom), (left, right) = pads
    amounts = lowering.array(np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32), "pads")
    sizes = (batch, height + top + bottom, width + left + right, channels)
    if value == 0:  # of integers the zero point
        return lowering.op("PAD", [tensor, amounts], sizes)
    number = lowering.number(value, tensor)
    if tensor.quantization is not None:  # kernels compare what the integers mean
        number = Tensor(lowering.fresh("fill"), tensor.dtype, (1,), data=number.data, quantization=tensor.quantization)
    return lowering.op("PADV2", [tensor, amounts, number], sizes)


def hand_out(lowering: Lowering, value: ir.Value, tensor: Tensor) -> None:
    """`value`, of the rank of the node's output, is the NHWC `tensor`."""
    rank = len(lowering.sizes(value))
    if rank == 3:
        batch, _, length, channels = sizes_of(tensor)
        tensor = lowering.reshaped(tensor, (batch, length, channels))
    lowering.hold(value, tensor, channels_last(rank))
