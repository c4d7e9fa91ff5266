"""Changes to a copy of one node, and what alternatives ask of a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import add_initializer, constant_array, is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

#: (text, change): what is different, and the function that makes it so in a copy of the node.
Alternative = tuple[str, Callable[["ir.Node"], None]]

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def set_attribute(name: str, value: Any) -> Callable[[ir.Node], None]:
    """The change that gives an attribute another value."""

    def change(node: ir.Node) -> None:
        import onnx_ir as ir

        if isinstance(value, float):
            node.attributes[name] = ir.AttrFloat32(name, value)
        elif isinstance(value, int):
            node.attributes[name] = ir.AttrInt64(name, value)
        elif isinstance(value, str):
            node.attributes[name] = ir.AttrString(name, value)
        else:
            node.attributes[name] = ir.AttrInt64s(name, value)

    return change


def set_input(index: int, array: np.ndarray) -> Callable[[ir.Node], None]:
    """The change that puts a constant in the place of an input."""

    def change(node: ir.Node) -> None:
        assert node.graph is not None
        new = add_initializer(node.graph, f"{node.outputs[0].name}:alternative{index}", array)
        node.replace_input_with(index, new)

    return change


def set_weight(array: np.ndarray) -> Callable[[ir.Node], None]:
    """The change that gives a node other weights."""
    return set_input(1, array)


def in_turn(*changes: Callable[[ir.Node], None]) -> Callable[[ir.Node], None]:
    """Several changes of one node as one."""

    def change(node: ir.Node) -> None:
        for step in changes:
            step(node)

    return change


def exchange(node: ir.Node) -> None:
    """The change that exchanges both operands."""
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def leave_out(index: int) -> Callable[[ir.Node], None]:
    """The change that takes 0 for an operand of a sum."""

    def change(node: ir.Node) -> None:
        import onnx_ir as ir

        assert node.graph is not None
        value = node.inputs[index]
        dtype = value.dtype if value is not None and value.dtype is not None else ir.DataType.FLOAT
        zero = add_initializer(node.graph, f"{node.outputs[0].name}:zero", np.zeros((), dtype.numpy()))
        node.replace_input_with(index, zero)

    return change


def bias_of(node: ir.Node) -> np.ndarray | None:
    """The constant bias of a convolution or Gemm that adds it as it is; None where there is none."""
    if (
        not is_standard(node, "Conv", "ConvTranspose", "Gemm")
        or len(node.inputs) < 3
        or attribute(node, "beta", 1.0) != 1.0
    ):
        return None
    return constant_array(node.inputs[2])


def weight_of(node: ir.Node) -> np.ndarray | None:
    """The constant weights of a convolution or matrix product; None where there are none."""
    if not is_standard(node, *_WEIGHTED):
        return None
    array = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    return array if array is not None and array.ndim >= 2 and array.dtype.kind == "f" else None


def output_axis(node: ir.Node) -> int:
    """Axis of the weights that runs over output channels."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, -1)


def input_axis(node: ir.Node) -> int:
    """Axis of the weights that runs over input channels."""
    if node.op_type == "Gemm":
        return 1 if attribute(node, "transB", 0) else 0
    return {"Conv": 1, "ConvTranspose": 0}.get(node.op_type, 0)


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The attribute's value, or `default` where it is absent."""
    return node.attributes[name].value if name in node.attributes else default


def label_of(node: ir.Node) -> str:
    """What a node is called: its name, or its first output's."""
    return node.name or str(node.outputs[0].name)
