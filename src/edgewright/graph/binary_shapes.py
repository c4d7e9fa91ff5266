"""Standard operators in the place of binary layers, for shape inference: what they make has the same type and shape.

The bodies of our functions say the same, but through sizes that are computed, which inference does not follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.ops import DOMAIN
from edgewright.ops.packing import bytes_for

if TYPE_CHECKING:
    import onnx_ir as ir

_WINDOW = ("strides", "dilations", "pads")
_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # where channels lie


def stand_in(ir_model: ir.Model) -> None:
    """Replace binary layers and what packs signs for them; those of unknown sizes stay. Values are no longer right."""
    for graph in tuple(ir_model.graphs()):
        for node in tuple(graph):
            if node.domain == DOMAIN:
                _Standing(ir_model.graph, node).replace()


def static_sizes(value: ir.Value | None) -> tuple[int, ...]:
    """The sizes of `value`; none where one is not known."""
    sizes = () if value is None or value.shape is None else tuple(value.shape)
    return tuple(size for size in sizes if isinstance(size, int)) if all(isinstance(n, int) for n in sizes) else ()


def _integers(node: ir.Node, name: str) -> tuple[int, ...] | None:
    attribute = node.attributes.get(name)
    values = None if attribute is None else attribute.value
    return tuple(values) if isinstance(values, list | tuple) and all(isinstance(n, int) for n in values) else None


class _Standing:
    """One node's replacement."""

    def __init__(self, main: ir.Graph, node: ir.Node) -> None:
        self.main, self.node, self.made = main, node, 0

    def replace(self) -> None:
        """Put standard operators there, if the sizes that they need are known."""
        kind, signs = self.node.op_type.removesuffix("Signs"), self.node.op_type.endswith("Signs")
        result = self._packed() if kind == "Pack" else self._layer(kind, signs)
        if result is None:
            return
        if signs:
            result = self._node("Cast", result, to=2)  # uint8
        old = self.node.outputs[0]
        name = old.name
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        assert self.node.graph is not None
        self.node.graph.remove(self.node, safe=True)
        result.name = name

    def _packed(self) -> ir.Value | None:
        """Channels become the bytes that the readers' `channels` take."""
        reader = next((use.node for use in self.node.outputs[0].uses() if use.node.domain == DOMAIN), None)
        channels = None if reader is None else _integers(reader, "channels")
        x = self.node.inputs[0]
        if reader is None or not channels or x is None:
            return None
        if reader.op_type.startswith("BinaryConv"):
            x = self._node("Transpose", x, perm=_LAST)
        return self._node("MatMul", x, self._weights([None, bytes_for(channels[0])]))

    def _layer(self, kind: str, signs: bool) -> ir.Value | None:
        packed, weights = (*self.node.inputs, None, None)[:2]
        sizes = static_sizes(weights)
        if packed is None or len(sizes) != {"BinaryConv": 4, "BinaryLinear": 2}.get(kind):
            return None
        filters, *kernel, count = sizes
        filters = bytes_for(filters) if signs else filters
        x = self._node("Cast", packed, to=1)  # float32
        if kind == "BinaryLinear":
            return self._node("MatMul", x, self._weights([count, filters]))
        window = {name: value for name in _WINDOW if (value := _integers(self.node, name)) is not None}
        x = self._node("Transpose", x, perm=_FIRST)
        y = self._node("Conv", x, self._weights([filters, count, *kernel]), **window)
        return self._node("Transpose", y, perm=_LAST) if signs else y

    def _weights(self, shape: list[int | None]) -> ir.Value:
        import onnx_ir as ir

        value = ir.Value(name=self._name(), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        self.main.inputs.append(value)
        return value

    def _node(self, kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes, name=self._name())
        node.outputs[0].name = self._name()
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, node)
        return node.outputs[0]

    def _name(self) -> str:
        self.made += 1
        return f"{self.node.outputs[0].name}:standing:{self.made}"
