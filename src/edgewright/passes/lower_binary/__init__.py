"""Lower binary: layers that multiply signs by signs become edgewright's own operators on packed bits.

What is recognised is a `Conv` (two spatial axes), `Gemm` or `MatMul` that

- reads `Where(Less(x, threshold), -1, 1)`, at once or through a `Pad` with +1 or -1, and has no padding of zeros itself,
- and whose weights have one absolute value for each filter.

Where all that follows up to the next such sign acts on each channel alone (factors, shifts, batch norm, PRelu, limits), the
layer and that sign become one comparison of integers for each filter; else scale and shift go into the layer, and floats
stay for who reads them, such as a shortcut. Packed weights take 1/32 of the space.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.graph.dataflow import Names, add_initializer, constant_array, lift_constants, take_over
from edgewright.graph.naming import by_reason, shown
from edgewright.ops import DOMAIN, functions
from edgewright.ops.packing import bytes_for, pack_bits
from edgewright.passes.lower_binary._chain import Chain, affine, chain_of, thresholds
from edgewright.passes.lower_binary._layers import Layer, Signs, layer_of, readers, signs_of

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = False
NEEDS_SAMPLES = False


@dataclass(frozen=True)
class Config:
    """No options."""


@dataclass
class _Work:
    """What one run of the pass carries along.

    Attributes:
        names: Names in use.
        packed: The packed form of signs that have one.
        weights: Packed weights that are made already, by the float ones.
        made: How many of each operator.
        saved: Bytes of weights before and after.
    """

    names: Names
    packed: dict[ir.Value, ir.Value] = field(default_factory=dict)
    weights: dict[ir.Value, ir.Value] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)
    saved: list[int] = field(default_factory=lambda: [0, 0])


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Lower in place; returns how many of each operator were made, which layers on signs were left and why, and bytes."""
    import onnx_ir.passes.common as library

    found = {node: layer_of(node) for node in ir_model.graph}
    layers = {node: layer for node, layer in found.items() if isinstance(layer, Layer)}
    left = {shown(node): reason for node, reason in found.items() if isinstance(reason, str)}
    if not layers:
        context.progress.note("no layer multiplies signs by signs: nothing is lowered")
        return {"lowered": {}, "left": by_reason(left)}
    lift_constants(ir_model)
    work = _Work(Names(ir_model))
    for layer in layers.values():
        _lower(layer, layers, work)
    library.RemoveUnusedNodesPass()(ir_model)
    functions.attach(ir_model)
    before, after = work.saved
    return {
        "lowered": dict(sorted(work.made.items())),
        "left": by_reason(left),
        "weight_bytes": {"before": before, "after": after},
    }


def _lower(layer: Layer, layers: dict[ir.Node, Layer], work: _Work) -> None:
    chain = chain_of(layer)
    signs = _signs_after(layer, chain, layers)
    rule = None if signs is None else thresholds(layer, chain, signs)
    if signs is not None and rule is not None:
        _to_signs(layer, signs, rule, work)
    else:
        _to_floats(layer, chain, work)


def _signs_after(layer: Layer, chain: Chain, layers: dict[ir.Node, Layer]) -> Signs | None:
    """The signs that the chain ends in, where nothing but binary layers reads them."""
    signs = signs_of(chain.end)
    if signs is None or len(signs.threshold) not in (1, layer.filters):
        return None
    multiplied = all(node in layers and layers[node].signs.value is signs.value for node in readers(signs.value))
    return signs if multiplied else None


def _to_signs(layer: Layer, signs: Signs, rule: tuple[np.ndarray, np.ndarray], work: _Work) -> None:
    """The layer and the signs after it as one node; what was between has no reader once those layers are lowered."""
    name = signs.value.name or ""
    constants = [
        _constant(layer, f"{name}:{part}", array, work) for part, array in zip(("threshold", "flip"), rule, strict=True)
    ]
    output = _insert(layer, f"{layer.operator}Signs", constants, f"{name}:bits", work)
    _typed_bits(output, signs.value, layer.filters)
    work.packed[signs.value] = output


def _to_floats(layer: Layer, chain: Chain, work: _Work) -> None:
    """The layer with the factors and shifts that follow it, which have the last one's name afterwards."""
    scale, shift, folded = affine(layer, chain)
    name = chain.steps[folded - 1].node.outputs[0].name if folded else layer.node.outputs[0].name
    constants = [
        _constant(layer, f"{name}:{part}", array, work) for part, array in (("scale", scale), ("shift", shift))
    ]
    output = _insert(layer, layer.operator, constants, f"{name}:lowered", work)
    for node in (layer.node, *(step.node for step in chain.steps[:folded])):
        take_over(output, node)


def _insert(layer: Layer, op_type: str, constants: list[ir.Value], name: str, work: _Work) -> ir.Value:
    import onnx_ir as ir

    graph = layer.node.graph
    assert graph is not None
    bits, weights = _packed(layer, work), _weights(layer, work)
    output = ir.Value(name=work.names.fresh(name))
    node = ir.node(
        op_type, [bits, weights, *constants], layer.attributes, domain=DOMAIN, outputs=[output],
        name=work.names.fresh_node(layer.node.name or name),
    )  # fmt: skip
    graph.insert_before(layer.node, node)
    work.made[op_type] += 1
    return output


def _packed(layer: Layer, work: _Work) -> ir.Value:
    """The bits that the layer reads: made by the layer before it, or by PackSigns once for all readers."""
    import onnx_ir as ir

    signs = layer.signs
    if signs.value not in work.packed:
        name = f"{signs.value.name}:bits"
        threshold = _constant(layer, f"{signs.value.name}:threshold", signs.threshold, work)
        output = ir.Value(name=work.names.fresh(name))
        _typed_bits(output, signs.value, layer.channels)
        node = ir.node(
            "PackSigns", [signs.source, threshold], domain=DOMAIN, outputs=[output], name=work.names.fresh_node(name)
        )
        signs.node.graph.insert_after(signs.node, node)
        work.packed[signs.value] = output
        work.made["PackSigns"] += 1
    return work.packed[signs.value]


def _weights(layer: Layer, work: _Work) -> ir.Value:
    if layer.weight not in work.weights:
        array = constant_array(layer.weight)
        assert array is not None
        bits = pack_bits(layer.bits)
        work.weights[layer.weight] = _constant(layer, f"{layer.weight.name}:bits", bits, work)
        work.saved[0] += array.nbytes
        work.saved[1] += bits.nbytes
    return work.weights[layer.weight]


def _constant(layer: Layer, name: str, array: np.ndarray, work: _Work) -> ir.Value:
    graph = layer.node.graph
    assert graph is not None
    return add_initializer(graph, work.names.fresh(name), array)


def _typed_bits(value: ir.Value, signs: ir.Value, channels: int) -> None:
    import onnx_ir as ir

    value.type = ir.TensorType(ir.DataType.UINT8)
    if signs.shape is not None:
        batch, _, *places = signs.shape
        value.shape = ir.Shape([batch, *places, bytes_for(channels)])
