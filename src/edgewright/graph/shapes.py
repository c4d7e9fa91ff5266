"""Shapes: static sizes of values, and shape inference that drops what has gone stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.graph.binary_shapes import stand_in

if TYPE_CHECKING:
    import onnx_ir as ir

#: Inference needs the values of small constants (target shapes, axes); larger ones are weights and stay out of it.
_SMALL_BYTES = 1024
#: The onnx package infers nothing for these, whose result is like their first input.
_SAME_SHAPE = ("GroupNormalization",)
#: Data propagation of the onnx package makes an object for each element of a vector, whatever its type.
_LONGEST_VECTOR = 1_000_000


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of `value` where every size is known, else None."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    return sizes if all(isinstance(size, int) for size in sizes) else None


def infer(ir_model: ir.Model, *, keep_known: bool = False) -> None:
    """Give every value of the graph and its subgraphs the type and shape that follow from the graph's inputs.

    What was there before is dropped first, because a pass may have changed it. Operators without a schema, of which
    inference knows nothing, keep what they had; binary layers are known. Declared shapes of the main graph's inputs and
    outputs stay.

    Args:
        ir_model: Changed in place.
        keep_known: Keep what was there wherever inference finds out less: for graphs that no pass has changed.

    Raises:
        EdgewrightError: E212 when the graph contradicts itself.
    """
    import onnx
    import onnx_ir as ir

    proto = ir.to_proto(_skeleton(ir_model))
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=False)
        if not _has_long_vector(inferred.graph):
            inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as problem:
        raise EdgewrightError("E212", f"shapes of the graph cannot be inferred: {problem}") from None
    for graph, known in zip(ir_model.graphs(), ir.from_proto(inferred).graphs(), strict=True):
        values = {value.name: value for node in known for value in node.outputs}
        declared = set(graph.outputs) if graph is ir_model.graph else set()
        for node in graph:
            keep = keep_known or node.domain not in ("", "ai.onnx")
            for value in node.outputs:
                _update(value, values.get(value.name), declared=value in declared, keep=keep)


def _has_long_vector(graph: Any) -> bool:
    """True where a vector is so long that data propagation, which takes about 60 bytes per element, must not see it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) == 1 and sizes[0].dim_value > _LONGEST_VECTOR:
            return True
    graphs = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return any(_has_long_vector(inner) for inner in graphs)


def _update(value: ir.Value, found: ir.Value | None, *, declared: bool, keep: bool) -> None:
    if found is not None and found.type is not None:
        value.type = found.type
    elif not keep:
        value.type = value.type if declared else None
    if not declared or value.shape is None:
        value.shape = _merged(None if found is None else found.shape, value.shape if keep else None)


def _merged(first: ir.Shape | None, second: ir.Shape | None) -> ir.Shape | None:
    """The sizes of `first`, where it lacks one filled up from `second`."""
    import onnx_ir as ir

    if first is None or second is None or len(first) != len(second):
        chosen = first if first is not None else second
        return None if chosen is None else ir.Shape([_size(size) for size in chosen])
    return ir.Shape([_size(a) if _size(a) is not None else _size(b) for a, b in zip(first, second, strict=True)])


def _size(size: int | ir.SymbolicDim) -> int | str | None:
    name = size if isinstance(size, int) else size.value
    # Names such as unk__3 are made up anew by every inference and say nothing.
    return None if isinstance(name, str) and name.startswith("unk__") else name


def _skeleton(ir_model: ir.Model) -> ir.Model:
    """A copy without inner shapes and without weights, which become inputs: small enough for one protobuf message."""
    import onnx_ir as ir

    copy = ir_model.clone()
    stand_in(copy)
    declared = set(copy.graph.outputs)
    for graph in tuple(copy.graphs()):
        for node in graph:
            if node.op_type in _SAME_SHAPE and node.domain in ("", "ai.onnx"):
                node.op_type = "Identity"
                node.resize_inputs(1)
                node.attributes.clear()
            for value in node.outputs:
                if value not in declared and node.domain in ("", "ai.onnx"):
                    value.shape = value.type = None
        for value in tuple(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= _SMALL_BYTES:
                continue
            value.type, value.shape = ir.TensorType(tensor.dtype), tensor.shape
            del graph.initializers[value.name]
            if not value.is_graph_input():
                copy.graph.inputs.append(value)
    return copy
