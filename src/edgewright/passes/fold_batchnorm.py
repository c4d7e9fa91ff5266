"""Fold batch norms, and constants per channel, into the convolution or linear layer before them.

    y = (w x + b) s + t  =  (s w) x + (s b + t)        s = scale / sqrt(var + eps),  t = bias - mean s

The layer takes the name of the last tensor of the chain. Weights are computed in float64 and rounded once.
Source: Jacob et al. 2018, "Quantization and Training of Neural Networks", section 3.2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.graph.dataflow import (
    Names,
    add_initializer,
    constant_array,
    drop_unused,
    is_standard,
    replace_constant,
    sole_consumer,
    take_over,
)

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = False

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        arithmetic: Fold Mul, Div, Add and Sub by constants per channel too, not batch norms alone.
    """

    arithmetic: bool = True


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift, f64[channels] each."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass
class _Work:
    """What one run of the pass carries along."""

    names: Names
    arithmetic: bool
    folded: Counter[str] = field(default_factory=Counter)
    skipped: dict[ir.Node, str] = field(default_factory=dict)
    copies: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)


class _RefusedError(Exception):
    """Why a batch norm cannot be folded, in words for the statistics."""


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Fold in place; returns how many of each operator were folded, and how many batch norms stay and why."""
    work = _Work(Names(ir_model), config.arithmetic)
    for graph in tuple(ir_model.graphs()):
        for node in tuple(graph):
            if is_standard(node, *_LAYERS):
                while _fold_next(node, work):
                    pass
    left = [node for graph in ir_model.graphs() for node in graph if is_standard(node, "BatchNormalization")]
    reasons = Counter(work.skipped.get(node, "no convolution or linear layer before it") for node in left)
    return {
        "folded": dict(sorted(work.folded.items())),
        "batch_norms_left": len(left),
        "reasons": dict(sorted(reasons.items())),
    }


def _fold_next(layer: ir.Node, work: _Work) -> bool:
    """Fold the node that follows `layer` into it; False where there is none to fold."""
    output = layer.outputs[0]
    follower = sole_consumer(output)
    if follower is None:
        reason = "the graph returns its input" if output.is_graph_output() else "its input has other readers"
        work.skipped.update((use.node, reason) for use in output.uses() if is_standard(use.node, "BatchNormalization"))
        return False
    if follower.graph is not layer.graph:
        return False
    try:
        affine = _affine(follower, layer, work.arithmetic)
        if affine is None:
            return False
        weight, bias = _folded(layer, affine)
    except _RefusedError as reason:
        if is_standard(follower, "BatchNormalization"):
            work.skipped[follower] = str(reason)
        return False
    constants = tuple(follower.inputs)
    if weight is not None:
        _set_constant(layer, 1, weight, work)
    if bias is not None:
        _set_bias(layer, bias, work)
    work.folded[follower.op_type] += 1
    take_over(output, follower)
    for value in constants:
        drop_unused(value)
    return True


# --- what follows -----------------------------------------------------------------------------------------------------


def _affine(node: ir.Node, layer: ir.Node, arithmetic: bool) -> _Affine | None:
    """What `node` does to each output channel of `layer`; None where it is no such node."""
    if is_standard(node, "BatchNormalization"):
        return _batch_norm(node, layer)
    wanted = _leads_to_norm(node) or (arithmetic and not is_standard(layer, "MatMul"))
    return _arithmetic(node, layer) if wanted and is_standard(node, "Mul", "Div", "Add", "Sub") else None


def _arithmetic(node: ir.Node, layer: ir.Node) -> _Affine | None:
    first = node.inputs[0] is layer.outputs[0]
    constant = constant_array(node.inputs[1] if first else node.inputs[0])
    weight = constant_array(layer.inputs[1])
    channels = _channels(layer)
    if constant is None or weight is None:
        return None
    value = _per_channel(constant, channels, weight.ndim)
    if value is None or (node.op_type == "Div" and (not first or (value == 0).any())):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        affine = _Affine(value, zero)
    elif node.op_type == "Div":
        affine = _Affine(1 / value, zero)
    elif node.op_type == "Add":
        affine = _Affine(one, value)
    else:
        affine = _Affine(one, -value) if first else _Affine(-one, value)
    return affine


def _leads_to_norm(node: ir.Node) -> bool:
    follower = sole_consumer(node.outputs[0])
    return follower is not None and is_standard(follower, "BatchNormalization")


def _batch_norm(node: ir.Node, layer: ir.Node) -> _Affine:
    if node.attributes.get_int("training_mode", 0) != 0 or any(output.uses() for output in node.outputs[1:]):
        raise _RefusedError("it is in training mode")
    if node.inputs[0] is not layer.outputs[0]:
        raise _RefusedError("its statistics are computed in the graph")
    arrays = [constant_array(value) for value in node.inputs[1:5]]
    channels = _channels(layer)
    given = [array.astype(np.float64).reshape(-1) for array in arrays if array is not None]
    if len(given) != 4:
        raise _RefusedError("its statistics are computed in the graph")
    if any(array.shape != (channels,) for array in given):
        raise _RefusedError("its channels are not the layer's")
    scale, bias, mean, variance = given
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise _RefusedError("its statistics are not finite")
    return _Affine(factor, shift)


def _per_channel(constant: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """The constant as f64[channels], where it broadcasts along nothing but axis 1 of a tensor of `rank` axes."""
    if constant.ndim > rank or constant.dtype.kind != "f":
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))


# --- the layer --------------------------------------------------------------------------------------------------------


def _channels(layer: ir.Node) -> int:
    """Output channels of a layer whose weight is constant."""
    weight = constant_array(layer.inputs[1])
    if weight is None:
        raise _RefusedError("the layer's weight is computed in the graph")
    if is_standard(layer, "Conv"):
        return int(weight.shape[0])
    if is_standard(layer, "ConvTranspose"):
        return int(weight.shape[1]) * int(layer.attributes.get_int("group", 1))
    if is_standard(layer, "Gemm"):
        return int(weight.shape[0 if layer.attributes.get_int("transB", 0) else 1])
    # Batch norm's channels are axis 1, which is MatMul's last axis for matrices only.
    source = layer.inputs[0]
    if weight.ndim != 2 or source is None or source.shape is None or source.shape.rank() != 2:
        raise _RefusedError("the layer is a MatMul of more than two axes")
    return int(weight.shape[1])


def _folded(layer: ir.Node, affine: _Affine) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weight and bias of `layer` followed by `affine`, in the weight's dtype; None for what stays as it is."""
    weight = constant_array(layer.inputs[1])
    assert weight is not None
    if weight.dtype not in (np.float32, np.float64):
        raise _RefusedError(f"the layer's weight is {weight.dtype}")
    bias = None
    if len(layer.inputs) > 2 and layer.inputs[2] is not None:
        bias = constant_array(layer.inputs[2])
        if bias is None:
            raise _RefusedError("the layer's bias is computed in the graph")
    new_weight = new_bias = None
    with np.errstate(all="ignore"):
        if (affine.scale != 1).any():
            new_weight = (weight.astype(np.float64) * _along_outputs(layer, weight, affine.scale)).astype(weight.dtype)
        if bias is not None or affine.shift.any():
            old = np.zeros(1) if bias is None else bias.astype(np.float64) * _beta(layer)
            new_bias = (old * affine.scale + affine.shift).astype(weight.dtype)
    if any(array is not None and not np.isfinite(array).all() for array in (new_weight, new_bias)):
        raise _RefusedError(f"the result is beyond {weight.dtype}")
    return new_weight, new_bias


