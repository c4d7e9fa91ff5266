"""What a network costs in multiply-adds or bytes of weights, and how that falls with the widths of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.graph import cost
from edgewright.graph.channels import Group
from edgewright.passes.prune_channels._allocation import Axis, Costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


def macs(ir_model: ir.Model, groups: Sequence[Group]) -> Costs | None:
    """Multiply-adds at batch 1; None where the size of a layer is not known."""
    axes = _axes(ir_model, groups)
    nodes = {node.outputs[0].name: node for node in ir_model.graph}
    terms: list[tuple[float, Sequence[Axis]]] = []
    for layer in cost.layers(ir_model):
        if layer.macs is None:
            return None
        if layer.macs:
            weights = [value.name or "" for value in nodes[layer.name].inputs[1:2] if value is not None]
            terms.append((float(layer.macs), [axis for name in weights for axis in axes.get(name, ())]))
    return Costs(terms)


def weight_bytes(ir_model: ir.Model, groups: Sequence[Group]) -> Costs:
    """Bytes of all weights."""
    axes = _axes(ir_model, groups)
    tensors = {name: value.const_value for name, value in ir_model.graph.initializers.items()}
    return Costs([(float(t.nbytes), axes.get(name, ())) for name, t in tensors.items() if t is not None])


def measured_macs(ir_model: ir.Model) -> float:
    """Multiply-adds of a graph at batch 1, all of them known."""
    return float(sum(layer.macs or 0 for layer in cost.layers(ir_model)))


def measured_bytes(ir_model: ir.Model) -> float:
    """Bytes of a graph's weights."""
    tensors = [value.const_value for value in ir_model.graph.initializers.values()]
    return float(sum(tensor.nbytes for tensor in tensors if tensor is not None))


def _axes(ir_model: ir.Model, groups: Sequence[Group]) -> dict[str, list[Axis]]:
    """By weight, each axis along which channels of groups run."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for group in groups:
        for member in group.members:
            value = ir_model.graph.initializers.get(member.tensor)
            if value is None or value.const_value is None:
                continue
            size = value.const_value.shape[member.axis]
            axis = found.setdefault((member.tensor, member.axis), {})
            axis[group.name] = axis.get(group.name, 0.0) + sum(map(len, member.places)) / max(int(size), 1)
    by_weight: dict[str, list[Axis]] = {}
    for (name, _), axis in found.items():
        by_weight.setdefault(name, []).append(axis)
    return by_weight
