"""Which nodes stay in float32, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.graph.shapes import static_shape
from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

#: float16 ends at 65504.
LARGEST = float(np.finfo(np.float16).max)
BEYOND = f"a constant is beyond {LARGEST:.0f}"
_COUNTS = "counts or squares"
#: A sum of more values than this may leave float16's range even where each value is modest.
_LARGEST_SUM = 1024

#: Squares, exponentials, sums of squares, and sampling positions.
KEEP = (
    *("CumSum", "DFT", "Det", "Exp", "GridSample", "LpNormalization", "Mod", "Pow", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare", "RoiAlign", "STFT"),
)
#: Operators of that list whose result is within float16's range all the same.
_TAME = ("GridSample", "LpNormalization", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "RoiAlign")
#: They bring a large range back into float16's.
_TAMING = (
    "Clip",
    "Cos",
    "Erf",
    "HardSigmoid",
    "Log",
    "LogSoftmax",
    "Sigmoid",
    "Sin",
    "Softmax",
    "Softsign",
    "Sqrt",
    "Tanh",
)
#: They do the work: float16 whatever comes in.
_WORK = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"),
    *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
)
#: Input positions that take float32 beside a float16 tensor: sizes and scales, not data.
_STAYING_INPUTS = {"Resize": (1, 2)}
#: Attributes that name the output's type; such nodes (random numbers, windows) are cheap and stay as they are.
_TYPED = {"dtype", "output_datatype"}


def choose(ir_model: ir.Model, *, keep: tuple[str, ...], operators: tuple[str, ...]) -> dict[ir.Node, str]:
    """Nodes that stay in float32, in graph order, each with the reason."""
    version = ir_model.graph.opset_imports.get("", OPSET_VERSION)
    kept: dict[ir.Node, str] = {}
    wide: set[ir.Value] = set()  # values outside float16's range or precision, as far as one can tell
    for graph in ir_model.graphs():
        for node in graph:
            if not touches_floats(node):
                continue
            asked = "asked for" if set(keep).intersection(names_of(node)) else None
            outside = _outside(node, operators, wide)
            reason = asked or _unable(node, version) or outside
            if reason is None:
                continue
            kept[node] = reason
            own_choice = node.op_type in operators and node.op_type not in KEEP  # says nothing of its values
            if outside and not own_choice and not is_standard(node, *_TAME, *_TAMING):
                wide.update(value for value in node.outputs if is_float(value))
    return kept


def names_of(node: ir.Node) -> tuple[str, ...]:
    """Names by which a person may call a node: its own and those of its tensors."""
    return tuple(name for name in (node.name, *(value.name for value in node.outputs)) if name)


def is_float(value: ir.Value | None) -> bool:
    """True for a float32 tensor."""
    import onnx_ir as ir

    return value is not None and isinstance(value.type, ir.TensorType) and value.type.dtype == ir.DataType.FLOAT


def touches_floats(node: ir.Node) -> bool:
    """True for a node that reads or makes float32 numbers; Shape and Size read sizes, of any type."""
    return any(map(is_float, (*node.inputs, *node.outputs))) and not is_standard(node, "Shape", "Size")


def half_inputs(node: ir.Node, version: int) -> list[bool]:
    """For each input of a standard node: may it be float16?"""
    from onnx import defs

    schema = defs.get_schema(node.op_type, version, "")
    staying = _STAYING_INPUTS.get(node.op_type, ())
    allowed = _allowed(schema, schema.inputs, len(node.inputs))
    return [half and index not in staying for index, half in enumerate(allowed)]


def to_half(array: Any) -> np.ndarray:
    """The array in float16; what is too large becomes infinite, what is too small 0."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(array).astype(np.float16)


def _unable(node: ir.Node, version: int) -> str | None:
    """Why `node` cannot be in float16 whatever its values are; None where it can."""
    import onnx_ir as ir

    attributes = node.attributes.values()
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    reason = None
    if not is_standard(node, node.op_type):
        reason = f"operators of the domain {node.domain}"
    elif any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for item in attributes):
        reason = "control flow, converted inside"
    elif any(not isinstance(value.type, ir.TensorType) for value in values):
        reason = "its types are unknown or no tensors"
    elif is_standard(node, "Cast") and any(value.dtype == ir.DataType.FLOAT16 for value in values):
        reason = "a border to float16 that was there"
    elif is_standard(node, "Constant"):
        reason = "a constant that the graph returns"
    elif not _has_half_form(node, version):
        reason = "no float16 form"
    return reason


def _has_half_form(node: ir.Node, version: int) -> bool:
    from onnx import defs

    schema = defs.get_schema(node.op_type, version, "")
    allowed = _allowed(schema, schema.outputs, len(node.outputs))
    outputs = [half for value, half in zip(node.outputs, allowed, strict=True) if is_float(value)]
    inputs = [half for value, half in zip(node.inputs, half_inputs(node, version), strict=True) if is_float(value)]
    return _TYPED.isdisjoint(schema.attributes) and all(outputs) and (bool(outputs) or any(inputs))


def _allowed(schema: Any, formals: Any, count: int) -> list[bool]:
    types = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    kinds = [formals[min(index, len(formals) - 1)].type_str for index in range(count)]
    return ["tensor(float16)" in types.get(kind, (kind,)) for kind in kinds]


def _outside(node: ir.Node, operators: tuple[str, ...], wide: set[ir.Value]) -> str | None:
    """Why values of `node` may not survive float16; None where nothing speaks against it."""
    if node.op_type in operators:
        return f"{node.op_type}: range or precision"
    if is_standard(node, "ReduceSum") and _reduced(node) > _LARGEST_SUM:
        return f"a sum of more than {_LARGEST_SUM} values"
    if is_standard(node, "Cast", "CastLike") and _counts(node.inputs[0]) and is_float(node.outputs[0]):
        return _COUNTS
    staying = _STAYING_INPUTS.get(node.op_type, ())
    constants = [constant_array(value) for i, value in enumerate(node.inputs) if i not in staying and is_float(value)]
    for problem in map(_constant_problem, (*constants, _fill(node))):
        if problem is not None:
            return problem
    computed = [value for value in node.inputs if value is not None and is_float(value) and not value.is_initializer()]
    if computed and all(value in wide for value in computed) and not is_standard(node, *_WORK):
        return _COUNTS
    return None


def _counts(value: ir.Value | None) -> bool:
    """True for integers that float16's 11 bits may not hold; uint8 pixels and booleans fit."""
    return value is not None and value.dtype is not None and value.dtype.is_integer() and value.dtype.itemsize > 1


def _reduced(node: ir.Node) -> float:
    """How many values each output of a reduction sums; infinite where unknown."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None:
        return math.inf
    return math.prod(before) / max(1, math.prod(after))


def _fill(node: ir.Node) -> np.ndarray | None:
    fill = node.attributes.get_tensor("value", None) if is_standard(node, "ConstantOfShape") else None
    return None if fill is None or not is_float(node.outputs[0]) else fill.numpy()


def _constant_problem(array: np.ndarray | None) -> str | None:
    """Why a constant does not survive float16: a number that is too large, or a single one that would become 0."""
    if array is None or array.size == 0:
        return None
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and np.isinf(to_half(finite.max())):
        return BEYOND
    if array.size == 1 and finite.any() and not to_half(finite).any():
        return "a constant would become 0"
    return None
