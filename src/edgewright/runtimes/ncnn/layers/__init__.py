"""From ONNX operators to ncnn layers: one module for each family, one function for each operator."""

from __future__ import annotations

from edgewright.runtimes.ncnn.layers import (
    choosing,
    convolution,
    elementwise,
    linear,
    normalization,
    picking,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    shape,
)
from edgewright.runtimes.ncnn.network import Lowering

#: By operator of the standard domain.
LOWERINGS: dict[str, Lowering] = {
    **choosing.LOWERINGS,
    **convolution.LOWERINGS,
    **elementwise.LOWERINGS,
    **linear.LOWERINGS,
    **normalization.LOWERINGS,
    **picking.LOWERINGS,
    **pooling.LOWERINGS,
    **quantized.LOWERINGS,
    **recurrent.LOWERINGS,
    **reduction.LOWERINGS,
    **resizing.LOWERINGS,
    **shape.LOWERINGS,
}
