"""The graph as it is written: functions inlined, constants folded, every size a number or a multiple of the batch.

Sizes that follow the batch are found by trying: the graph is instantiated for batch 1 and for another one, and what
differs follows. So shapes that a network computes at run time become plain numbers as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_tensor, is_standard, lift_constants
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer, static_shape
from edgewright.runtimes.litert.layouts import Batch, Sizes

if TYPE_CHECKING:
    import onnx_ir as ir

#: The other batch: a factor that no size has by chance.
_OTHER = 7
#: Constants that fold may make: shapes, masks, anchors; larger ones would be weights of their own.
_LARGEST_FOLDED = 2**24
#: Above this a constant is a weight, equal for every batch.
_SMALL = 2**16


@dataclass
class Prepared:
    """A graph and what is known of its values.

    Attributes:
        ir: The graph, for batch 1.
        sizes: Of each value, by name; None where they depend on data.
        varying: Names of constants that differ from batch to batch, such as shapes.
        symbols: By graph input, the axes whose size is the batch.
    """

    ir: ir.Model
    sizes: dict[str, Sizes] = field(default_factory=dict)
    varying: frozenset[str] = frozenset()
    symbols: dict[str, tuple[int, ...]] = field(default_factory=dict)


def prepare(ir_model: ir.Model) -> Prepared:
    """A prepared copy of `ir_model`.

    Raises:
        EdgewrightError: E209 where sizes are open that are no batch.
    """
    symbols = _symbols(ir_model)
    first = _instantiated(ir_model, 1)
    if not symbols:
        return Prepared(first, {name: shape for name, shape in _shapes(first).items() if shape is not None})
    other = _instantiated(ir_model, _OTHER)
    one, more = _shapes(first), _shapes(other)
    sizes = {}
    for name, shape in one.items():
        found = _merged(shape, more.get(name, shape))
        if found is not None:
            sizes[name] = found
    return Prepared(first, sizes, _varying(first, other), symbols)


def _symbols(ir_model: ir.Model) -> dict[str, tuple[int, ...]]:
    """By graph input, the axes that are symbolic.

    Raises:
        EdgewrightError: E209 for more than one symbol, or unknown ranks.
    """
    found: dict[str, tuple[int, ...]] = {}
    names: set[str] = set()
    for value in ir_model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None:
            raise EdgewrightError("E209", f"the shape of input `{value.name}` is not known")
        axes = tuple(axis for axis, size in enumerate(value.shape) if not isinstance(size, int))
        names.update(str(value.shape[axis]) for axis in axes)
        if axes:
            assert value.name is not None
            found[value.name] = axes
    if len(names) > 1 or any(len(axes) > 1 for axes in found.values()):
        raise EdgewrightError(
            "E209",
            f"inputs have {len(names)} open sizes ({', '.join(sorted(names))}), but LiteRT files here take one, the batch: "
            "--set onnx.sizes=NAME=Nx3x48x320",
        )
    return found


def _instantiated(ir_model: ir.Model, batch: int) -> ir.Model:
    """A copy with this batch: no function, no Constant node, nothing left to compute that is known."""
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    copy = ir_model.clone()
    if copy.functions:
        copy = InlinePass()(copy).model
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([size if isinstance(size, int) else batch for size in value.shape])
    _name_apart(copy)
    lift_constants(copy)
    types = {value.name: value.type for node in copy.graph for value in node.outputs}
    _infer(copy, types)
    for node in copy.graph:
        if is_standard(node, "CastLike") and node.inputs[1] is not None and node.inputs[1].dtype is not None:
            _make_cast(node, node.inputs[1].dtype)
    if _foldable(copy):
        fold(copy, _may_fold)
        _infer(copy, types)
    return copy


def _name_apart(ir_model: ir.Model) -> None:
    """Values of branches get names that no other branch has."""
    for number, graph in enumerate(ir_model.graph.subgraphs()):
        for node in graph:
            for value in node.outputs:
                value.name = f"{value.name}@{number}"


def _infer(ir_model: ir.Model, types: dict[str | None, Any]) -> None:
    """Sizes and types that follow from the inputs; types of which inference knows nothing stay as they came."""
    for value in ir_model.graph.outputs:
        if static_shape(value) is None:
            value.shape = None  # what is declared there would stay
    infer(ir_model)
    for node in ir_model.graph:
        for value in node.outputs:
            value.type = value.type or types.get(value.name)
        if node.outputs and node.outputs[0].type is None and node.inputs and node.inputs[0] is not None:
            node.outputs[0].type = node.inputs[0].type  # true of nearly all operators, and nothing else is known


def _make_cast(node: ir.Node, dtype: ir.DataType) -> None:
    """CastLike as the Cast that it is, so that it folds where it casts a constant."""
    import onnx_ir as ir

    node.op_type = "Cast"
    node.resize_inputs(1)
    node.attributes["to"] = ir.AttrInt64("to", int(dtype))


def _foldable(ir_model: ir.Model) -> bool:
    """True where some node has only constants to read, or reads a shape: folding looks at every node, which takes time."""
    return any(
        node.op_type in ("Shape", "Size", "ConstantOfShape", "Range")
        or (node.inputs and all(value is None or constant_tensor(value) is not None for value in node.inputs))
        for node in ir_model.graph
        if node.op_type not in ("DequantizeLinear", "If", "Loop", "Scan")
    )


def _may_fold(node: ir.Node) -> bool:
    shapes = [static_shape(value) for value in node.outputs]
    return all(shape is None or np.prod(shape, dtype=np.int64) <= _LARGEST_FOLDED for shape in shapes)


def _shapes(ir_model: ir.Model) -> dict[str, Sizes | None]:
    graph = ir_model.graph
    values = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
    values += [value for part in ir_model.graphs() for value in part.initializers.values()]
    return {value.name: _shape(value) for value in values if value.name}


def _shape(value: Any) -> Sizes | None:
    tensor = constant_tensor(value)
    return tuple(int(size) for size in tensor.shape) if tensor is not None else static_shape(value)


def _merged(one: Sizes | None, more: Sizes | None) -> Sizes | None:
    """Sizes for batch 1, those that grow marked; None where they do not grow in proportion."""
    if one is None or more is None or len(one) != len(more):
        return None
    if any(b not in (a, a * _OTHER) for a, b in zip(one, more, strict=True)):
        return None
    return tuple(a if a == b else Batch(a) for a, b in zip(one, more, strict=True))


def _varying(first: ir.Model, other: ir.Model) -> frozenset[str]:
    """Constants of the one that are another, or none, in the other."""
    found = set()
    for name, value in first.graph.initializers.items():
        a, b = value.const_value, other.graph.initializers.get(name)
        if a is None or a.size > _SMALL:
            continue
        if b is None or b.const_value is None or not np.array_equal(a.numpy(), b.const_value.numpy()):
            found.add(name)
    return frozenset(found)
