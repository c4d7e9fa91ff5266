"""Adds nodes to the ONNX graph that is being made; the onnx package says of each what types and sizes it makes.

What is constant and small is computed at once: converters write shapes as chains of operators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.model import IR_VERSION, OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

Size = int | str | None
#: Inference wants values of shapes, axes and the like; weights stay out of it.
_SMALL_BYTES = 1024
#: Constants of at most so many elements are computed at import.
_FOLDED_ELEMENTS = 1024
#: Quantized constants must stay what they are: runtimes look for them.
_NEVER_FOLDED = ("DequantizeLinear", "QuantizeLinear")


class Unfit(Exception):  # noqa: N818
    """An operator of ONNX cannot take what it is given."""


class Graph:
    """Nodes, weights, inputs and outputs in the order in which they are added.

    Attributes:
        scope: What names of inner values begin with.
        taken: Names in use.
    """

    def __init__(self, taken: Sequence[str]) -> None:
        self.scope = ""
        self.taken = set(taken)
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._numbers: dict[tuple[Any, ...], ir.Value] = {}

    def input(self, name: str, dtype: str, shape: Sequence[Size]) -> ir.Value:
        """A new graph input."""
        self._inputs.append(_value(name, dtype, shape))
        return self._inputs[-1]

    def output(self, value: ir.Value) -> None:
        """Make `value` a graph output."""
        self._outputs.append(value)

    def node(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new node."""
        return self.nodes(op_type, *inputs, outputs=1, **attributes)[0]

    def nodes(self, op_type: str, *inputs: ir.Value | None, outputs: int, **attributes: Any) -> list[ir.Value]:
        """The outputs of a new node that has several.

        Raises:
            Unfit: The operator cannot take these inputs.
        """
        import onnx
        import onnx_ir as ir

        names = [self.fresh(f"{self.scope}:{op_type.lower()}") for _ in range(outputs)]
        given = ["" if value is None else str(value.name) for value in inputs]
        proto = onnx.helper.make_node(op_type, given, names, name=names[0], **attributes)
        types = {str(value.name): _type_proto(value) for value in inputs if value is not None}
        small = {str(v.name): array for v in inputs if v is not None and (array := self.array(v)) is not None}
        data = {name: _tensor_proto(array) for name, array in small.items() if array.nbytes <= _SMALL_BYTES}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                _schema(op_type), proto, types, data, opset_imports=[_OPSET()], ir_version=IR_VERSION
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as problem:
            raise Unfit(_last_line(problem)) from None
        values = [_from_proto(name, found[name]) for name in names]
        if op_type not in _NEVER_FOLDED and len(small) == len(types) and types and _is_small((*inputs, *values)):
            return [self.constant(array, name) for name, array in zip(names, _evaluate(proto, small), strict=True)]
        given_attributes = [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute]
        self._nodes.append(ir.Node("", op_type, inputs, given_attributes, outputs=values, name=names[0]))
        return values

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """A new initializer of that name."""
        import onnx_ir as ir

        value = _value(name, array.dtype.name, array.shape)
        value.const_value = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        self._initializers[name] = value
        return value

    def numbers(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        """A small constant, by default of i64; equal ones are one."""
        array = np.array(values, dtype)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._numbers:
            self._numbers[key] = self.constant(array, self.fresh("number" if array.ndim == 0 else "numbers"))
        return self._numbers[key]

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The constant that `value` is, not to be written to; None where it is computed."""
        if value is None or value.const_value is None:
            return None
        array: np.ndarray = value.const_value.numpy()
        return array

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number where it is taken; taken from now on."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}:{number}"
        self.taken.add(name)
        return name

    def made_here(self, value: ir.Value) -> bool:
        """True where the operator that is being read made `value` by a node of its own."""
        return value.producer() is not None and (value.name or "").startswith(f"{self.scope}:")

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a value, and the node that makes it, another name."""
        if value.const_value is not None:
            del self._initializers[str(value.name)]
            self._initializers[name] = value
            value.const_value.name = name
        producer = value.producer()
        value.name = name
        if producer is not None and producer.outputs[0] is value:
            producer.name = name

    def finished(self, name: str) -> ir.Graph:
        """The graph without what leads to no output; call it once."""
        import onnx_ir as ir

        wanted, live = set(self._outputs), []
        for node in reversed(self._nodes):
            if any(value in wanted for value in node.outputs):
                live.append(node)
                wanted.update(value for value in node.inputs if value is not None)
        return ir.Graph(
            self._inputs,
            self._outputs,
            nodes=live[::-1],
            initializers=tuple(value for value in self._initializers.values() if value in wanted),
            opset_imports={"": OPSET_VERSION},
            name=name,
        )


def shape_of(value: ir.Value) -> tuple[Size, ...] | None:
    """Sizes, a name or None where they are not known; None where not even their number is."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)


@functools.cache
def _schema(op_type: str) -> Any:
    from onnx import defs

    return defs.get_schema(op_type, OPSET_VERSION)


def _OPSET() -> Any:  # noqa: N802
    import onnx

    return onnx.helper.make_opsetid("", OPSET_VERSION)


def _value(name: str, dtype: str, shape: Sequence[Size]) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))))


def _type_proto(value: ir.Value) -> Any:
    import onnx

    assert value.dtype is not None
    return onnx.helper.make_tensor_type_proto(value.dtype.value, shape_of(value))


def _tensor_proto(array: np.ndarray) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


def _from_proto(name: str, proto: Any) -> ir.Value:
    import onnx_ir as ir

    tensor = proto.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = ir.Shape([d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim])
    return ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType(tensor.elem_type)))


def _is_small(values: Sequence[ir.Value | None]) -> bool:
    for value in values:
        sizes = () if value is None else shape_of(value)
        if sizes is None or not all(isinstance(size, int) and size >= 0 for size in sizes):
            return False
        if math.prod(int(size or 0) for size in sizes) > _FOLDED_ELEMENTS:
            return False
    return True


def _evaluate(proto: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(_as_model(proto, inputs)).run(None, inputs)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as problem:
        raise Unfit(_last_line(problem)) from None
    return [np.asarray(result) for result in results]


def _as_model(proto: Any, inputs: dict[str, np.ndarray]) -> Any:
    import onnx

    types = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    graph = onnx.helper.make_graph(
        [proto],
        "folded",
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output],
    )
    return onnx.helper.make_model(graph, opset_imports=[_OPSET()])


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(problem).__name__
