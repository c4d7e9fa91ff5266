"""The conversion itself: retyped nodes, converted constants, and Casts where float16 meets float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused, is_standard
from edgewright.model import OPSET_VERSION
from edgewright.passes.to_float16._choice import BEYOND, LARGEST, half_inputs, is_float, to_half, touches_floats

if TYPE_CHECKING:
    import onnx_ir as ir

_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5; below it bits are lost, below 3e-8 all of them


class Conversion:
    """One run over a model.

    Attributes:
        half: Nodes that compute in float16.
        casts: Casts added.
        weights: Numbers converted; `to_zero` of them became 0, `subnormal` lost bits.
    """

    def __init__(self, ir_model: ir.Model, kept: dict[ir.Node, str]) -> None:
        self.casts = self.weights = self.to_zero = self.subnormal = 0
        self._ir_model = ir_model
        self._kept = kept
        self._names = Names(ir_model)
        self._version = ir_model.graph.opset_imports.get("", OPSET_VERSION)
        nodes = [node for graph in ir_model.graphs() for node in graph]
        values = {value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
        self._floats = {value for value in values if is_float(value)}
        self.half = [node for node in nodes if node not in kept and touches_floats(node)]
        self._needed: set[ir.Value | None] = set()  # constants that must stay in float32 as well
        self._made: dict[tuple[ir.Value, ir.DataType, ir.Graph], ir.Value] = {}

    def run(self) -> None:
        """Turn nodes and constants to float16 and set Casts at the borders."""
        import onnx_ir as ir

        wanted = self._wanted()
        self._needed.update(value for value in self._floats if value.is_graph_output())
        self._needed.update(node.inputs[index] for node, index, dtype in wanted if dtype == ir.DataType.FLOAT)
        for node in self.half:
            self._retype(node)
        for graph in tuple(self._ir_model.graphs()):
            self._restore_outputs(graph)
        for node, index, dtype in wanted:
            self._feed(node, index, dtype)
        for graph in self._ir_model.graphs():
            for value in tuple(graph.initializers.values()):
                drop_unused(value)

    def _wanted(self) -> list[tuple[ir.Node, int, ir.DataType]]:
        """Every float input of every node with the dtype that it must have, in graph order."""
        import onnx_ir as ir

        half, wanted = set(self.half), []
        for graph in self._ir_model.graphs():
            for node in graph:
                allowed = half_inputs(node, self._version) if node in half else [False] * len(node.inputs)
                for index, value in enumerate(node.inputs):
                    if value in self._floats and touches_floats(node):
                        wanted.append((node, index, ir.DataType.FLOAT16 if allowed[index] else ir.DataType.FLOAT))
        return wanted

    def _retype(self, node: ir.Node) -> None:
        import onnx_ir as ir

        made = [value for value in node.outputs if value in self._floats]
        for value in made:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        if made and is_standard(node, "Cast"):
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
        if made and is_standard(node, "ConstantOfShape"):
            fill = node.attributes.get_tensor("value", None)
            number = 0.0 if fill is None else fill.numpy().reshape(-1)[0]
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(to_half([number])))

    def _restore_outputs(self, graph: ir.Graph) -> None:
        """Cast graph outputs back under their own names; subgraphs' too, whose node has one type for all branches."""
        import onnx_ir as ir

        for index, value in enumerate(tuple(graph.outputs)):
            producer = value.producer()
            if value.dtype != ir.DataType.FLOAT16 or value not in self._floats:
                continue
            assert producer is not None
            assert producer.graph is graph, "a subgraph returns a value of the graph around it"
            assert value.name is not None
            name = value.name
            value.name = self._names.fresh(f"{name}:fp16")
            cast = self._cast(value, ir.DataType.FLOAT, name)
            cast.outputs[0].shape = value.shape
            graph.insert_after(producer, cast)
            graph.outputs[index] = cast.outputs[0]
            self._made[value, ir.DataType.FLOAT, graph] = cast.outputs[0]

    def _feed(self, node: ir.Node, index: int, dtype: ir.DataType) -> None:
        """Give `node` its input in `dtype`: the value itself, a converted constant or a Cast."""
        value = node.inputs[index]
        assert value is not None
        if value.dtype == dtype:
            return
        array = constant_array(value) if value.is_initializer() else None
        home = value.graph if array is not None else node.graph
        assert home is not None
        key = (value, dtype, home)
        if key not in self._made:
            if array is not None:
                self._made[key] = self._half_constant(value, home, array)
            else:
                self._made[key] = self._insert_cast(value, dtype, node)
        node.replace_input_with(index, self._made[key])

    def _half_constant(self, value: ir.Value, home: ir.Graph, array: np.ndarray) -> ir.Value:
        import onnx_ir as ir

        assert value.name is not None
        rounded = to_half(array)
        self.weights += array.size
        self.to_zero += int(((rounded == 0) & (array != 0)).sum())
        self.subnormal += int(((np.abs(array) < _SMALLEST_NORMAL) & (rounded != 0)).sum())
        if value in self._needed:
            return add_initializer(home, self._names.fresh(f"{value.name}:fp16"), rounded)
        value.const_value = ir.tensor(rounded, name=value.name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        return value

    def _insert_cast(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        import onnx_ir as ir

        graph, producer = reader.graph, value.producer()
        assert graph is not None
        half = dtype == ir.DataType.FLOAT16
        source = value
        if half and producer is not None and self._kept.get(producer) == BEYOND:
            source = self._clip(value, reader)
        cast = self._cast(source, dtype, self._names.fresh(f"{value.name}:{'fp16' if half else 'fp32'}"))
        graph.insert_before(reader, cast)
        return cast.outputs[0]

    def _clip(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The value within float16's range, so that a mask of -3e38 does not become -inf, and NaN in a softmax."""
        import onnx_ir as ir

        graph = reader.graph
        assert graph is not None
        limits = [
            add_initializer(graph, self._names.fresh(f"{value.name}:{name}"), np.array(number, np.float32))
            for name, number in (("low", -LARGEST), ("high", LARGEST))
        ]
        name = self._names.fresh(f"{value.name}:clip")
        output = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        graph.insert_before(
            reader, ir.Node("", "Clip", [value, *limits], outputs=[output], name=self._names.fresh_node(name))
        )
        return output

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
        import onnx_ir as ir

        self.casts += 1
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        node_name = self._names.fresh_node(name)
        return ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], outputs=[output], name=node_name)
