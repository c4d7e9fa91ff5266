"""Alternatives: what a layer would give with another epsilon, padding, weight order and so on.

An alternative changes a copy of the original's stretch; `causes` runs it and compares with what came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.locate.arrangements import arrangements
from edgewright.locate.changes import (
    Alternative,
    attribute,
    exchange,
    in_turn,
    input_axis,
    label_of,
    leave_out,
    output_axis,
    set_attribute,
    set_input,
    set_weight,
    weight_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

EPSILONS = (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 2e-5, 0.0)
SLOPES = (0.01, 0.1, 0.2, 0.25, 0.3, 0.0, 1.0)
#: Tried as they are, where no activation that can be undone shows the factor; 255: values of pixels for 0..1.
_FACTORS = {"0.5": 0.5, "2": 2.0, "255": 255.0, "1/255": 1 / 255}
_POOLS = ("MaxPool", "AveragePool", "LpPool")
#: Storage orders of O, I, H, W that a weight's memory may be read in by mistake.
_ORDERS = {"OHWI": (0, 2, 3, 1), "HWIO": (2, 3, 1, 0), "IOHW": (1, 0, 2, 3), "HWOI": (2, 3, 0, 1)}
#: With so few input channels every exchange of two is tried.
MOST_PAIRED_INPUTS = 8
_FEW_CHANNELS = 3
_RESIZE = {
    "coordinate_transformation_mode": ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "mode": ("nearest", "linear", "cubic"),
    "cubic_coeff_a": (-0.75, -0.5),
}


def alternatives(node: ir.Node) -> Iterator[Alternative]:
    """Everything that is worth trying on one node."""
    if not is_standard(node, node.op_type):
        return
    yield from _epsilons(node)
    yield from _norms(node)
    yield from _slopes(node)
    yield from _paddings(node)
    yield from _choices(node)
    yield from _operands(node)
    yield from arrangements(node)
    if weight_of(node) is not None:
        yield from _biases(node)
        yield from _weights(node)


def swapped_inputs(node: ir.Node, first: int, second: int) -> Alternative:
    """The weights of two input channels exchanged."""
    weight = weight_of(node)
    assert weight is not None
    order = np.arange(weight.shape[input_axis(node)])
    order[[first, second]] = second, first
    text = f"input channels {first} and {second} of the weights of `{label_of(node)}` are swapped"
    return text, set_weight(np.take(weight, order, input_axis(node)))


def mixes_channels(node: ir.Node) -> bool:
    """False for a convolution in groups, whose output channels read different inputs."""
    return bool(attribute(node, "group", 1) == 1)


def scaled_weight(node: ir.Node, factors: np.ndarray, tolerance: float) -> Alternative | None:
    """The weights of each output channel times its factor; None where they do not fit the node's weights.

    Factors nearer than `tolerance` are the same: they were fitted to values with rounding.
    """
    weight = weight_of(node)
    if weight is None or factors.size != weight.shape[output_axis(node)]:
        return None
    shape = [1] * weight.ndim
    shape[output_axis(node)] = -1
    label = f"the weights of `{label_of(node)}`"
    changed = np.flatnonzero(np.abs(factors - 1) > tolerance)
    if np.ptp(factors) < tolerance:
        factors = np.full_like(factors, np.median(factors))
        text = f"{label} are {factors[0]:.4g} x the original's"
    elif changed.size <= _FEW_CHANNELS:
        factors = np.where(np.abs(factors - 1) > tolerance, factors, 1.0)
        text = ", ".join(f"channel {i} of {label} is {factors[i]:.4g} x the original's" for i in changed)
    else:
        text = f"each channel of {label} has its own factor, {factors.min():.4g} to {factors.max():.4g}"
    return text, set_weight((weight * factors.reshape(shape)).astype(weight.dtype))


def swapped_rows(node: ir.Node, first: int, second: int) -> Alternative | None:
    """The weights of two output channels exchanged; None for a node without weights."""
    weight = weight_of(node)
    if weight is None:
        return None
    axis = output_axis(node)
    if max(first, second) >= weight.shape[axis]:
        return None
    order = np.arange(weight.shape[axis])
    order[[first, second]] = second, first
    text = f"channels {first} and {second} of the weights of `{label_of(node)}` are swapped"
    return text, set_weight(np.take(weight, order, axis))


def _epsilons(node: ir.Node) -> Iterator[Alternative]:
    default = {"BatchNormalization": 1e-5, "LayerNormalization": 1e-5, "InstanceNormalization": 1e-5,
               "GroupNormalization": 1e-5, "RMSNormalization": 1e-5}  # fmt: skip
    if "epsilon" not in node.attributes and node.op_type not in default:
        return
    now = attribute(node, "epsilon", default.get(node.op_type, 0.0))
    for value in EPSILONS:
        if not np.isclose(value, now, rtol=1e-3, atol=0):
            yield f"`epsilon` of `{label_of(node)}` is {value:g} instead of {now:g}", set_attribute("epsilon", value)


def _norms(node: ir.Node) -> Iterator[Alternative]:
    """Batch-norm without one of its parameters, with two of them exchanged, or as pjreddie/darknet computes it."""
    arrays = [constant_array(value) for value in node.inputs[1:]] if node.op_type == "BatchNormalization" else []
    if len(arrays) != 4 or any(array is None for array in arrays):
        return
    scale, shift, mean, variance = (np.asarray(array) for array in arrays)
    label = f"`{label_of(node)}`"
    for index, part, array, neutral in (
        (1, "scale", scale, np.ones_like(scale)),
        (2, "shift", shift, np.zeros_like(shift)),
        (3, "mean", mean, np.zeros_like(mean)),
    ):
        if not np.array_equal(array, neutral):
            yield f"the {part} of {label} is missing", set_input(index, neutral)
    if not np.array_equal(scale, shift):
        yield f"scale and shift of {label} are exchanged", in_turn(set_input(1, shift), set_input(2, scale))
    # Source: pjreddie/darknet, blas.c, normalize_cpu: x / (sqrt(variance) + .000001f)
    outside = (np.sqrt(np.maximum(variance, 0)) + 1e-6) ** 2
    text = f"{label} adds 1e-06 to the root of the variance, instead of `epsilon` below it"
    yield text, in_turn(set_attribute("epsilon", 0.0), set_input(4, outside.astype(variance.dtype)))


def _slopes(node: ir.Node) -> Iterator[Alternative]:
    if node.op_type != "LeakyRelu":
        return
    now = attribute(node, "alpha", 0.01)
    for value in SLOPES:
        if not np.isclose(value, now, rtol=1e-3, atol=1e-9):
            yield f"the slope of `{label_of(node)}` is {value:g} instead of {now:g}", set_attribute("alpha", value)


def _paddings(node: ir.Node) -> Iterator[Alternative]:
    """The same total padding on other sides, so that the output's shape stays."""
    if not is_standard(node, "Conv", "ConvTranspose", *_POOLS):
        return
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        other = "SAME_LOWER" if automatic == "SAME_UPPER" else "SAME_UPPER"
        yield f"padding of `{label_of(node)}` is {other} instead of {automatic}", set_attribute("auto_pad", other)
    pads = tuple(attribute(node, "pads", ()))
    if not any(pads):
        return
    half = len(pads) // 2
    totals = [pads[i] + pads[half + i] for i in range(half)]
    begins = [
        tuple(pads[half:]),
        tuple(totals),
        (0,) * half,
        tuple(total // 2 for total in totals),
        tuple(total - total // 2 for total in totals),
    ]
    if half == 2:
        begins += [(pads[0], pads[3]), (pads[2], pads[1]), (pads[1], pads[0])]
    for begin in dict.fromkeys(begins):
        moved = (*begin, *(total - b for total, b in zip(totals, begin, strict=True)))
        if moved != pads and min(moved) >= 0:
            yield (
                f"padding of `{label_of(node)}` is {list(moved)} instead of {list(pads)}",
                set_attribute("pads", moved),
            )


def _choices(node: ir.Node) -> Iterator[Alternative]:
    """Other values of attributes that name a variant."""
    variants: Mapping[str, Mapping[str, Sequence[Any]]] = {
        "AveragePool": {"count_include_pad": (0, 1)},
        "DepthToSpace": {"mode": ("DCR", "CRD")},
        "Gelu": {"approximate": ("none", "tanh")},
        "Pad": {"mode": ("constant", "reflect", "edge")},
        "Softmax": {"axis": (-1, 1, 2)},
        "LogSoftmax": {"axis": (-1, 1, 2)},
        "Resize": _RESIZE,
    }
    defaults = {"count_include_pad": 0, "approximate": "none", "axis": -1, "cubic_coeff_a": -0.75, "mode": "constant",
                "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}  # fmt: skip
    if node.op_type in ("Resize", "DepthToSpace"):
        defaults["mode"] = "nearest" if node.op_type == "Resize" else "DCR"
    for name, values in variants.get(node.op_type, {}).items():
        now = attribute(node, name, defaults[name])
        for value in values:
            if value != now:
                yield f"`{name}` of `{label_of(node)}` is {value} instead of {now}", set_attribute(name, value)


def _operands(node: ir.Node) -> Iterator[Alternative]:
    """Operands in the other order, or one left out."""
    if node.op_type in ("Sub", "Div", "MatMul") and len(node.inputs) == 2:
        yield f"the operands of `{label_of(node)}` are exchanged", exchange
    if node.op_type == "Add":
        for index in (0, 1):
            value = node.inputs[index]
            name = value.name if value is not None else ""
            yield f"`{name}` is not added by `{label_of(node)}`", leave_out(index)


def _biases(node: ir.Node) -> Iterator[Alternative]:
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and np.any(bias):
        yield f"the bias of `{label_of(node)}` is missing", set_input(2, np.zeros_like(bias))


def _weights(node: ir.Node) -> Iterator[Alternative]:
    weight = weight_of(node)
    assert weight is not None
    label = f"the weights of `{label_of(node)}`"
    for text, factor in _FACTORS.items():
        yield f"{label} are {text} x the original's", set_weight((weight * factor).astype(weight.dtype))
    for name in ("bfloat16", "float16"):
        yield f"{label} are rounded to {name}", rounded_weight(weight, name)
    if weight.ndim == 2 and weight.shape[0] == weight.shape[1]:
        yield f"{label} are transposed", set_weight(weight.T)
    if weight.ndim == 2:
        yield from _flattened(node, weight, label)
    if weight.ndim == 4:
        yield from _kernels(weight, label)
    if weight.ndim >= 3:
        yield from _input_orders(weight, label)


def _kernels(weight: np.ndarray, label: str) -> Iterator[Alternative]:
    high, wide = weight.shape[2:]
    if high == wide > 1:
        yield f"the kernels in {label} are transposed (width and height swapped)", set_weight(weight.swapaxes(2, 3))
    if high > 1 or wide > 1:
        flipped = weight[:, :, ::-1, ::-1]
        yield f"the kernels in {label} are turned by 180 degrees (convolution for correlation)", set_weight(flipped)
    for name, axes in _ORDERS.items():
        read = np.ascontiguousarray(weight.transpose(axes)).reshape(weight.shape)
        if not np.array_equal(read, weight):
            yield f"{label} lie in the order {name}, but are read as OIHW", set_weight(read)
        shape = tuple(weight.shape[axis] for axis in axes)
        read = np.ascontiguousarray(weight).reshape(shape).transpose(np.argsort(axes))
        if not np.array_equal(read, weight):
            yield f"{label} lie in the order OIHW, but are read as {name}", set_weight(read)


def _input_orders(weight: np.ndarray, label: str) -> Iterator[Alternative]:
    count = weight.shape[1]
    if count == 3:
        reverse = weight[:, ::-1]
        yield f"the input channels of {label} are in reverse order, as RGB for BGR", set_weight(reverse)
    if 1 < count <= MOST_PAIRED_INPUTS:
        for first in range(count):
            for second in range(first + 1, count):
                if count == 3 and (first, second) == (0, 2):
                    continue  # the reverse order above
                order = np.arange(count)
                order[[first, second]] = second, first
                yield f"input channels {first} and {second} of {label} are swapped", set_weight(weight[:, order])


def _flattened(node: ir.Node, weight: np.ndarray, label: str) -> Iterator[Alternative]:
    """A matrix after a flattened map whose features come in the order of the other layout."""
    axis = 1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 0
    length = weight.shape[axis]
    for side in range(2, 17):
        channels, rest = divmod(length, side * side)
        if rest or channels < 2:
            continue
        order = np.arange(length).reshape(channels, side, side)
        for text, indices in (
            ("NCHW for NHWC", order.transpose(1, 2, 0)),
            ("width before height", order.swapaxes(1, 2)),
        ):
            turned = np.take(weight, indices.reshape(-1), axis)
            yield (
                f"the inputs of {label} are in another layout: {text} ({channels} x {side} x {side})",
                set_weight(turned),
            )
        back = np.arange(length).reshape(side, side, channels).transpose(2, 0, 1).reshape(-1)
        text = f"the inputs of {label} are in another layout: NHWC for NCHW ({channels} x {side} x {side})"
        yield text, set_weight(np.take(weight, back, axis))


def rounded_weight(weight: np.ndarray, name: str) -> Callable[[ir.Node], None]:
    """The change that rounds a node's weights to the type `name`."""
    return set_weight(rounded(weight, name))


def rounded(array: np.ndarray, name: str) -> np.ndarray:
    """`array` with every value rounded to "bfloat16" or "float16", in its own type."""
    import ml_dtypes

    with np.errstate(over="ignore"):
        return array.astype(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16).astype(array.dtype)
