"""Binary layers in the graph: while they are trained, and as standard operators afterwards.

    x -> LearntSigns -> Pad -> Conv (LearntWeights) -> BatchNormalization (-> Add x) -> y

The last of these has the name of what the layer made. `learn/binary/operators` says what the two operators compute;
`settle` puts `Where(Less(x, threshold), -1, 1)` and two-valued weights in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused, is_standard
from edgewright.model import DOMAIN
from edgewright.passes.binarize._statistics import Statistics

if TYPE_CHECKING:
    import onnx_ir as ir

_SIGNS, _WEIGHTS = "LearntSigns", "LearntWeights"


class _Writer:
    """Adds nodes before others, and constants."""

    def __init__(self, ir_model: ir.Model) -> None:
        self.graph = ir_model.graph
        self.names = Names(ir_model)

    def constant(self, name: str, array: Any) -> ir.Value:
        return add_initializer(self.graph, self.names.fresh(name), np.asarray(array))

    def node(self, before: ir.Node, op_type: str, *inputs: ir.Value | None, name: str, **kept: Any) -> ir.Value:
        import onnx_ir as ir

        domain = kept.pop("domain", "")
        output = ir.Value(name=self.names.fresh(name), type=ir.TensorType(ir.DataType.FLOAT))
        made = ir.node(op_type, inputs, kept, domain=domain, outputs=[output], name=self.names.fresh_node(name))
        self.graph.insert_before(before, made)
        return output


def insert(ir_model: ir.Model, layers: Sequence[ir.Node], statistics: Sequence[Statistics], *, prelu: bool) -> str:
    """Make the layers binary ones that can be trained; returns the name of the constant that holds their stage.

    With `prelu` each Relu behind one of them, or behind a sum with one, learns a slope for negative values, 0 at first: a
    binary layer has few values, and what a Relu cuts off of them is lost to the shortcut that leads around the next.
    """
    writer = _Writer(ir_model)
    stage = writer.constant("binarize:stage", np.ones(3, np.float32))
    ir_model.graph.opset_imports[DOMAIN] = 1
    ends = [_insert_one(writer, layer, found, stage) for layer, found in zip(layers, statistics, strict=True)]
    for end, found in zip(ends, statistics, strict=True) if prelu else ():
        _learn_slopes(writer, end, len(found.made.mean))
    return str(stage.name)


def _learn_slopes(writer: _Writer, end: ir.Value, channels: int) -> None:
    readers = [use.node for use in end.uses()]
    sums = [node.outputs[0] for node in readers if is_standard(node, "Add")]
    for node in (*readers, *(use.node for value in sums for use in value.uses())):
        if not is_standard(node, "Relu"):
            continue
        places = 0 if end.shape is None else end.shape.rank() - 2
        slope = writer.constant(f"{node.outputs[0].name}:slope", np.zeros((channels, *[1] * places), np.float32))
        node.op_type = "PRelu"
        node.resize_inputs(2)
        node.replace_input_with(1, slope)


def _insert_one(writer: _Writer, layer: ir.Node, found: Statistics, stage: ir.Value) -> ir.Value:
    """Returns what the layer and all that belongs to it make."""
    import onnx_ir as ir

    source, weight, result = layer.inputs[0], layer.inputs[1], layer.outputs[0]
    assert source is not None
    assert weight is not None
    array, name = constant_array(weight), str(result.name)
    assert array is not None
    threshold = writer.constant(f"{name}:threshold", found.read.mean)
    spread = writer.constant(f"{name}:spread", found.read.spread)
    signs = writer.node(layer, _SIGNS, source, threshold, spread, stage, name=f"{name}:signs", domain=DOMAIN)
    _typed(signs, source)
    if is_standard(layer, "Gemm") and not layer.attributes.get_int(
        "transB", 0
    ):  # filters first, as LearntWeights has them
        layer.attributes["transB"] = ir.AttrInt64("transB", 1)
        array = np.ascontiguousarray(array.T)
    # The layer's own copy: others may share the constant.
    own = writer.constant(f"{name}:weight", array)
    values = writer.node(layer, _WEIGHTS, own, stage, name=f"{name}:values", domain=DOMAIN)
    _typed(values, own)
    layer.replace_input_with(0, _padded(writer, layer, signs, found))
    layer.replace_input_with(1, values)
    drop_unused(weight)
    if len(layer.inputs) > 2:  # the norm's shift takes its place
        bias = layer.inputs[2]
        layer.resize_inputs(2)
        drop_unused(bias)
    return _normed(writer, layer, source, found)


def _padded(writer: _Writer, layer: ir.Node, signs: ir.Value, found: Statistics) -> ir.Value:
    """The signs with a border of what the original's zeros mostly are: -1 where thresholds lie above 0."""
    import onnx_ir as ir

    pads = [int(n) for n in layer.attributes.get_ints("pads", ()) or ()] if is_standard(layer, "Conv") else []
    if not any(pads):
        return signs
    layer.attributes["pads"] = ir.AttrInt64s("pads", [0] * 4)
    value = -1.0 if float(np.median(found.read.mean)) > 0 else 1.0
    top, left, bottom, right = pads
    sizes = writer.constant(f"{signs.name}:pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return writer.node(
        layer,
        "Pad",
        signs,
        sizes,
        writer.constant(f"{signs.name}:border", np.float32(value)),
        name=f"{signs.name}:padded",
    )


