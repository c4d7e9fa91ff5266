"""Quantized layers written into the graph, in the very form that ONNX Runtime makes one operator of.

    x -> DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by (scale of x) (scales of W) -> Add of the bias

Source: ONNX Runtime, graph transformers `MatMulIntegerToFloatFusion` and `DynamicQuantizeMatMulFusion`: the product of
both scales is the Mul's second factor, the bias a vector. Other runtimes run the same nodes one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused
from edgewright.graph.integers import Narrowed
from edgewright.graph.naming import shown

if TYPE_CHECKING:
    import onnx_ir as ir

_DOMAIN = "com.microsoft"


class Writer:
    """Writes layers into one model; what several of them share is written once."""

    def __init__(self, ir_model: ir.Model) -> None:
        self._graph = ir_model.graph
        self._names = Names(ir_model)
        self._inputs: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = {}
        self._weights: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def write(self, node: ir.Node, weights: Mapping[int, Narrowed]) -> None:
        """Put the integer form of `node`, whose weights by position are these, in its place."""
        constants = tuple(node.inputs[1:3])  # weights and Gemm's bias, which may turn into another
        if node.op_type == "LSTM":
            self._write_lstm(node, weights)
        else:
            self._write_product(node, weights[1])
        for value in constants:
            drop_unused(value)

    def _write_product(self, node: ir.Node, weights: Narrowed) -> None:
        import onnx_ir as ir

        data = node.inputs[0]
        assert data is not None
        integers, scales = self._stored(node, 1, weights, node.attributes.get_float("alpha", 1.0))
        narrow, scale, zero = self._quantized(data, node)
        total = self._add(node, "MatMulInteger", [narrow, integers, zero], "int32", ir.DataType.INT32)
        cast = self._add(node, "Cast", [total], "float", attributes=[ir.AttrInt64("to", ir.DataType.FLOAT)])
        factor = self._add(node, "Mul", [scale, scales], "scale")
        result = self._add(node, "Mul", [cast, factor], "product")
        bias = self._bias(node, weights.integers.shape[1])
        if bias is not None:
            result = self._add(node, "Add", [result, bias], "sum")
        _replace(node, [result])

    def _bias(self, node: ir.Node, outputs: int) -> ir.Value | None:
        """What is added to the product, with Gemm's beta in it, a vector wherever it is one."""
        value = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        constant = constant_array(value)
        if value is None or constant is None:
            return value
        bias = constant * constant.dtype.type(node.attributes.get_float("beta", 1.0))
        if bias.size in (1, outputs) and (bias.size == 1 or bias.shape[-1] == outputs):
            bias = np.broadcast_to(bias.reshape(-1), (outputs,))
        if np.array_equal(bias, constant) and bias.shape == constant.shape:
            return value
        return add_initializer(self._graph, self._names.fresh(f"{value.name}:vector"), bias)

    def _write_lstm(self, node: ir.Node, weights: Mapping[int, Narrowed]) -> None:
        import onnx_ir as ir

        stored = [self._stored(node, index, weights[index], 1.0) for index in (1, 2)]
        given = [*node.inputs, *[None] * (7 - len(node.inputs))]
        inputs: list[ir.Value | None] = [given[0], stored[0][0], stored[1][0], *given[3:7], None]
        for index, (_, scales) in enumerate(stored, 1):
            zeros = np.zeros(weights[index].scales.squeeze(-2).shape, np.int8)
            inputs += [scales, add_initializer(self._graph, self._names.fresh(f"{scales.name}:zero"), zeros)]
        hidden = int(weights[2].integers.shape[1])
        attributes = [a for name, a in node.attributes.items() if name not in ("layout", "hidden_size")]
        new = ir.Node(
            _DOMAIN,
            "DynamicQuantizeLSTM",
            inputs,
            [*attributes, ir.AttrInt64("hidden_size", hidden)],
            num_outputs=len(node.outputs),
            name=self._names.fresh_node(node.name or shown(node)),
        )
        self._graph.insert_before(node, new)
        self._graph.opset_imports[_DOMAIN] = 1
        _replace(node, new.outputs)

    def _quantized(self, data: ir.Value, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        """uint8, scale and zero point of a tensor; layers that read the same tensor share them."""
        import onnx_ir as ir

        if data not in self._inputs:
            new = ir.Node(
                "", "DynamicQuantizeLinear", [data], num_outputs=3, name=self._names.fresh_node(f"{data.name}:quantize")
            )
            kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            for value, suffix, kind in zip(new.outputs, ("uint8", "scale", "zero"), kinds, strict=True):
                value.name = self._names.fresh(f"{data.name}:{suffix}")
                value.type = ir.TensorType(kind)
            self._graph.insert_before(node, new)
            first, second, third = new.outputs
            self._inputs[data] = (first, second, third)
        return self._inputs[data]

    def _stored(self, node: ir.Node, index: int, narrowed: Narrowed, factor: float) -> tuple[ir.Value, ir.Value]:
        """Integers and scales of a weight as initializers."""
        old = node.inputs[index]
        assert old is not None
        if old not in self._weights:
            scales = narrowed.scales.squeeze(-2) * np.float32(factor)
            self._weights[old] = (
                add_initializer(self._graph, self._names.fresh(f"{old.name}:int8"), narrowed.integers),
                add_initializer(self._graph, self._names.fresh(f"{old.name}:scale"), scales),
            )
        return self._weights[old]

    def _add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value],
        suffix: str,
        dtype: ir.DataType | None = None,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        import onnx_ir as ir

        stem = before.outputs[0].name
        node = ir.Node("", op_type, inputs, attributes, name=self._names.fresh_node(f"{stem}:{suffix}"))
        output = node.outputs[0]
        output.name = self._names.fresh(f"{stem}:{suffix}")
        output.type = ir.TensorType(dtype or ir.DataType.FLOAT)
        self._graph.insert_before(before, node)
        return output


def _replace(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Let `values` stand for the outputs of `node`, under their names; `node` goes."""
    graph = node.graph
    assert graph is not None
    for old, new in zip(node.outputs, values, strict=True):
        name = old.name
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
    graph.remove(node, safe=True)
