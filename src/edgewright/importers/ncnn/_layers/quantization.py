"""int8 as ncnn computes it, written with QuantizeLinear and DequantizeLinear.

ncnn multiplies by a scale, rounds to the nearest (halves away from 0) and keeps to -127..127; sums are exact, and a layer hands
on float unless it requantizes. A QuantizeLinear by 1 / scale is the same but for exact halves, which it rounds to even, and
for -128, which a lower limit before it keeps from coming up where values may be negative. Biases stay in float, as ncnn adds
them: integer ones would move sums by up to half a step of the products, enough to change what later layers round.

Source: Tencent/ncnn, src/layer/quantize.cpp, convolution.cpp (forward_int8), docs/how-to-use-and-FAQ/quantized-int8-inference.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = 127


def rounded(layer: Layer, x: ir.Value, scale: float) -> ir.Value:
    """`x` as the layer reads it: rounded to int8 by its own scale.

    Raises:
        EdgewrightError: E215 for a scale that is none.
    """
    network, graph = layer.network, layer.graph
    key = (x, scale)
    if key not in network.quantized:
        if x in network.integers:  # handed on as int8 already
            step, zero = _numbers(layer, scale)
            network.quantized[key] = graph.node(
                "DequantizeLinear", network.integers[x], step, zero, shape=graph.shape(x)
            )
        else:
            integers, y = quantize(layer, x, scale)
            for value, ending in ((integers, "q"), (y, "dq")):
                value.name = graph.fresh(f"{x.name}:{ending}")
            network.quantized[key] = y
    return network.quantized[key]


def quantize(layer: Layer, x: ir.Value, scale: float) -> tuple[ir.Value, ir.Value]:
    """`x` in int8, and what that stands for in float."""
    graph = layer.graph
    step, zero = _numbers(layer, scale)
    if x not in layer.network.positive:
        x = graph.node("Clip", x, graph.scalar(float(-_LARGEST * np.float32(1 / scale))))
    integers = graph.typed(graph.node("QuantizeLinear", x, step, zero), np.int8)
    return integers, graph.node("DequantizeLinear", integers, step, zero, shape=graph.shape(x))


def requantized(layer: Layer, y: ir.Value, scale: float) -> ir.Value:
    """`y` handed on as int8."""
    integers, dequantized = quantize(layer, y, scale)
    layer.network.integers[dequantized] = integers
    if y in layer.network.positive:
        layer.network.positive.add(dequantized)
    return dequantized


def weight(layer: Layer, array: np.ndarray, scales: np.ndarray) -> ir.Value:
    """Weights of shape [O, ...], int8 or still float, with a scale for each output, as a value that int8 kernels can take.

    Raises:
        EdgewrightError: E215 for scales that are none.
    """
    graph = layer.graph
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise layer.refuse("its weights have scales that are no positive numbers")
    if array.dtype != np.int8:
        scaled = array * scales.reshape(-1, *[1] * (array.ndim - 1))
        array = np.clip(np.trunc(scaled + np.copysign(np.float32(0.5), scaled)), -_LARGEST, _LARGEST).astype(np.int8)
    # A channel with scale 0 has no weights in ncnn.
    array = np.where(scales.reshape(-1, *[1] * (array.ndim - 1)) > 0, array, np.int8(0))
    with np.errstate(divide="ignore", over="ignore"):
        steps = np.where(scales > 0, np.float32(1) / scales, np.float32(1)).astype(np.float32)
    if not np.isfinite(steps).all():
        raise layer.refuse("its weights have scales too small for single precision")
    values = [graph.weight("weight", array), graph.weight("weight_steps", steps)]
    zeros = graph.weight("weight_zeros", np.zeros(len(steps), np.int8))
    return graph.node("DequantizeLinear", *values, zeros, shape=array.shape, axis=0)


def _numbers(layer: Layer, scale: float) -> tuple[ir.Value, ir.Value]:
    """Step and zero point of a tensor.

    Raises:
        EdgewrightError: E215 for a scale that is none.
    """
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(np.float32(1 / scale)) and np.float32(1 / scale) > 0):
        raise layer.refuse(f"its input has scale {scale}, but must have a positive number")
    graph = layer.graph
    zero = graph.shared(f"zero.{np.dtype(np.int8).name}", np.array(0, np.int8))
    return graph.scalar(float(np.float32(1 / scale))), zero
