"""Adds nodes to an ONNX graph that is being made: what importers of other formats share.

Tensors are f32 unless they are declared to be something else; the first axis is the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

Size = int | str


class Graph:
    """Nodes, weights, inputs and outputs in the order in which they are added.

    Attributes:
        scope: What names begin with, such as `layer_003`.
        batch: Size of the first axis, or its name.
        inputs: What is fed at run time, in order.

    Args:
        batch: The same.
        reserved: Names that only `input` and `named` may give.
    """

    def __init__(self, batch: Size, reserved: Collection[str] = ()) -> None:
        self.scope = ""
        self.batch = batch
        self.inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._names: Counter[str] = Counter(reserved)

    def input(self, name: str, shape: Sequence[Size]) -> ir.Value:
        """A new graph input, f32."""
        value = _value(name, shape)
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value) -> None:
        """Make `value` a graph output."""
        self._outputs.append(value)

    def node(
        self, op_type: str, *inputs: ir.Value | None, shape: Sequence[Size] | None = None, **attributes: Any
    ) -> ir.Value:
        """The f32 output of a new node; `shape` is that of the first input unless given."""
        return self.nodes(op_type, *inputs, shapes=[self._shape(inputs[0]) if shape is None else shape], **attributes)[
            0
        ]

    def nodes(
        self, op_type: str, *inputs: ir.Value | None, shapes: Sequence[Sequence[Size]], **attributes: Any
    ) -> list[ir.Value]:
        """The outputs of a new node that has several."""
        import onnx_ir as ir

        name = self.fresh(f"{self.scope}.{op_type.lower()}")
        labels = [name] if len(shapes) == 1 else [f"{name}:{number}" for number in range(len(shapes))]
        outputs = [_value(label, shape) for label, shape in zip(labels, shapes, strict=True)]
        self._nodes.append(ir.node(op_type, inputs, attributes, outputs=outputs, name=name))
        return outputs

    def typed(self, value: ir.Value, dtype: Any) -> ir.Value:
        """The same value, declared to be of another type than f32."""
        import onnx_ir as ir

        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        return value

    def named(self, value: ir.Value, name: str) -> ir.Value:
        """`value` under `name`: renamed where a node of this scope just made it, else handed on by an Identity."""
        producer = value.producer()
        if producer is None or not (value.name or "").startswith(f"{self.scope}."):
            value = self.node("Identity", value)
            producer = value.producer()
            assert producer is not None
        value.name = producer.name = name
        return value

    def weight(self, part: str, array: np.ndarray) -> ir.Value:
        """A new constant `SCOPE.part`."""
        return self._constant(f"{self.scope}.{part}", array)

    def shared(self, name: str, array: np.ndarray) -> ir.Value:
        """The constant called `name`, which is made once."""
        return self._constant(name, array)

    def scalar(self, number: float) -> ir.Value:
        """A constant f32 of no axes; equal ones are one."""
        return self._constant(f"number.{float(number)!r}", np.array(number, np.float32))

    def ints(self, *numbers: int) -> ir.Value:
        """A constant i64 vector; equal ones are one."""
        return self._constant(f"sizes.{'_'.join(str(number) for number in numbers)}", np.array(numbers, np.int64))

    def reshape(self, value: ir.Value, *sizes: int) -> ir.Value:
        """`value` with the batch as it is and `sizes` behind it."""
        # 0 keeps the batch, whatever its size.
        return self.node("Reshape", value, self.ints(0, *sizes), shape=(self._shape(value)[0], *sizes))

    def slice(self, value: ir.Value, start: int, stop: int, *, axis: int = 1) -> ir.Value:
        """Part of an axis."""
        shape = list(self._shape(value))
        shape[axis] = stop - start
        return self.node("Slice", value, self.ints(start), self.ints(stop), self.ints(axis), shape=shape)

    def shape(self, value: ir.Value) -> tuple[Size, ...]:
        """Sizes of `value`, the batch as a name where it is one."""
        return self._shape(value)

    def fresh(self, wanted: str) -> str:
        """`wanted`, with a number where that name is given already."""
        name = wanted
        while self._names[name]:
            self._names[wanted] += 1
            name = f"{wanted}.{self._names[wanted]}"
        self._names[name] += 1
        return name

    def finished(self, name: str) -> ir.Graph:
        """The graph; call it once."""
        import onnx_ir as ir

        return ir.Graph(
            self.inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports={"": OPSET_VERSION},
            name=name,
        )

    def _constant(self, key: str, array: np.ndarray) -> ir.Value:
        if key not in self._initializers:
            self._initializers[key] = _constant(self.fresh(key), array)
        return self._initializers[key]

    @staticmethod
    def _shape(value: ir.Value | None) -> tuple[Size, ...]:
        assert value is not None
        assert value.shape is not None
        return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)


def _constant(name: str, array: np.ndarray) -> ir.Value:
    import onnx_ir as ir

    value = _value(name, array.shape, array.dtype)
    value.const_value = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    return value


def _value(name: str, shape: Sequence[Size], dtype: Any = np.float32) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))))
