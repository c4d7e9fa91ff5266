"""Conv and ConvTranspose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import Batch
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import IntegerLayer, integer_layer
from edgewright.runtimes.litert.rules.normalization import factor_and_offset
from edgewright.runtimes.litert.rules.windows import Windows, hand_out, image, padded, windows

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("Conv")
def convolution(lowering: Lowering, node: ir.Node) -> None:
    """CONV_2D, with groups too, or DEPTHWISE_CONV_2D; in integers where all around it is quantized."""
    layer = integer_layer(lowering, node)
    data, shape = node.inputs[0], lowering.sizes(_required(node.inputs[1]))
    assert data is not None
    slid = windows(lowering, node, shape[2:])
    source = image(lowering, data, integers=layer is not None)
    groups = node.attributes.get_int("group", 1)
    depthwise = groups > 1 and groups == sizes_of(source)[3] and shape[1] == 1
    if layer is not None:
        weight = layer.stored(lowering, _turned(layer.weight, depthwise=depthwise), axis=3 if depthwise else 0)
        made = _slide(lowering, slid, [source, weight, layer.bias], layer.act, depthwise=depthwise, layer=layer)
        hand_out(lowering, layer.result, made)
        return
    constants, result = _constants(lowering, node)
    weight = lowering.array(_turned(constants[0], depthwise=depthwise), _required(node.inputs[1]).name or "weight")
    target, act = lowering.absorb(result)
    made = _slide(lowering, slid, [source, weight, _bias(lowering, node, constants[1])], act, depthwise=depthwise)
    hand_out(lowering, target, made)


def _constants(lowering: Lowering, node: ir.Node) -> tuple[tuple[np.ndarray, np.ndarray], ir.Value]:
    """Weights and bias, with the factors and offsets of the BatchNormalization that alone reads the result; its result."""
    weight = lowering.required(node.inputs[1], "weights")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(len(weight), np.float32) if value is None else lowering.required(value, "bias").astype(np.float32)
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "BatchNormalization") or reader.graph is not node.graph:
        return (weight, bias), node.outputs[0]
    factor, offset = factor_and_offset(lowering, reader)
    lowering.skip(reader)
    scaled = weight * factor.reshape([-1] + [1] * (weight.ndim - 1))
    return (scaled.astype(weight.dtype), (bias * factor + offset).astype(np.float32)), reader.outputs[0]


def _turned(weight: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """OIHW as OHWI, or 1HWO for a depthwise convolution; OIW has one row."""
    full = weight[:, :, None, :] if weight.ndim == 3 else weight
    return np.ascontiguousarray(full.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)))


def _slide(
    lowering: Lowering,
    slid: Windows,
    inputs: list[Tensor],
    act: str,
    *,
    depthwise: bool,
    layer: IntegerLayer | None = None,
) -> Tensor:
    source, weight, bias = inputs
    scheme = slid.scheme()
    if scheme is None:
        source, scheme = padded(lowering, source, slid.covering()), "VALID"
    channels = weight.shape[3] if depthwise else weight.shape[0]
    options = {
        "padding": scheme, "fusedActivationFunction": act, "strideH": slid.strides[0], "strideW": slid.strides[1],
        "dilationHFactor": slid.dilations[0], "dilationWFactor": slid.dilations[1],
    }  # fmt: skip
    if depthwise:
        options["depthMultiplier"] = channels // sizes_of(source)[3]
    return lowering.op(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [source, weight, bias],
        (sizes_of(source)[0], *slid.made, channels),
        quantization=layer.quantization if layer else None,
        version=3 if layer else 2 if depthwise else 1,
        **options,
    )


def _bias(lowering: Lowering, node: ir.Node, bias: np.ndarray) -> Tensor:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return lowering.array(bias, (value.name if value is not None else None) or "bias")


@rule("ConvTranspose")
def transposed_convolution(lowering: Lowering, node: ir.Node) -> None:
    """TRANSPOSE_CONV without padding, then the part that ONNX keeps."""
    data = node.inputs[0]
    assert data is not None
    weight = lowering.required(node.inputs[1], "weights").astype(np.float32)
    groups = node.attributes.get_int("group", 1)
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    if weight.ndim != 4:
        raise Refused(f"it slides over {weight.ndim - 2} axes; one or two are known here")
    if groups > 1:
        weight = _spread(weight, groups)
    sizes = lowering.sizes(node.outputs[0])
    spatial = len(sizes) - 2
    lead = [1] * (2 - spatial)
    steps = [*lead, *node.attributes.get_ints("strides", [1] * spatial)]
    if any(step != 1 for step in node.attributes.get_ints("dilations", [1] * spatial)):
        raise Refused("LiteRT has no dilated transposed convolution")
    made = (*lead, *sizes[2:])
    source = image(lowering, data)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    added = np.zeros(weight.shape[1]) if value is None else lowering.required(value, "bias")
    bias = _bias(lowering, node, added.astype(np.float32))
    target, act = lowering.absorb(node.outputs[0])
    tensor = _spread_out(
        lowering, source, [weight, bias], steps, act, made, _before(node, sizes[2:], source, weight, steps)
    )
    hand_out(lowering, target, tensor)


def _before(
    node: ir.Node, made: tuple[int, ...], source: Tensor, weight: np.ndarray, steps: list[int]
) -> tuple[int, int]:
    """Rows and columns that are cut off at the start."""
    spatial = len(made)
    rule_, extra = (
        node.attributes.get_string("auto_pad", "NOTSET"),
        node.attributes.get_ints("output_padding", [0] * spatial),
    )
    pads = node.attributes.get_ints("pads", [0] * 2 * spatial)
    if rule_ in ("SAME_UPPER", "SAME_LOWER") or node.attributes.get_ints("output_shape", []):
        found = []
        for place in range(-spatial, 0):
            full = (sizes_of(source)[1:3][place] - 1) * steps[place] + extra[place] + weight.shape[place]
            total = max(full - made[place], 0)
            found.append(total - total // 2 if rule_ == "SAME_LOWER" else total // 2)
        pads = found
    first = [0] * (2 - spatial) + list(pads[:spatial])
    return first[0], first[1]


def _spread_out(
    lowering: Lowering,
    source: Tensor,
    weights: tuple[np.ndarray, Tensor] | list,  # type: ignore[type-arg]
    steps: list[int],
    act: str,
    made: tuple[int, ...],
    before: tuple[int, int],
) -> Tensor:
    weight, bias = weights
    batch, height, width, _ = sizes_of(source)
    kernel = lowering.array(np.ascontiguousarray(weight.transpose(1, 2, 3, 0)), "weight")
    rows = [
        (size - 1) * step + places for size, step, places in zip((height, width), steps, weight.shape[2:], strict=True)
    ]
    # What ONNX adds at the end (output_padding) lies beyond every window: only the bias is there.
    wanted = [max(full, first + size) for full, first, size in zip(rows, before, made, strict=True)]
    scheme, cut = "VALID", wanted != list(made)
    if _same(rows, before, made, steps, (height, width)):
        scheme, wanted, cut = "SAME", list(made), False
    sizes = (batch, *wanted, weight.shape[1])
    tensor = lowering.op(
        "TRANSPOSE_CONV", [lowering.size_vector(sizes), kernel, source, bias], sizes, source.dtype, padding=scheme,
        strideH=steps[0], strideW=steps[1], fusedActivationFunction=act, version=4 if act != "NONE" else 3,
    )  # fmt: skip
    if not cut:
        return tensor
    start = np.array([0, *before, 0], np.int32)
    size = np.array([-1 if isinstance(batch, Batch) else batch, *made, weight.shape[1]], np.int32)
    return lowering.op("SLICE", [tensor, lowering.array(start), lowering.array(size)], (batch, *made, weight.shape[1]))


def _same(
    rows: list[int], before: tuple[int, int], made: tuple[int, ...], steps: list[int], sizes: tuple[int, int]
) -> bool:
    """True where "SAME" cuts the same places off. Source: tensorflow/lite/kernels/padding.h, of the forward convolution."""
    for full, first, size, step, places in zip(rows, before, made, steps, sizes, strict=True):
        if size != places * step or first != max(full - size, 0) // 2 or full < size:
            return False
    return True


def _spread(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights of groups as those of one group, with zeros between them."""
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], outputs * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * inputs, (group + 1) * inputs)
        full[rows, group * outputs : (group + 1) * outputs] = weight[rows]
    return full


def _required(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