def _beta(layer: ir.Node) -> float:
    return layer.attributes.get_float("beta", 1.0) if is_standard(layer, "Gemm") else 1.0


def _along_outputs(layer: ir.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`scale` shaped so that it multiplies the weight along its output channels."""
    if is_standard(layer, "Conv"):  # [M, C / group, k...]
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    if is_standard(layer, "ConvTranspose"):  # [C, M / group, k...]; the first C / group rows are the first group's
        groups = layer.attributes.get_int("group", 1)
        rows = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    if is_standard(layer, "Gemm") and layer.attributes.get_int("transB", 0):
        return scale[:, None]
    return scale[None, :]


def _set_constant(layer: ir.Node, index: int, array: np.ndarray, work: _Work) -> None:
    """Put `array` in place of a constant. What layers share and what folds to the same values stays shared."""
    old = layer.inputs[index]
    assert old is not None
    for copy in work.copies.get(old, ()):
        known = constant_array(copy)
        if known is not None and copy.uses() and known.dtype == array.dtype and np.array_equal(known, array):
            layer.replace_input_with(index, copy)
            drop_unused(old)
            return
    shared = len(old.uses()) > 1
    new = replace_constant(layer, index, array, names=work.names)
    if shared:
        work.copies.setdefault(old, []).append(new)


def _set_bias(layer: ir.Node, bias: np.ndarray, work: _Work) -> None:
    if is_standard(layer, "MatMul"):  # a MatMul with a bias is a Gemm
        layer.op_type = "Gemm"
    if is_standard(layer, "Gemm"):
        import onnx_ir as ir

        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    if len(layer.inputs) > 2 and layer.inputs[2] is not None:
        _set_constant(layer, 2, bias, work)
        return
    weight = layer.inputs[1]
    assert weight is not None
    assert weight.name is not None
    stem = weight.name.removesuffix("weight")
    name = f"{stem}bias" if stem != weight.name else f"{weight.name}:bias"
    graph = weight.graph if weight.is_initializer() else layer.graph
    assert graph is not None
    value = add_initializer(graph, work.names.fresh(name), bias)
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, value)
