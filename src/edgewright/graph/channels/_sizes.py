"""Sizes and small constants of single nodes, where inference over a whole graph has given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import is_standard
from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_Sizes = tuple[int, ...]
#: What onnx's own functions raise for operands that they cannot work on.
_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError)


def node_sizes(node: ir.Node, sizes: Mapping[str, _Sizes], numbers: Mapping[str, np.ndarray]) -> dict[str, _Sizes]:
    """Static sizes of what a node makes, by name, as far as onnx's rule for it tells; types are written to the values."""
    import onnx
    import onnx_ir as ir
    from onnx.shape_inference import infer_node_outputs

    given = [value for value in node.inputs if value is not None and value.name]
    if not is_standard(node, node.op_type) or any(value.name not in sizes or value.dtype is None for value in given):
        return {}
    types = {value.name: _type(value, sizes[value.name or ""]) for value in given}
    data = {v.name: onnx.numpy_helper.from_array(numbers[v.name or ""], v.name) for v in given if v.name in numbers}
    try:
        schema = onnx.defs.get_schema(node.op_type, OPSET_VERSION, "")
        opsets = [onnx.helper.make_opsetid("", OPSET_VERSION)]
        made = infer_node_outputs(schema, ir.to_proto(node), types, data, opset_imports=opsets)
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, *_REFUSALS):
        return {}
    found = {}
    for value in node.outputs:
        kind = made.get(value.name or "")
        tensor = None if kind is None else kind.tensor_type
        if tensor is None or not tensor.elem_type or not tensor.HasField("shape"):
            continue
        value.type = ir.TensorType(ir.DataType(tensor.elem_type))
        if all(side.HasField("dim_value") for side in tensor.shape.dim):
            found[value.name or ""] = tuple(int(side.dim_value) for side in tensor.shape.dim)
    return found


def _type(value: ir.Value, shape: _Sizes) -> onnx.TypeProto:
    import onnx

    kind: onnx.TypeProto = onnx.helper.make_tensor_type_proto(int(value.dtype or 0), shape)
    return kind


def evaluated(node: ir.Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """What a node makes of these arrays by onnx's reference; None where that cannot tell."""
    import onnx
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    names = [name for name in proto.input if name]
    feeds = {name: array for name, array in zip(proto.input, inputs, strict=True) if name and array is not None}
    values = [onnx.helper.make_tensor_value_info(name, 1, None) for name in dict.fromkeys(names)]
    results = [onnx.helper.make_tensor_value_info(name, 1, None) for name in proto.output]
    graph = onnx.helper.make_graph([proto], "node", values, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET_VERSION)])
    try:
        with np.errstate(all="ignore"):
            (found,) = ReferenceEvaluator(model).run(None, feeds)
    except _REFUSALS:
        return None
    return np.asarray(found) if isinstance(found, np.ndarray | np.generic) else None
