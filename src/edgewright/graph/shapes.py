"""Shapes: static sizes of values, and shape inference that drops what has gone stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir

#: Inference needs the values of small constants (target shapes, axes); larger ones are weights and stay out of it.
_SMALL_BYTES = 1024


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of `value` where every size is known, else None."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    return sizes if all(isinstance(size, int) for size in sizes) else None


def infer(ir_model: ir.Model) -> None:
    """Give every value of the graph and its subgraphs the type and shape that follow from the graph's inputs.

    What was there before is dropped first, because a pass may have changed it. What inference cannot know (operators
    that have no schema) keeps what it had. Declared shapes of the main graph's inputs and outputs stay.

    Raises:
        EdgewrightError: E212 when the graph contradicts itself.
    """
    import onnx
    import onnx_ir as ir

    proto = ir.to_proto(_skeleton(ir_model))
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as problem:
        raise EdgewrightError("E212", f"shapes of the graph cannot be inferred: {problem}") from None
    for graph, known in zip(ir_model.graphs(), ir.from_proto(inferred).graphs(), strict=True):
        values = {value.name: value for node in known for value in node.outputs}
        declared = set(graph.outputs) if graph is ir_model.graph else set()
        for node in graph:
            for value in node.outputs:
                _update(value, values.get(value.name), declared=value in declared)


def _update(value: ir.Value, known: ir.Value | None, *, declared: bool) -> None:
    if known is None or known.type is None:
        return
    value.type = known.type
    if not declared or value.shape is None:
        value.shape = known.shape


def _skeleton(ir_model: ir.Model) -> ir.Model:
    """A copy without inner shapes and without weights, which become inputs: small enough for one protobuf message."""
    import onnx_ir as ir

    copy = ir_model.clone()
    declared = set(copy.graph.outputs)
    for graph in tuple(copy.graphs()):
        for node in graph:
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
