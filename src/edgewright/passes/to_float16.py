"""To float16: weights and arithmetic in half precision; graph inputs and outputs keep float32 and their names.

Nodes that lose their meaning in float16 stay in float32, with a Cast where they meet the others: operators without a
float16 form, `Config.keep_operators`, nodes with a constant that float16 cannot hold, and counts and squares until
something tames them. Subgraphs keep float32 at their borders and turn to float16 inside. What the activations of real
inputs do is not known here: `verify` judges it.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import Names, add_initializer, constant_array, drop_unused, is_standard, lift_constants
from edgewright.graph.shapes import infer, static_shape
from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = False

_LARGEST = float(np.finfo(np.float16).max)  # 65504
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5; below it bits are lost, below 3e-8 all of them
#: A sum of more values than this may leave float16's range even where each value is modest.
_LARGEST_SUM = 1024
_BEYOND = f"a constant is beyond {_LARGEST:.0f}"
_SHOWN = 20

#: Squares, exponentials, sums of squares, positions and random numbers.
_KEEP = ("Range", "Pow", "Exp", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp",
         "LpNormalization", "CumSum", "GridSample", "RoiAlign", "DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow",
         "BlackmanWindow", "EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
         "Bernoulli", "Det", "Mod")  # fmt: skip
#: Kept operators whose result is within float16's range all the same.
_TAME = ("ReduceL2", "LpNormalization", "GridSample", "RoiAlign", "ReduceLogSum", "ReduceLogSumExp", "RandomNormal",
         "RandomUniform", "RandomNormalLike", "RandomUniformLike", "EyeLike", "HannWindow", "HammingWindow", "BlackmanWindow")  # fmt: skip
#: They bring a large range back into float16's.
_TAMING = (
    "Sqrt",
    "Log",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Softmax",
    "LogSoftmax",
    "HardSigmoid",
    "Clip",
    "Softsign",
    "Sin",
    "Cos",
)
#: They do the work: float16 whatever comes in.
_WORK = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum", "LayerNormalization",
         "InstanceNormalization", "GroupNormalization", "BatchNormalization")  # fmt: skip
#: Input positions that take float32 beside a float16 tensor: sizes and scales, not data.
_STAYING_INPUTS = {"Resize": (1, 2)}


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        keep: Names of nodes, or of tensors that they make, to leave in float32.
        keep_operators: Operators to leave in float32.
    """

    keep: tuple[str, ...] = ()
    keep_operators: tuple[str, ...] = _KEEP


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Convert in place; returns node counts, reasons of what stays, Casts added, and what weights lost.

    Raises:
        EdgewrightError: E212 for a graph that is quantized already, E103 for an unknown name in `keep`.
    """
    _refuse_quantized(ir_model)
    _check_keep(ir_model, config.keep)
    infer(ir_model)
    lift_constants(ir_model)
    kept = _choose(ir_model, config)
    work = _Conversion(ir_model, kept)
    work.run()
    shown: dict[str, list[str]] = defaultdict(list)
    for node, reason in kept.items():
        shown[reason].append(node.name or node.outputs[0].name or node.op_type)
    return {
        "float16_nodes": len(work.half),
        "float32_nodes": len(kept),
        "kept": {reason: {"count": len(names), "nodes": names[:_SHOWN]} for reason, names in sorted(shown.items())},
        "casts": work.casts,
        "weights": work.weights,
        "weights_to_zero": work.to_zero,
        "weights_subnormal": work.subnormal,
    }


def _refuse_quantized(ir_model: ir.Model) -> None:
    for graph in ir_model.graphs():
        for node in graph:
            if "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
                raise EdgewrightError(
                    "E212",
                    f"`to_float16` cannot work on a quantized graph: `{node.name or node.outputs[0].name}` is {node.op_type}",
                    hint="start from the float network: edgewright compress MODEL --recipe fp16",
                )


def _check_keep(ir_model: ir.Model, keep: tuple[str, ...]) -> None:
    known = {name for graph in ir_model.graphs() for node in graph for name in _names(node)}
    for name in keep:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            tail = f"; did you mean `{near[0]}`?" if near else ""
            raise EdgewrightError(
                "E103", f"option `to_float16.keep` names `{name}`, which no node is called or makes{tail}"
            )


def _names(node: ir.Node) -> tuple[str, ...]:
    return tuple(name for name in (node.name, *(value.name for value in node.outputs)) if name)


def _is_float(value: ir.Value | None) -> bool:
    import onnx_ir as ir

    return value is not None and isinstance(value.type, ir.TensorType) and value.type.dtype == ir.DataType.FLOAT


# --- what stays in float32 ----------------------------------------------------------------------------------------------


def _choose(ir_model: ir.Model, config: Config) -> dict[ir.Node, str]:
    """Nodes that stay in float32, in graph order, each with the reason."""
    version = ir_model.graph.opset_imports.get("", OPSET_VERSION)
    kept: dict[ir.Node, str] = {}
    wide: set[ir.Value] = set()  # outside float16's range or precision, as far as one can tell
    for graph in ir_model.graphs():
        for node in graph:
            if not any(map(_is_float, (*node.inputs, *node.outputs))):
                continue
            outside = _outside(node, config.keep_operators, wide)
            reason = _unable(node, config.keep, version) or outside
            if reason is None:
                continue
            kept[node] = reason
            if outside and not is_standard(node, *_TAME, *_TAMING):
                wide.update(value for value in node.outputs if _is_float(value))
    return kept


def _unable(node: ir.Node, keep: tuple[str, ...], version: int) -> str | None:
    """Why `node` cannot be in float16 whatever its values are; None where it can."""
    import onnx_ir as ir

    if set(keep).intersection(_names(node)):
        return "asked for"
    if not is_standard(node, node.op_type):
        return f"operators of the domain {node.domain}"
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return "control flow, converted inside"
    if any(value is not None and not isinstance(value.type, ir.TensorType) for value in (*node.inputs, *node.outputs)):
        return "its types are unknown or no tensors"
    if is_standard(node, "Cast") and ir.DataType.FLOAT16 in (node.inputs[0].dtype, node.outputs[0].dtype):  # type: ignore[union-attr]
        return "a border to float16 that was there"
    allowed_in, allowed_out = _half_positions(node, version)
    outputs = [allowed for value, allowed in zip(node.outputs, allowed_out, strict=True) if _is_float(value)]
    inputs = [allowed for value, allowed in zip(node.inputs, allowed_in, strict=True) if _is_float(value)]
    if not all(outputs) or not (outputs or any(inputs)):
        return "no float16 form"
    return None


def _outside(node: ir.Node, operators: tuple[str, ...], wide: set[ir.Value]) -> str | None:
    """Why values of `node` may not survive float16; None where nothing speaks against it."""
    if node.op_type in operators:
        return f"{node.op_type}: range or precision"
    if is_standard(node, "ReduceSum") and _reduced(node) > _LARGEST_SUM:
        return f"a sum of more than {_LARGEST_SUM} values"
    if is_standard(node, "Cast", "CastLike") and _counts(node.inputs[0]) and _is_float(node.outputs[0]):
        return "counts or squares"
    for index, value in enumerate(node.inputs):
        problem = _constant_problem(value) if index not in _STAYING_INPUTS.get(node.op_type, ()) else None
        if problem is not None:
            return problem
    computed = [value for value in node.inputs if value is not None and _is_float(value) and not value.is_initializer()]
    if computed and all(value in wide for value in computed) and not is_standard(node, *_WORK):
        return "counts or squares"
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


def _half_positions(node: ir.Node, version: int) -> tuple[list[bool], list[bool]]:
    """For each input and each output of a standard node: may it be float16?"""
    from onnx import defs

    schema = defs.get_schema(node.op_type, version, "")
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    staying = _STAYING_INPUTS.get(node.op_type, ())

    def positions(count: int, formals: Any) -> list[bool]:
        kinds = [formals[min(index, len(formals) - 1)].type_str for index in range(count)]
        return ["tensor(float16)" in allowed.get(kind, (kind,)) for kind in kinds]

    inputs = [ok and i not in staying for i, ok in enumerate(positions(len(node.inputs), schema.inputs))]
    return inputs, positions(len(node.outputs), schema.outputs)


def _constant_problem(value: ir.Value | None) -> str | None:
    """Why a constant does not survive float16: a number that is too large, or a single one that would become 0."""
    array = constant_array(value) if _is_float(value) else None
    if array is None or array.size == 0:
        return None
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and np.isinf(_quiet_half(finite.max())):
        return _BEYOND
    if array.size == 1 and finite.any() and not _quiet_half(finite).any():
        return "a constant would become 0"
    return None


def _quiet_half(array: Any) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(array).astype(np.float16)


# --- the conversion -----------------------------------------------------------------------------------------------------


class _Conversion:
    """One run over a model. `half` are the nodes that compute in float16."""

    def __init__(self, ir_model: ir.Model, kept: dict[ir.Node, str]) -> None:
        self.ir_model = ir_model
        self.names = Names(ir_model)
        self.version = ir_model.graph.opset_imports.get("", OPSET_VERSION)
        self.casts = self.weights = self.to_zero = self.subnormal = 0
        self.kept = kept
        nodes = [node for graph in ir_model.graphs() for node in graph]
        self.floats = {
            value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None and _is_float(value)
        }
        self.half = [
            node
            for node in nodes
            if node not in kept and any(value in self.floats for value in (*node.inputs, *node.outputs))
        ]
        self.shared = {
            value for value in self.floats if value.is_graph_output()
        }  # constants that some node reads in float32
        self._made: dict[tuple[ir.Value, ir.DataType, ir.Graph], ir.Value] = {}

    def run(self) -> None:
        """Turn nodes, borders and constants to float16."""
        import onnx_ir as ir

        wanted = self._wanted()
        self.shared.update(node.inputs[index] for node, index, dtype in wanted if dtype == ir.DataType.FLOAT)
        for node in self.half:
            self._retype(node)
        for graph in tuple(self.ir_model.graphs()):
            self._restore_outputs(graph)
        for node, index, dtype in wanted:
            self._feed(node, index, dtype)
        for graph in self.ir_model.graphs():
            for value in tuple(graph.initializers.values()):
                drop_unused(value)

    def _wanted(self) -> list[tuple[ir.Node, int, ir.DataType]]:
        """Every float input of every node with the dtype that it must have, in graph order."""
        import onnx_ir as ir

        half, wanted = set(self.half), []
        for graph in self.ir_model.graphs():
            for node in graph:
                allowed = _half_positions(node, self.version)[0] if node in half else [False] * len(node.inputs)
                for index, value in enumerate(node.inputs):
                    if value in self.floats:
                        wanted.append((node, index, ir.DataType.FLOAT16 if allowed[index] else ir.DataType.FLOAT))
        return wanted

    def _retype(self, node: ir.Node) -> None:
        import onnx_ir as ir

        for value in node.outputs:
            if value in self.floats:
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        if node.outputs[0] not in self.floats:
            return
        if is_standard(node, "Cast"):
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
        if is_standard(node, "ConstantOfShape"):
            fill = node.attributes.get_tensor("value", None)
            number = 0.0 if fill is None else fill.numpy().reshape(-1)[0]
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_quiet_half([number])))

    def _restore_outputs(self, graph: ir.Graph) -> None:
        """Graph outputs stay float32 under their own names, subgraphs' too: their node has one type for all branches."""
        import onnx_ir as ir

        for index, value in enumerate(tuple(graph.outputs)):
            producer = value.producer()
            if (
                value not in self.floats
                or value.dtype != ir.DataType.FLOAT16
                or producer is None
                or producer.graph is not graph
            ):
                continue
            assert value.name is not None
            name = value.name
            value.name = self.names.fresh(f"{name}:fp16")
            cast = self._cast(value, ir.DataType.FLOAT, name)
            graph.insert_after(producer, cast)
            graph.outputs[index] = cast.outputs[0]
            self._made[value, ir.DataType.FLOAT, graph] = cast.outputs[0]

    def _feed(self, node: ir.Node, index: int, dtype: ir.DataType) -> None:
        """Give `node` its input in `dtype`: the value itself, a converted constant or a Cast."""
        value, graph = node.inputs[index], node.graph
        assert value is not None
        assert graph is not None
        if value.dtype == dtype:
            return
        array = constant_array(value)
        home = value.graph if array is not None and value.is_initializer() else graph
        assert home is not None
        key = (value, dtype, home)
        if key not in self._made:
            assert value.name is not None
            if array is not None and value.is_initializer():
                self._made[key] = self._half_constant(value, home, array)
            else:
                self._made[key] = self._insert_cast(value, dtype, node)
        node.replace_input_with(index, self._made[key])

    def _half_constant(self, value: ir.Value, home: ir.Graph, array: np.ndarray) -> ir.Value:
        import onnx_ir as ir

        rounded = _quiet_half(array)
        self.weights += array.size
        self.to_zero += int(((rounded == 0) & (array != 0)).sum())
        self.subnormal += int(((np.abs(array) < _SMALLEST_NORMAL) & (rounded != 0)).sum())
        assert value.name is not None
        if value not in self.shared:
            value.const_value = ir.tensor(rounded, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            return value
        return add_initializer(home, self.names.fresh(f"{value.name}:fp16"), rounded)

    def _insert_cast(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        import onnx_ir as ir

        graph, producer = reader.graph, value.producer()
        assert graph is not None
        half = dtype == ir.DataType.FLOAT16
        source = value
        if half and producer is not None and self.kept.get(producer) == _BEYOND:
            source = self._clip(value, reader)
        cast = self._cast(source, dtype, self.names.fresh(f"{value.name}:{'fp16' if half else 'fp32'}"))
        graph.insert_before(reader, cast)
        return cast.outputs[0]

    def _clip(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """Saturate what a node with huge constants makes, so that a mask of -3e38 does not become -inf, nor NaN later."""
        import onnx_ir as ir

        graph = reader.graph
        assert graph is not None
        limits = [
            add_initializer(graph, self.names.fresh(f"{value.name}:{name}"), np.array(number, np.float32))
            for name, number in (("low", -_LARGEST), ("high", _LARGEST))
        ]
        name = self.names.fresh(f"{value.name}:clip")
        output = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        graph.insert_before(reader, ir.Node("", "Clip", [value, *limits], outputs=[output], name=name))
        return output

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
        import onnx_ir as ir

        self.casts += 1
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        return ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], outputs=[output], name=name)
