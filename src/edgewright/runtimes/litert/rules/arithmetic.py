"""Element-wise operators with several operands, and comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Tensor
from edgewright.runtimes.litert.layouts import Order, arranged, identity
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import is_int8, result_of
from edgewright.runtimes.litert.rules.patterns import written_as_gelu

if TYPE_CHECKING:
    import onnx_ir as ir

_FUSING = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_KINDS = {
    "Greater": "GREATER", "Less": "LESS", "GreaterOrEqual": "GREATER_EQUAL", "LessOrEqual": "LESS_EQUAL",
    "Equal": "EQUAL", "And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL",
}  # fmt: skip
#: Those of LiteRT's element-wise kernels that run in int8 whatever the scales.
_IN_INTEGERS = ("Add", "Mul")


@rule("Add", "Sub", "Mul", "Div")
def arithmetic(lowering: Lowering, node: ir.Node) -> None:
    """One operator with the activation after it; in integers where all that it reads and makes is."""
    if written_as_gelu(lowering, node):
        return
    values, order = _operands(lowering, node)
    if node.op_type in _IN_INTEGERS and all(is_int8(lowering, value) for value in values):
        result = result_of(lowering, node)
        if result is not None and all(lowering.raw(value).order == order for value in values):
            for part in result.skipped:
                lowering.skip(part)
            tensors = [lowering.raw(value).tensor for value in values]
            sizes = arranged(lowering.sizes(node.outputs[0]), order)
            made = lowering.op(
                _FUSING[node.op_type], tensors, sizes, quantization=result.quantization, version=2,
                fusedActivationFunction=result.act,
            )  # fmt: skip
            lowering.hold(result.value, made, order)
            return
    tensors = [lowering.fit(value, order) for value in values]
    sizes = arranged(lowering.sizes(node.outputs[0]), order)
    if node.op_type == "Div" and tensors[0].dtype != "float32":
        raise Refused("LiteRT rounds quotients of integers down, ONNX towards zero")
    target, act = lowering.absorb(node.outputs[0])
    lowering.hold(target, lowering.op(_FUSING[node.op_type], tensors, sizes, fusedActivationFunction=act), order)


@rule("Min", "Max", "Sum", "Mean")
def variadic(lowering: Lowering, node: ir.Node) -> None:
    """A chain of two at a time."""
    values, order = _operands(lowering, node)
    sizes = arranged(lowering.sizes(node.outputs[0]), order)
    kind = {"Min": "MINIMUM", "Max": "MAXIMUM"}.get(node.op_type, "ADD")
    tensors = [lowering.fit(value, order) for value in values]
    made = tensors[0]
    for number, tensor in enumerate(tensors[1:], start=2):
        part = sizes if number == len(tensors) else _broadcast(made, tensor)
        made = lowering.op(kind, [made, tensor], part)
    if node.op_type == "Mean":
        made = lowering.op("MUL", [made, lowering.number(1 / len(values), made)], sizes)
    lowering.hold(node.outputs[0], made, order)


@rule(*_KINDS)
def comparison(lowering: Lowering, node: ir.Node) -> None:
    """A comparison or a logical operator; both make bool."""
    values, order = _operands(lowering, node)
    sizes = arranged(lowering.sizes(node.outputs[0]), order)
    tensors = [lowering.fit(value, order) for value in values]
    lowering.hold(node.outputs[0], lowering.op(_KINDS[node.op_type], tensors, sizes, "bool"), order)


@rule("Where")
def where(lowering: Lowering, node: ir.Node) -> None:
    """SELECT_V2."""
    values, order = _operands(lowering, node)
    sizes = arranged(lowering.sizes(node.outputs[0]), order)
    tensors = [lowering.fit(value, order) for value in values]
    lowering.hold(node.outputs[0], lowering.op("SELECT_V2", tensors, sizes, tensors[1].dtype), order)


@rule("Pow")
def power(lowering: Lowering, node: ir.Node) -> None:
    """POW, or the operator that a constant exponent stands for."""
    base, exponent = (value for value in node.inputs if value is not None)
    array = None if lowering.is_held(exponent) else lowering.constant(exponent)
    simple = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}
    kind = simple.get(float(array.reshape(())), "") if array is not None and array.size == 1 else ""
    if kind and lowering.is_held(base) and lowering.dtype(base) == "float32":
        held = lowering.get(base)
        if len(held.order) == len(lowering.sizes(node.outputs[0])):
            sizes = arranged(lowering.sizes(node.outputs[0]), held.order)
            lowering.hold(node.outputs[0], lowering.op(kind, [held.tensor], sizes), held.order)
            return
    values, order = _operands(lowering, node)
    tensors = [lowering.fit(value, order) for value in values]
    if tensors[0].dtype != tensors[1].dtype:
        tensors[1] = lowering.op("CAST", [tensors[1]], tensors[1].shape, tensors[0].dtype)
    lowering.hold(node.outputs[0], lowering.op("POW", tensors, arranged(lowering.sizes(node.outputs[0]), order)), order)


@rule("Mod")
def modulo(lowering: Lowering, node: ir.Node) -> None:
    """FLOOR_MOD; the other kind (`fmod`) has no operator."""
    if node.attributes.get_int("fmod", 0):
        raise Refused("LiteRT has no remainder with the dividend's sign")
    values, order = _operands(lowering, node)
    tensors = [lowering.fit(value, order) for value in values]
    sizes = arranged(lowering.sizes(node.outputs[0]), order)
    lowering.hold(node.outputs[0], lowering.op("FLOOR_MOD", tensors, sizes), order)


def _operands(lowering: Lowering, node: ir.Node) -> tuple[list[ir.Value], Order]:
    values = [value for value in node.inputs if value is not None]
    rank = len(lowering.sizes(node.outputs[0]))
    if rank > 5:
        raise Refused(f"LiteRT broadcasts up to 5 axes; it has {rank}")
    if not any(lowering.is_held(value) for value in values):
        return values, identity(rank)
    return values, lowering.common_order(values, rank)


def _broadcast(first: Tensor, second: Tensor) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.broadcast_shapes(first.shape, second.shape)
    return shape
