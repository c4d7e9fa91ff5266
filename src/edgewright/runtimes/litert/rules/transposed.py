"""ConvTranspose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import Batch
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.windows import hand_out, image, padded

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Spread:
    """How far windows reach, rows first.

    Attributes:
        steps: From window to window.
        full: Places that windows reach together.
        before: Of these, the ones that are cut off at the start.
        made: Places that are kept.
    """

    steps: tuple[int, int]
    full: tuple[int, int]
    before: tuple[int, int]
    made: tuple[int, int]

    def same(self, sizes: tuple[int, int]) -> bool:
        """True where padding "SAME" cuts the same places off: it is that of the convolution the other way.

        Source: tensorflow/lite/kernels/padding.h.
        """
        axes = zip(sizes, self.steps, self.full, self.before, self.made, strict=True)
        return all(
            made == size * step and full >= made and first == (full - made) // 2
            for size, step, full, first, made in axes
        )


@rule("ConvTranspose")
def transposed_convolution(lowering: Lowering, node: ir.Node) -> None:
    """TRANSPOSE_CONV, then the part that ONNX keeps; what ONNX adds at the end has nothing but the bias."""
    data = node.inputs[0]
    assert data is not None
    weight = _weight(lowering, node)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(weight.shape[1]) if value is None else lowering.required(value, "bias")
    source = image(lowering, data)
    spread = _spread(lowering, node, sizes_of(source)[1:3], weight.shape[2:])
    beyond = any(first + made > full for first, made, full in zip(spread.before, spread.made, spread.full, strict=True))
    inputs = [weight, None if beyond else bias.astype(np.float32)]
    if beyond:
        tensor = _kept(lowering, _written(lowering, source, inputs, spread, "NONE"), spread)
        added = lowering.array(bias.astype(np.float32), "bias")
        target, act = lowering.absorb(node.outputs[0])
        tensor = lowering.op("ADD", [tensor, added], sizes_of(tensor), fusedActivationFunction=act)
    else:
        target, act = lowering.absorb(node.outputs[0])
        tensor = _written(lowering, source, inputs, spread, act)
    hand_out(lowering, target, tensor)


def _weight(lowering: Lowering, node: ir.Node) -> np.ndarray:
    """Weights of all channels as those of one group, [I, O, kH, kW], with zeros between groups."""
    weight = lowering.required(node.inputs[1], "weights").astype(np.float32)
    if weight.ndim not in (3, 4):
        raise Refused(f"it slides over {weight.ndim - 2} axes; one or two are known here")
    if any(step != 1 for step in node.attributes.get_ints("dilations", [])):
        raise Refused("LiteRT has no dilated transposed convolution")
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        return weight
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], outputs * groups, *weight.shape[2:]), np.float32)
    for group in range(groups):
        rows = slice(group * inputs, (group + 1) * inputs)
        full[rows, group * outputs : (group + 1) * outputs] = weight[rows]
    return full


def _spread(lowering: Lowering, node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> Spread:
    """Source: ONNX operator specification, ConvTranspose, for the pads that follow from a wanted size."""
    wanted = lowering.sizes(node.outputs[0])[2:]
    if any(isinstance(size, Batch) for size in wanted):
        raise Refused("its places grow with the batch")
    spatial = len(wanted)
    lead = (1,) * (2 - spatial)
    steps = (*lead, *node.attributes.get_ints("strides", [1] * spatial))
    made = (*lead, *wanted)
    full = tuple((size - 1) * step + places for size, step, places in zip(sizes, steps, kernel, strict=True))
    rule_name = node.attributes.get_string("auto_pad", "NOTSET")
    if rule_name in ("SAME_UPPER", "SAME_LOWER") or node.attributes.get_ints("output_shape", []):
        extra = (0,) * (2 - spatial) + tuple(node.attributes.get_ints("output_padding", [0] * spatial))
        totals = [max(reach + more - size, 0) for reach, more, size in zip(full, extra, made, strict=True)]
        before = tuple(total // 2 if rule_name == "SAME_UPPER" else total - total // 2 for total in totals)
        if rule_name == "NOTSET":
            before = tuple(total // 2 for total in totals)
    else:
        before = (0,) * (2 - spatial) + tuple(node.attributes.get_ints("pads", [0] * 2 * spatial)[:spatial])
    return Spread(_two(steps), _two(full), _two(before), _two(made))


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _written(
    lowering: Lowering, source: Tensor, constants: list[np.ndarray | None], spread: Spread, act: str
) -> Tensor:
    weight, bias = constants
    assert weight is not None
    batch, height, width, _ = sizes_of(source)
    scheme = "SAME" if spread.same((height, width)) and bias is not None else "VALID"
    sizes = (batch, *(spread.made if scheme == "SAME" else spread.full), weight.shape[1])
    kernel = lowering.array(np.ascontiguousarray(weight.transpose(1, 2, 3, 0)), "weight")
    inputs = [lowering.size_vector(sizes), kernel, source]
    if bias is not None:
        inputs.append(lowering.array(bias, "bias"))
    tensor = lowering.op(
        "TRANSPOSE_CONV", inputs, sizes, source.dtype, padding=scheme, strideH=spread.steps[0], strideW=spread.steps[1],
        fusedActivationFunction=act, version=4 if act != "NONE" else 3 if bias is not None else 1,
    )  # fmt: skip
    return tensor if scheme == "SAME" or bias is None else _kept(lowering, tensor, spread)


def _kept(lowering: Lowering, tensor: Tensor, spread: Spread) -> Tensor:
    """The places that ONNX keeps; those beyond every window are zeros."""
    batch, height, width, channels = sizes_of(tensor)
    ends = [first + made for first, made in zip(spread.before, spread.made, strict=True)]
    more = [max(end - size, 0) for end, size in zip(ends, (height, width), strict=True)]
    tensor = padded(lowering, tensor, [(0, more[0]), (0, more[1])])
    sizes = (batch, *spread.made, channels)
    if sizes == sizes_of(tensor):
        return tensor
    start = np.array([0, *spread.before, 0], np.int32)
    size = np.array([-1 if isinstance(batch, Batch) else batch, *spread.made, channels], np.int32)
    return lowering.op("SLICE", [tensor, lowering.array(start), lowering.array(size)], sizes)
