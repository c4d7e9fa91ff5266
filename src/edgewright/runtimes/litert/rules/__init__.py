"""Rules: one module for each family of ONNX operators; importing this fills `registering.RULES`."""

from edgewright.runtimes.litert.rules import (
    activation,
    arithmetic,
    control,
    convolution,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    reshaping,
    resizing,
    transposed,
)

__all__ = [
    "activation", "arithmetic", "control", "convolution", "indexing", "joining", "linear", "normalization", "pooling",
    "quantization", "recurrent", "reduction", "reshaping", "resizing", "transposed",
]  # fmt: skip
