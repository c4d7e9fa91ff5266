"""One sample at a time: a network of any batch becomes that of one sample, which ncnn runs once for each.

That is right only where samples never meet. The axis of the batch is followed through the graph: it is the axis that is
three times as long when the batch is; a node that works along it mixes samples and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.contracts import Problem
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.folding import fold
from edgewright.graph.shapes import infer, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: A batch that no size of a network is likely to be.
_PROBE = 3
#: Larger constants than this are not made where they can be computed.
_LARGEST_FOLDED = 2**24
_RECURRENT = ("GRU", "LSTM", "RNN")
#: Operators that work along the axes of an attribute; those whose batch must be axis 0.
_ALONG = {
    "Softmax": -1,
    "LogSoftmax": -1,
    "ArgMax": 0,
    "ArgMin": 0,
    "TopK": -1,
    "Concat": 0,
    "Split": 0,
    "Gather": 0,
    "LpNormalization": -1,
}
_BY_CHANNEL = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization"),
    *("InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "Resize", "Gemm"),
)


@dataclass(frozen=True)
class OneSample:
    """A network for one sample.

    Attributes:
        ir_model: With every size that is known set, constants folded.
        axes: Axis of the batch by tensor name; None where the tensor is the same for all samples.
        problems: Why it cannot be run sample by sample.
    """

    ir_model: ir.Model
    axes: Mapping[str, int | None]
    problems: tuple[Problem, ...]


def one_sample(ir_model: ir.Model) -> OneSample:
    """The network of one sample; `ir_model` is not changed.

    A fixed batch of several is taken apart too where that can be; where samples meet, it stays an axis like any other.
    """
    free, problems = _free_axes(ir_model)
    if free or problems:
        return _apart(ir_model, free, problems)
    fixed = _fixed_axes(ir_model)
    apart = _apart(ir_model, fixed, []) if fixed else None
    if apart is not None and not apart.problems and _adds_up(ir_model, apart, fixed):
        return apart
    return _apart(ir_model, {}, [])


def _apart(ir_model: ir.Model, free: Mapping[str, int], problems: list[Problem]) -> OneSample:
    """The network with the axes `free` of its inputs as 1."""
    copy = _inlined(ir_model)
    longer = _shapes(copy, free) if free and not problems else {}
    _bind(copy, free, 1)
    fold(copy, _is_small)
    infer(copy)
    axes = _axes(copy, longer) if free else {}
    if not problems:
        problems = [found for node in copy.graph for found in _mixing(node, axes)]
    return OneSample(copy, axes, tuple(problems))


def _inlined(ir_model: ir.Model) -> ir.Model:
    from onnx_ir.passes.common import InlinePass

    copy = ir_model.clone()
    return InlinePass()(copy).model if copy.functions else copy


def _is_small(node: ir.Node) -> bool:
    shape = static_shape(node.outputs[0])
    size = 1
    for item in shape or ():
        size *= item
    return size <= _LARGEST_FOLDED


def _free_axes(ir_model: ir.Model) -> tuple[dict[str, int], list[Problem]]:
    """The axis of the batch by input, of those that have one of any size; and inputs with other open sizes."""
    axes: dict[str, int] = {}
    symbols: set[str] = set()
    problems: list[Problem] = []
    for value in _inputs(ir_model):
        sizes = [] if value.shape is None else list(value.shape)
        free = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
        sequence = value.uses() and all(is_standard(use.node, *_RECURRENT, "Transpose") for use in value.uses())
        if value.shape is None or not set(free) <= {1 if sequence and free == [1] else 0}:
            what = "its rank is not known" if value.shape is None else f"more than its batch is open: {value.shape}"
            problems.append(
                Problem(
                    value.name or "",
                    "Input",
                    f"{what}; ncnn networks here have fixed sizes: --set onnx.sizes=NAME=Nx3x48x320",
                )
            )
        if free:
            axes[value.name or ""] = free[0]
        symbols |= {str(getattr(sizes[axis], "value", None) or "") for axis in free}
    if len(symbols) > 1 and not problems:
        problems.append(Problem("", "Input", f"its inputs have batches of their own: {', '.join(sorted(symbols))}"))
    return axes, problems


def _fixed_axes(ir_model: ir.Model) -> dict[str, int]:
    """Axis 0 of every input, where all have one of the same size and that is a batch of several; else nothing."""
    shapes = [static_shape(value) for value in _inputs(ir_model)]
    if any(shape is None or len(shape) < 2 for shape in shapes):
        return {}
    sizes = {shape[0] for shape in shapes if shape is not None}
    return {value.name or "": 0 for value in _inputs(ir_model)} if len(sizes) == 1 and min(sizes) > 1 else {}


def _adds_up(ir_model: ir.Model, apart: OneSample, fixed: Mapping[str, int]) -> bool:
    """True where the results of single samples make up those of the batch."""
    first = next(value for value in _inputs(ir_model) if value.name in fixed)
    whole = ir_model.clone()
    _bind(whole, {}, 1)
    infer(whole)
    batch = (static_shape(first) or (0,))[0]
    for wanted, value in zip(whole.graph.outputs, apart.ir_model.graph.outputs, strict=True):
        one, many, axis = static_shape(value), static_shape(wanted), apart.axes.get(value.name or "")
        if one is None or many is None or axis is None:
            return False
        if many != (*one[:axis], one[axis] * batch, *one[axis + 1 :]):
            return False
    return True


def _inputs(ir_model: ir.Model) -> list[ir.Value]:
    return [value for value in ir_model.graph.inputs if value.name not in ir_model.graph.initializers]


def _bind(ir_model: ir.Model, free: Mapping[str, int], batch: int) -> None:
    """Give the axes `free` of the inputs the size `batch`, and let all that follow be inferred."""
    import onnx_ir as ir

    for value in _inputs(ir_model):
        if value.shape is not None and value.name in free:
            sizes = list(value.shape)
            sizes[free[value.name]] = batch
            value.shape = ir.Shape(sizes)
    for value in ir_model.graph.outputs:
        value.shape = None
    for node in ir_model.graph:
        for value in node.outputs:
            value.shape = None


def _shapes(ir_model: ir.Model, free: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors for a batch of three, those that can be told."""
    probe = ir_model.clone()
    _bind(probe, free, _PROBE)
    try:
        infer(probe)
    except EdgewrightError:  # a fixed batch stands in the graph
        return {}
    values = (*probe.graph.inputs, *(value for node in probe.graph for value in node.outputs))
    return {value.name: shape for value in values if value.name and (shape := static_shape(value)) is not None}


