"""How a layer goes over its input: an operator's attributes as the sizes of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.runtimes.native.plan import made_places
from edgewright.runtimes.native.planner import Held, UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir


def ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute of whole numbers."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default


def whole(node: ir.Node, name: str, default: int = 0) -> int:
    """An attribute that is a whole number."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def number(node: ir.Node, name: str, default: float) -> float:
    """An attribute that is a number."""
    return float(node.attributes[name].value) if name in node.attributes else default


def window(node: ir.Node, held: Held, kernel: tuple[int, ...], *, filters: int, groups: int) -> dict[str, int]:
    """The sizes of a convolution or pool over `held`, in the kernels' order.

    Raises:
        UnsupportedError: It has not two places, or a padding that a step has not.
    """
    if len(held.shape) != 4 or len(kernel) != 2:
        raise UnsupportedError(f"windows go over two axes here, not over {list(held.shape)}")
    strides, dilations = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    pads = list(_pads(node, held.shape[2:], kernel, strides, dilations))
    if whole(node, "ceil_mode"):
        for axis in range(2):
            pads[2 + axis] += _missing(
                held.shape[2 + axis], kernel[axis], strides[axis], dilations[axis], (pads[axis], pads[2 + axis])
            )
    if min(pads) < 0:
        raise UnsupportedError(f"its padding is negative: {pads}")
    batch, channels, height, width = held.shape
    return {
        "batch": batch, "height": height, "width": width, "channels": channels, "filters": filters,
        "kernel_h": kernel[0], "kernel_w": kernel[1], "stride_h": strides[0], "stride_w": strides[1],
        "dilation_h": dilations[0], "dilation_w": dilations[1],
        "top": pads[0], "left": pads[1], "bottom": pads[2], "right": pads[3], "groups": groups,
    }  # fmt: skip


def made(sizes: dict[str, int]) -> tuple[int, int, int, int]:
    """The shape that such a layer makes, in ONNX's order."""
    height, width = made_places(sizes)
    if min(height, width) < 1:
        raise UnsupportedError("its window is larger than the padded input")
    return (sizes["batch"], sizes["filters"], height, width)


def _pads(
    node: ir.Node,
    places: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Top, left, bottom, right."""
    auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if auto == "NOTSET":
        return ints(node, "pads", (0, 0, 0, 0))
    before, after = [0, 0], [0, 0]
    if auto != "VALID":
        for axis in range(2):
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            total = max((-(-places[axis] // strides[axis]) - 1) * strides[axis] + reach - places[axis], 0)
            small, large = total // 2, total - total // 2
            before[axis], after[axis] = (large, small) if auto == "SAME_LOWER" else (small, large)
    return (*before, *after)


def _missing(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    """Padding at the end that makes the last, incomplete window a whole one; none where it would start behind the input."""
    room = size + sum(pads) - dilation * (kernel - 1) - 1
    rest = -room % stride
    starts = room // stride * stride + stride if rest else 0
    return rest if starts < size + pads[0] else 0
