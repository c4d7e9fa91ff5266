"""Where factors begin and end: layers with constant weights, norms with constant parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.scaling._constants import Factor, Layer
from edgewright.graph.scaling._ties import Channels, Ties

if TYPE_CHECKING:
    import onnx_ir as ir


def add_layer(node: ir.Node, ties: Ties) -> bool:
    """Note what `node` does to factors where it is a layer or a norm; False where it is neither."""
    if is_standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        _weighted(node, ties)
    elif is_standard(node, "BatchNormalization"):
        _batch_norm(node, ties)
    elif is_standard(node, "LayerNormalization"):
        _layer_norm(node, ties)
    else:
        return False
    return True


def usable(value: ir.Value | None) -> np.ndarray | None:
    """A constant that may be scaled: float32 and finite."""
    array = constant_array(value)
    if array is None or array.dtype != np.float32 or not np.isfinite(array).all():
        return None
    return array


def _weighted(node: ir.Node, ties: Ties) -> None:
    weight = usable(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    reason = None
    if weight is None or (bias is not None and usable(bias) is None):
        reason = "its weights are computed, or not finite float32"
    elif is_standard(node, "Gemm") and node.attributes.get_int("transA", 0):
        reason = "it transposes what it reads"
    elif is_standard(node, "MatMul") and (weight.ndim != 2 or shape is None or shape.rank() < 2):
        reason = "its weights are no matrix, or the rank of what it reads is not known"
    if reason is not None or weight is None:
        ties.refuse(node, 0, f"{node.op_type} `{node.outputs[0].name}`: {reason}")
        return
    axis = shape.rank() - 1 if is_standard(node, "MatMul") and shape is not None else 1
    groups, out, per_group, _ = Layer(node, None, None).matrix().shape
    inputs = _read(node, axis, groups * per_group, ties)
    outputs = ties.fresh(groups * out)
    ties.channels[node.outputs[0]] = Channels(axis, outputs)
    ties.layers.append(Layer(node, inputs, outputs))
    if bias is not None:
        ties.factors.append(Factor(node, 2, -1, outputs))


def _read(node: ir.Node, axis: int, count: int, ties: Ties) -> np.ndarray | None:
    """Numbers of the channels that `node` reads along `axis`; None where they have none."""
    channels = ties.of(node, 0)
    if channels is None:
        return None
    if channels.axis != axis or len(channels.ids) != count:
        ties.refuse(node, 0, f"{node.op_type} `{node.outputs[0].name}` reads it along another axis")
        return None
    ties.passed.add((node, 0))
    return channels.ids


def _batch_norm(node: ir.Node, ties: Ties) -> None:
    """A norm with fixed statistics: (x - mean) scale / sqrt(var) + bias, so scale / s and mean * s undo a factor."""
    scale = usable(node.inputs[1])
    fixed = all(usable(value) is not None for value in node.inputs[1:5])
    if scale is None or not fixed or node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
        ties.refuse(node, 0, f"BatchNormalization `{node.outputs[0].name}`: its statistics are computed")
        return
    inputs = _read(node, 1, len(scale), ties)
    outputs = ties.fresh(len(scale))
    ties.channels[node.outputs[0]] = Channels(1, outputs)
    ties.factors.append(Factor(node, 1, -1, outputs, inputs))
    ties.factors.append(Factor(node, 2, -1, outputs))
    ties.factors.append(Factor(node, 3, -1, inputs))


def _layer_norm(node: ir.Node, ties: Ties) -> None:
    """Its scale and bias can carry a factor; what it reads must not, because it mixes channels."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    parameters = [usable(value) for value in node.inputs[1:3]]
    if shape is None or any(array is None or array.ndim != 1 for array in parameters) or len(node.outputs) > 1:
        return
    axis = shape.rank() - 1
    if node.attributes.get_int("axis", -1) not in (-1, axis):
        return
    assert parameters[0] is not None
    outputs = ties.fresh(len(parameters[0]))
    ties.channels[node.outputs[0]] = Channels(axis, outputs)
    ties.factors += [Factor(node, 1 + index, -1, outputs) for index in range(len(parameters))]