def _normed(writer: _Writer, layer: ir.Node, source: ir.Value, found: Statistics) -> ir.Value:
    """A batch norm behind the layer, and the shortcut; the last of them makes what the layer made."""
    import onnx_ir as ir

    result = layer.outputs[0]
    name, filters = str(result.name), len(found.made.mean)
    end = ir.Value(name=name, type=result.type, shape=result.shape)
    result.replace_all_uses_with(end, replace_graph_outputs=True)
    result.name = writer.names.fresh(f"{name}:dots")
    terms = int(np.prod((layer.inputs[1].shape or [1])[1:])) if layer.inputs[1] is not None else 1
    parameters = (found.made.spread, found.made.mean, np.zeros(filters), np.full(filters, terms))
    constants = [
        writer.constant(f"{name}:{part}", np.asarray(array, np.float32))
        for part, array in zip(("scale", "shift", "mean", "variance"), parameters, strict=True)
    ]
    norm = (
        ir.Value(name=writer.names.fresh(f"{name}:norm"), type=result.type, shape=result.shape)
        if found.shortcut
        else end
    )
    nodes = [
        ir.node(
            "BatchNormalization", [result, *constants], outputs=[norm], name=writer.names.fresh_node(f"{name}:norm")
        )
    ]
    if found.shortcut:
        nodes.append(ir.node("Add", [norm, source], outputs=[end], name=writer.names.fresh_node(f"{name}:shortcut")))
    writer.graph.insert_after(layer, nodes)
    return end


def _typed(value: ir.Value, like: ir.Value) -> None:
    value.type, value.shape = like.type, like.shape


def settle(ir_model: ir.Model, stage: str) -> None:
    """Standard operators in place of those that were trained: the same values, without gradients."""
    from edgewright.learn.binary.operators import values

    writer = _Writer(ir_model)
    minus, plus = (writer.constant(f"binarize:{name}", np.float32(n)) for name, n in (("minus", -1), ("plus", 1)))
    for node in tuple(ir_model.graph):
        if node.domain != DOMAIN or node.op_type not in (_SIGNS, _WEIGHTS):
            continue
        constants = list(node.inputs)
        if node.op_type == _WEIGHTS:
            array = constant_array(node.inputs[0])
            assert array is not None
            made = writer.constant(str(node.outputs[0].name), values(array))
        else:
            made = _compared(writer, node, minus, plus)
        node.outputs[0].replace_all_uses_with(made)
        name = node.outputs[0].name
        ir_model.graph.remove(node, safe=True)
        if node.op_type == _SIGNS:
            made.name = name
        for value in constants:
            drop_unused(value)
    drop_unused(ir_model.graph.initializers.get(stage))
    ir_model.graph.opset_imports.pop(DOMAIN, None)


def _compared(writer: _Writer, node: ir.Node, minus: ir.Value, plus: ir.Value) -> ir.Value:
    import onnx_ir as ir

    source, name = node.inputs[0], str(node.outputs[0].name)
    array = constant_array(node.inputs[1])
    assert source is not None
    assert array is not None
    places = 0 if source.shape is None else source.shape.rank() - 2
    limit = writer.constant(f"{name}:limit", array.reshape(-1, *[1] * places))
    below = writer.node(node, "Less", source, limit, name=f"{name}:below")
    below.type = ir.TensorType(ir.DataType.BOOL)
    return writer.node(node, "Where", below, minus, plus, name=f"{name}:where")