def _axes(ir_model: ir.Model, longer: Mapping[str, tuple[int, ...]]) -> dict[str, int | None]:
    axes: dict[str, int | None] = {}
    for value in (*ir_model.graph.inputs, *(value for node in ir_model.graph for value in node.outputs)):
        shape, many = static_shape(value), longer.get(value.name or "")
        if not value.name or shape is None:
            continue
        if many is None or len(many) != len(shape):
            axes[value.name] = 0 if shape and shape[0] == 1 else None
            continue
        axes[value.name] = next(
            (axis for axis, (one, three) in enumerate(zip(shape, many, strict=True)) if three == _PROBE * one), None
        )
    return axes


def _mixing(node: ir.Node, axes: Mapping[str, int | None]) -> list[Problem]:
    """The node, where it works along the batch."""
    data = node.inputs[0] if node.inputs else None
    axis = None if data is None else axes.get(data.name or "")
    if data is None or axis is None or data.shape is None:
        return []
    mixes = axis in _worked(node, len(data.shape))
    mixes |= is_standard(node, *_BY_CHANNEL) and axis != 0
    mixes |= is_standard(node, *_RECURRENT) and axis != 1
    mixes |= is_standard(node, "Reshape", "Flatten") and not _stays_outside(data, axis, node.outputs[0], axes)
    if is_standard(node, "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Where"):
        met = [(axes.get(v.name or ""), v.shape) for v in node.inputs if v is not None]
        mixes |= len({len(shape) - at for at, shape in met if at is not None and shape is not None}) > 1
    if not mixes:
        return []
    return [Problem(node.name or node.outputs[0].name or "", node.op_type, "it mixes samples; ncnn runs one at a time")]


def _stays_outside(data: ir.Value, axis: int, made: ir.Value, axes: Mapping[str, int | None]) -> bool:
    """False where positions lie outside of the samples before a change of shape and within them behind it, or the other way
    round: what is put together of single samples has another order then."""
    before, after, then = static_shape(data), static_shape(made), axes.get(made.name or "")
    if before is None or after is None or then is None:
        return True
    return math.prod(before[:axis]) == math.prod(after[:then])


def _worked(node: ir.Node, rank: int) -> set[int]:
    """Axes of its first input along which a node works."""
    if is_standard(node, *_ALONG):
        return {node.attributes.get_int("axis", _ALONG[node.op_type]) % rank}
    if node.op_type == "LayerNormalization":
        return set(range(node.attributes.get_int("axis", -1) % rank, rank))
    if is_standard(node, "MatMul"):
        return {rank - 1}
    if is_standard(node, "Tile", "Expand"):  # what repeats samples puts them behind one another, not each behind itself
        before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if before is None or after is None:
            return set(range(rank))
        return {axis for axis in range(rank) if before[axis] != after[axis + len(after) - rank]}
    place = {"Slice": 3, "CumSum": 1}.get(node.op_type, 1 if node.op_type.startswith("Reduce") else None)
    if place is None:
        return set()
    array = constant_array(node.inputs[place]) if place < len(node.inputs) else None
    if array is None or not array.size:
        full = node.op_type.startswith("Reduce") and not node.attributes.get_int("noop_with_empty_axes", 0)
        return set(range(rank)) if full else set()
    return {int(axis) % rank for axis in array.reshape(-1)}
