"""Pools over windows and over whole images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import channels_last, identity
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import is_int8, result_of
from edgewright.runtimes.litert.rules.windows import Windows, hand_out, image, padded, windows

if TYPE_CHECKING:
    import onnx_ir as ir

_LOWEST = float(np.finfo(np.float32).min)


@rule("MaxPool")
def max_pool(lowering: Lowering, node: ir.Node) -> None:
    """MAX_POOL_2D; of integers the largest is the largest of what they mean."""
    data = _data(node)
    slid = _windows(lowering, node)
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refused("LiteRT's pools give no indices")
    source = image(lowering, data, integers=True)
    scheme = slid.scheme()
    if scheme is None:
        # Beside values that are not negative a zero never wins, and zeros are what kernels pad with for nothing.
        smallest = _LOWEST if source.dtype == "float32" else float(np.iinfo(source.dtype).min)
        lowest = 0.0 if source.dtype == "float32" and _not_negative(data) else smallest
        source, scheme = padded(lowering, source, slid.covering(), lowest), "VALID"
    hand_out(lowering, node.outputs[0], _pool(lowering, "MAX_POOL_2D", source, slid, scheme))


@rule("AveragePool")
def average_pool(lowering: Lowering, node: ir.Node) -> None:
    """AVERAGE_POOL_2D, which leaves padding out of the mean; else a sum of windows over the number that counts."""
    slid = _windows(lowering, node)
    source = image(lowering, _data(node))
    counted = bool(node.attributes.get_int("count_include_pad", 0))
    scheme = slid.scheme()
    if scheme == "VALID" or (scheme == "SAME" and not counted):
        hand_out(lowering, node.outputs[0], _pool(lowering, "AVERAGE_POOL_2D", source, slid, scheme))
        return
    mean = _pool(lowering, "AVERAGE_POOL_2D", padded(lowering, source, slid.covering()), slid, "VALID")
    share = _share(slid, counted=counted)
    if not np.all(share == 1):
        mean = lowering.op("MUL", [mean, lowering.array(share)], sizes_of(mean))
    hand_out(lowering, node.outputs[0], mean)


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(lowering: Lowering, node: ir.Node) -> None:
    """MEAN or REDUCE_MAX over the places; the mean in integers where both sides are."""
    data = _data(node)
    kind = "MEAN" if node.op_type == "GlobalAveragePool" else "REDUCE_MAX"
    result = result_of(lowering, node) if is_int8(lowering, data) and kind == "MEAN" else None
    if result is not None and result.act != "NONE":
        result = None
    held = lowering.get(data) if result is None else lowering.raw(data)
    rank = len(held.order)
    order = channels_last(rank) if rank == 4 else held.order
    tensor = lowering.ordered(held, order)
    places = [place for place, axis in enumerate(order) if axis >= 2]
    axes = lowering.array(np.array(places, np.int32), "axes")
    held_in = result.quantization if result else None
    for part in result.skipped if result else ():
        lowering.skip(part)
    value = result.value if result else node.outputs[0]
    flat = _flattener(lowering, value)
    keep = flat is None
    sizes = [1 if at in places else size for at, size in enumerate(sizes_of(tensor)) if keep or at not in places]
    made = lowering.op(kind, [tensor, axes], sizes, quantization=held_in, keepDims=keep)
    if flat is None:
        lowering.hold(value, made, order)
    else:
        lowering.skip(flat)
        lowering.hold(flat.outputs[0], made, identity(2))


def _flattener(lowering: Lowering, value: ir.Value) -> ir.Node | None:
    """The node that alone reads the pooled `value` and only drops its places: the reduction drops them itself."""
    reader = sole_consumer(value)
    if reader is None or not is_standard(reader, "Flatten", "Reshape", "Squeeze") or reader.graph is not value.graph:
        return None
    return reader if lowering.sizes(reader.outputs[0]) == lowering.sizes(value)[:2] else None


def _windows(lowering: Lowering, node: ir.Node) -> Windows:
    slid = windows(lowering, node, node.attributes.get_ints("kernel_shape", []))
    if slid.dilations != (1, 1):
        raise Refused("LiteRT has no dilated pool")
    return slid


def _pool(lowering: Lowering, kind: str, source: Tensor, slid: Windows, scheme: str) -> Tensor:
    batch, _, _, channels = sizes_of(source)
    return lowering.op(
        kind, [source], (batch, *slid.made, channels), padding=scheme, strideH=slid.strides[0], strideW=slid.strides[1],
        filterHeight=slid.kernel[0], filterWidth=slid.kernel[1], fusedActivationFunction="NONE",
    )  # fmt: skip


def _share(slid: Windows, *, counted: bool) -> np.ndarray:
    """Places of each full window over those that count, f32[1, H, W, 1].

    Source: ONNX operator specification, AveragePool: what `ceil_mode` adds at the end never counts.
    """
    counts = []
    for size, places, step, pads, made in zip(slid.sizes, slid.kernel, slid.strides, slid.pads, slid.made, strict=True):
        starts = np.arange(made) * step - pads[0]
        low, high = (-pads[0], size + pads[1]) if counted else (0, size)
        counts.append(np.minimum(starts + places, high) - np.maximum(starts, low))
    share: np.ndarray = slid.kernel[0] * slid.kernel[1] / np.outer(*counts).astype(np.float32)
    return share.astype(np.float32)[None, :, :, None]


def _not_negative(value: ir.Value) -> bool:
    node = value.producer()
    if node is None:
        return False
    if is_standard(node, "Clip"):
        low = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and float(low.reshape(())) >= 0
    return is_standard(node, "Relu", "Sigmoid", "HardSigmoid", "Softmax")


def _data(node: ir.Node) -> ir.Value:
    data = node.inputs[0]
    assert data is not None
    return data
