"""Layers with float weights, and pools."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtimes.native.plan import KERNELS
from edgewright.runtimes.native.planner import POOLED, Draft, Planner, Rule, UnsupportedError, constant
from edgewright.runtimes.native.rules.windows import ints, made, number, whole, window

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST, MEAN, MEAN_OF_ALL = range(3)
#: Where a pool joins a convolution: one that reads few channels and makes more bytes than lie well in a cache; and the pool's
#: windows are so low that threads share its rows out without computing many of the convolution's twice.
_STEM_CHANNELS, _LARGE_BYTES, _POOL_ROWS = 16, 2**18, 3


def _conv(planner: Planner, node: ir.Node) -> None:
    held = planner.last(planner.floats(node.inputs[0]))
    weights = constant(node.inputs[1], "weights")
    groups = whole(node, "group", 1)
    sizes = window(node, held, weights.shape[2:], filters=len(weights), groups=groups)
    constants = {"weights": np.ascontiguousarray(np.moveaxis(weights, 1, -1))}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        constants["shift"] = constant(node.inputs[2], "bias")
    own = groups == held.shape[1] == len(weights)
    kernel = "depthwise" if own and groups > 1 else "conv"
    planner.add(node.outputs[0], Draft(kernel, sizes, {"x": held}, {"y": planner.fresh(made(sizes))}, constants))


def _linear(planner: Planner, node: ir.Node, weights: np.ndarray, shift: np.ndarray | None) -> None:
    """x [..., K] times weights [M, K]: a convolution whose pixels, in one row, are what comes before K."""
    held = planner.plain(planner.floats(node.inputs[0]))
    filters, channels = weights.shape
    if held.shape[-1] != channels:
        raise UnsupportedError(f"its weights take {channels} values, not {held.shape[-1]}")
    rows = math.prod(held.shape[:-1])
    sizes = dict.fromkeys(KERNELS["conv"].sizes, 1) | dict.fromkeys(("top", "left", "bottom", "right"), 0)
    sizes |= {"width": rows, "channels": channels, "filters": filters}
    constants = {"weights": np.ascontiguousarray(weights)} | ({} if shift is None else {"shift": shift})
    result = planner.fresh((*held.shape[:-1], filters), last=False)
    step = Draft("conv", sizes, {"x": held}, {"y": result}, constants)
    if len(result.shape) != 4:
        planner.add(node.outputs[0], step)
        return
    planner.steps.append(step)
    planner.name(node.outputs[0], planner.last(result))


def _gemm(planner: Planner, node: ir.Node) -> None:
    if whole(node, "transA"):
        raise UnsupportedError("it transposes its first input")
    weights = constant(node.inputs[1], "weights")
    if not whole(node, "transB"):
        weights = weights.T
    weights = weights * np.float32(number(node, "alpha", 1.0))
    shift = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant(node.inputs[2], "bias") * np.float32(number(node, "beta", 1.0))
        if bias.size not in (1, len(weights)) or (bias.ndim > 1 and bias.shape[-1] != bias.size):
            raise UnsupportedError(f"its bias has shape {list(bias.shape)}")
        shift = np.broadcast_to(bias.reshape(-1), len(weights))
    _linear(planner, node, weights, shift)


def _matmul(planner: Planner, node: ir.Node) -> None:
    weights = constant(node.inputs[1], "second input")
    if weights.ndim != 2 or len(planner.floats(node.inputs[0]).shape) < 2:
        raise UnsupportedError(f"its second input has {weights.ndim} axes, not 2")
    _linear(planner, node, weights.T, None)


def _pool(planner: Planner, node: ir.Node) -> None:
    if len(node.outputs) > 1:
        raise UnsupportedError("it also makes places")
    held = planner.last(planner.floats(node.inputs[0]))
    if len(held.shape) != 4:
        raise UnsupportedError(f"windows go over two axes here, not over {list(held.shape)}")
    all_places = node.op_type.startswith("Global") or node.op_type.startswith("Reduce")
    kernel = held.shape[2:] if all_places else ints(node, "kernel_shape", ())
    sizes = window(node, held, kernel, filters=held.shape[1], groups=1)
    counts = whole(node, "count_include_pad")
    if counts and whole(node, "ceil_mode"):
        raise UnsupportedError("it counts padding and rounds sizes up")
    pooling = LARGEST if "Max" in node.op_type else MEAN_OF_ALL if counts else MEAN
    if pooling == LARGEST and _pooled(planner, node, sizes):
        return
    result = planner.fresh(made(sizes))
    planner.add(node.outputs[0], Draft("pool", {**sizes, "pooling": pooling}, {"x": held}, {"y": result}))


def _pooled(planner: Planner, node: ir.Node, sizes: dict[str, int]) -> bool:
    """A pool of the largest as part of the stem before it, whose rows then never leave the caches."""
    value = node.inputs[0]
    step = planner.joinable(value, POOLED)
    if value is None or step is None or step.kernel != "conv" or "residual" in step.reads:
        return False
    stem = step.sizes["groups"] == 1 and step.sizes["channels"] <= _STEM_CHANNELS
    few_rows = sizes["kernel_h"] <= _POOL_ROWS and sizes["dilation_h"] == sizes["dilation_w"] == 1
    if not stem or not few_rows or step.writes["y"].size_bytes < _LARGE_BYTES:
        return False
    step.kernel = "conv_pool"
    names = (name.removeprefix("pool_") for name in KERNELS["conv_pool"].sizes[len(step.sizes) :])
    step.sizes = {**step.sizes, **{f"pool_{name}": sizes[name] for name in names}}
    step.writes = {"y": planner.fresh(made(sizes))}
    planner.join(step, value, node.outputs[0], POOLED)
    return True


def _reduce_mean(planner: Planner, node: ir.Node) -> None:
    """The mean of all places."""
    held = planner.floats(node.inputs[0])
    given = constant(node.inputs[1], "axes") if len(node.inputs) > 1 else np.arange(len(held.shape))
    axes = {int(axis) % len(held.shape) for axis in given}
    if len(held.shape) != 4 or axes != {2, 3}:
        raise UnsupportedError(
            f"it averages the axes {sorted(axes)} of {len(held.shape)}; here only the places of images"
        )
    _pool(planner, node)
    if not whole(node, "keepdims", 1):
        kept = planner.value(node.outputs[0])
        planner.name(node.outputs[0], planner.reshaped(kept, kept.shape[:2]))


def _batch_normalization(planner: Planner, node: ir.Node) -> None:
    from edgewright.runtimes.native.rules.elementwise import scale_and_shift

    gamma, beta, mean, variance = (constant(value, "statistics").astype(np.float64) for value in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + number(node, "epsilon", 1e-5))
    channels = (-1, *(1,) * (len(planner.floats(node.inputs[0]).shape) - 2))
    scale_and_shift(planner, node, scale.reshape(channels), (beta - mean * scale).reshape(channels))


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "ReduceMean": _reduce_mean,
    "BatchNormalization": _batch_normalization,
}
