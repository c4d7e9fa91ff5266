"""Sizes of inputs that a file leaves open, fixed by whoever loads it: phones, pruning and counting need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir

#: More elements than this no input has: a slip of the finger must not ask for the machine's memory.
_MOST_ELEMENTS = 2**31


def fix(ir_model: ir.Model, sizes: Sequence[str]) -> None:
    """Fix open sizes of graph inputs, in place.

    A size that several inputs share by name is fixed in all of them. What outputs were declared to be is dropped, since
    it may be narrower now; shape inference finds it again.

    Args:
        ir_model: The graph, before shapes are inferred.
        sizes: `NAME=1x3x48x320` for an input, or without its name where there is one; an axis that is no number stays.

    Raises:
        EdgewrightError: E103 for text of another form, an unknown input, a wrong rank or a size that is fixed already.
    """
    import onnx_ir as ir

    named: dict[str, int] = {}
    for text in sizes:
        value, axes = _parsed(ir_model, text)
        if value.shape is None:
            value.shape = ir.Shape([int(axis) if axis.isdecimal() else None for axis in axes])
            continue
        named |= _fixed(value, axes, text)
    for value in ir_model.graph.inputs:
        if value.shape is not None and named:
            value.shape = ir.Shape([named.get(getattr(size, "value", None) or "", size) for size in value.shape])
    if sizes:
        for value in ir_model.graph.outputs:
            value.shape = None


def _parsed(ir_model: ir.Model, text: str) -> tuple[ir.Value, list[str]]:
    """The input that `text` names, and its axes."""
    inputs = {value.name or "": value for value in ir_model.graph.inputs}
    name, equals, form = text.rpartition("=")
    listed = ", ".join(f"`{known}`" for known in inputs)
    if not equals:
        if len(inputs) != 1:
            raise _wrong(text, f"must name its input: one of {listed}")
        name = next(iter(inputs))
    if name not in inputs:
        raise _wrong(text, f"the network has no input `{name}`, only {listed}")
    axes = form.lower().split("x")
    if not all(axes) or not any(axis.isdecimal() for axis in axes):
        raise _wrong(text, "must look like 1x3x48x320, or Nx3x48x320 where the first axis stays open")
    elements = 1
    for axis in axes:
        elements *= int(axis) if axis.isdecimal() else 1
    if not 0 < elements <= _MOST_ELEMENTS:
        raise _wrong(text, f"must be 1 to {_MOST_ELEMENTS} numbers")
    return inputs[name], axes


def _fixed(value: ir.Value, axes: Sequence[str], text: str) -> dict[str, int]:
    """Give `value` these sizes; those of its open sizes that had a name, and what they are now."""
    import onnx_ir as ir

    shape = value.shape
    assert shape is not None
    if len(axes) != len(shape):
        raise _wrong(text, f"has {len(axes)} axes, but input `{value.name}` has {len(shape)}: {_shown(shape)}")
    named: dict[str, int] = {}
    sizes: list[int | ir.SymbolicDim] = []
    for axis, size in zip(axes, shape, strict=True):
        if isinstance(size, int) or not axis.isdecimal():
            if isinstance(size, int) and axis.isdecimal() and int(axis) != size:
                raise _wrong(text, f"asks for {axis} where input `{value.name}` is fixed to {size}: {_shown(shape)}")
            sizes.append(size)
            continue
        sizes.append(int(axis))
        if size.value is not None:
            named[size.value] = int(axis)
    value.shape = ir.Shape(sizes)
    return named


def _shown(shape: ir.Shape) -> str:
    return "x".join(str(size) if isinstance(size, int) else str(size.value or "?") for size in shape)


def _wrong(text: str, why: str) -> EdgewrightError:
    return EdgewrightError("E103", f"option `onnx.sizes`: `{text}` {why}", hint="edgewright inspect MODEL")
