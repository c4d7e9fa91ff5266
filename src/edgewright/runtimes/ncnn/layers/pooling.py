"""Pools over windows and over everything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgewright.formats.ncnn.writing import Param
from edgewright.runtimes.ncnn.layers.convolution import padding
from edgewright.runtimes.ncnn.network import Network, UnsupportedError, dims_of, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

MAX, AVERAGE = 0, 1
_GLOBAL = {"GlobalMaxPool": MAX, "GlobalAveragePool": AVERAGE}
#: Only whole windows count: what a window may hang over is said by the padding.
_VALID = 1
#: Numbers of the parameters for each spatial axis, in ONNX's order of axes, by their count.
_KERNEL = {1: (1,), 2: (11, 1), 3: (21, 11, 1)}
_STRIDE = {1: (2,), 2: (12, 2), 3: (22, 12, 2)}
_BEFORE = {1: (3,), 2: (13, 3), 3: (23, 13, 3)}
_AFTER = {1: (14,), 2: (15, 14), 3: (16, 15, 14)}
_RANK = {1: "1D", 2: "", 3: "3D"}


def lower_pool(network: Network, node: ir.Node) -> None:
    """MaxPool and AveragePool. Padding at the end is what the last window needs, whatever the rounding of the size."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    kernel = node.attributes.get_ints("kernel_shape", [])
    spatial, shape, result = len(kernel), shape_of(data), shape_of(made)
    if shape[0] != 1 or not 1 <= spatial <= 3:
        raise UnsupportedError(f"ncnn pools one sample of one to three spatial axes, not {list(shape)}")
    if any(step != 1 for step in node.attributes.get_ints("dilations", [1])):
        raise UnsupportedError("ncnn has no dilated pools")
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise UnsupportedError("its indices are used")
    strides = list(node.attributes.get_ints("strides", [1] * spatial))
    pads = padding(node, shape[2:], kernel)
    counted = bool(node.attributes.get_int("count_include_pad", 0))
    after = []
    for axis in range(spatial):
        reach = (result[2 + axis] - 1) * strides[axis] + kernel[axis]
        needed = max(reach - shape[2 + axis] - pads[axis], 0)
        if counted and needed > pads[spatial + axis]:
            raise UnsupportedError("its last window hangs over the padding, which ncnn would count")
        after.append(needed)
    params: dict[int, Param] = {0: MAX if node.op_type == "MaxPool" else AVERAGE, 5: _VALID}
    params |= dict(zip(_KERNEL[spatial], kernel, strict=True))
    params |= dict(zip(_STRIDE[spatial], strides, strict=True))
    params |= dict(zip(_BEFORE[spatial], pads[:spatial], strict=True))
    params |= dict(zip(_AFTER[spatial], after, strict=True))
    if counted:
        params[6] = 1
    network.add(f"Pooling{_RANK[spatial]}", (network.read(data, dims_of(shape)),), made, params)


def lower_global_pool(network: Network, node: ir.Node) -> None:
    """GlobalAveragePool and GlobalMaxPool; what ncnn makes is a vector."""
    data = node.inputs[0]
    assert data is not None
    pool_everything(network, data, node.outputs[0], _GLOBAL[node.op_type])


def pool_everything(network: Network, data: ir.Value, made: ir.Value, kind: int) -> None:
    """`made` from all but the channels of `data`, f32[1, C, ...]."""
    shape = shape_of(data)
    if shape[0] != 1 or len(shape) < 3:
        raise UnsupportedError(f"ncnn pools one sample of channels, not {list(shape)}")
    dims = dims_of(shape) if len(shape) == 4 else (shape[1], 1, math.prod(shape[2:]))
    network.add("Pooling", (network.read(data, dims),), made, {0: kind, 4: 1}, dims=(shape[1],))


LOWERINGS = {
    "AveragePool": lower_pool,
    "MaxPool": lower_pool,
    "GlobalAveragePool": lower_global_pool,
    "GlobalMaxPool": lower_global_pool,
}
