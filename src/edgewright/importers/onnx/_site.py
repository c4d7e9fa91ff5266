"""A node that is being upgraded, with the edits that rewrites need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.importers.onnx._naming import free_name
from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class Site:
    """One node at one step of the upgrade. Its outputs keep their names, whatever happens to it.

    Attributes:
        node: The node, changed in place.
        version: The opset that the step leads to.
        in_function: True inside a function body, which has no initializers and no types.
        taken: Names of all values in the model; new ones are added.
    """

    node: ir.Node
    version: int
    in_function: bool
    taken: set[str]

    def pop(self, name: str, default: Any = None) -> Any:
        """The attribute's value, taken off the node; `default` where it has none.

        Raises:
            EdgewrightError: E205 inside a function, where the caller sets the value.
        """
        attribute = self.node.attributes.pop(name, None)
        if attribute is None:
            return default
        if attribute.is_ref():
            raise self.refuse(f"its attribute `{name}` comes from the caller of a function")
        return attribute.value

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute's value; `default` where the node has none."""
        value = self.pop(name, None)
        if value is None:
            return default
        self.set(name, value)
        return value

    def set(self, name: str, value: Any) -> None:
        """Give the node an attribute."""
        import onnx_ir as ir

        self.node.attributes[name] = ir.convenience.convert_attribute(name, value)

    def input(self, index: int) -> ir.Value | None:
        """The input at `index`, or None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def set_input(self, index: int, value: ir.Value | None) -> None:
        """Connect an input; those before it that are missing are left out."""
        if index >= len(self.node.inputs):
            if value is None:
                return
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)

    def uses_output(self, index: int) -> bool:
        """True where the node names the output at `index`."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index].name)

    def constant(self, suffix: str, array: np.ndarray) -> ir.Value:
        """A new value that holds `array`: an initializer, or a Constant node inside a function."""
        import onnx_ir as ir

        name = self._new_name(suffix)
        tensor = ir.Tensor(array, name=name)
        if self.in_function:
            return self.insert("Constant", (), {"value": tensor}, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        assert self.node.graph is not None
        self.node.graph.register_initializer(value)
        return value

    def ints(self, suffix: str, values: Sequence[int]) -> ir.Value:
        """A new i64[len(values)]."""
        return self.constant(suffix, np.array(values, dtype=np.int64))

    def scalar_like(self, suffix: str, number: float, like: ir.Value) -> ir.Value:
        """A new scalar of the element type of `like`."""
        dtype = like.dtype
        if dtype is None:
            return self.insert(
                "CastLike", (self.constant(f"{suffix}:f32", np.array(number, np.float32)), like), suffix=suffix
            )
        return self.constant(suffix, np.array(number).astype(dtype.numpy()))

    def insert(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        suffix: str = "",
        name: str = "",
    ) -> ir.Value:
        """The output of a new node before this one."""
        import onnx_ir as ir

        node = ir.node(op_type, inputs, attributes or {})
        node.outputs[0].name = name or self._new_name(suffix)
        self.node.prepend(node)
        return node.outputs[0]

    def become(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None) -> None:
        """Turn the node into another operator that makes the same outputs."""
        self.node.op_type = op_type
        self.node.attributes.clear()
        for name, value in (attributes or {}).items():
            self.set(name, value)
        self.node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            self.node.replace_input_with(index, value)

    def known(self, index: int) -> np.ndarray | None:
        """The values of a constant input, or None where it is computed or left out."""
        import onnx_ir as ir

        value = self.input(index)
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        return None if tensor is None else tensor.numpy()

    def refuse(self, reason: str) -> EdgewrightError:
        """The error for a node that has no upgrade."""
        return EdgewrightError(
            "E205",
            f"operator `{self.node.op_type}` (node `{self.node.name or self.node.outputs[0].name}`) has no form at opset "
            f"{OPSET_VERSION}: {reason}",
        )

    def _new_name(self, suffix: str) -> str:
        output = next((value.name for value in self.node.outputs if value.name), self.node.op_type)
        name = free_name(f"{output}:{suffix}", self.taken)
        self.taken.add(name)
        return name
