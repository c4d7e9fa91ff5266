"""The onnx package's checker and shape inference, on a copy of the graph that leaves large weights out.

Both are C++ and take one protobuf message, which ends at 2 GiB; they need the sizes of a weight, not its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir

#: Initializers up to this size keep their values in the copy: Reshape, Slice and their like need them for shapes.
_SMALL_BYTES = 1024


def check(ir_model: ir.Model, file_name: str) -> None:
    """Refuse what the onnx checker finds wrong with nodes and attributes.

    Raises:
        EdgewrightError: E213 with the checker's first line.
    """
    import onnx

    try:
        onnx.checker.check_model(skeleton(ir_model))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as problem:
        raise EdgewrightError("E213", f"`{file_name}` is not valid ONNX: {_first_line(problem)}") from None


def infer_shapes(ir_model: ir.Model, file_name: str) -> None:
    """Fill in the types and sizes that follow from the inputs, in place; declared ones stay as they are.

    Raises:
        EdgewrightError: E213 where the types contradict each other.
    """
    import onnx
    import onnx_ir as ir

    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(ir_model), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as problem:
        raise EdgewrightError("E213", f"types in `{file_name}` do not fit together: {_first_line(problem)}") from None
    known = ir.from_proto(inferred)
    for graph, other in zip(_graphs(ir_model), _graphs(known), strict=True):
        names = {value.name: value for node in other for value in node.outputs}
        for node in graph:
            for value in node.outputs:
                if value.name and value.name in names:
                    _merge(value, names[value.name])


def skeleton(ir_model: ir.Model) -> Any:
    """An `onnx.ModelProto` of the graph in which large initializers are inputs."""
    import onnx
    import onnx_ir as ir

    proto = onnx.ModelProto(ir_version=10)
    for domain, version in ir_model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.to_proto(function) for function in ir_model.functions.values())
    graph, source = proto.graph, ir_model.graph
    graph.name = source.name or "main_graph"
    graph.input.extend(ir.to_proto(value) for value in source.inputs)
    graph.output.extend(ir.to_proto(value) for value in source.outputs)
    for value in source.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes <= _SMALL_BYTES:
            graph.initializer.append(ir.to_proto(tensor))
            graph.initializer[-1].name = value.name
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(value.name, tensor.dtype.value, tuple(tensor.shape)))
    for node in source:
        graph.node.append(ir.to_proto(node))
        graph.value_info.extend(ir.to_proto(v) for v in node.outputs if v.name and v.type and not v.is_graph_output())
    return proto


def _graphs(ir_model: ir.Model) -> list[Any]:
    return [ir_model.graph, *ir_model.graph.subgraphs()]


def _merge(value: ir.Value, inferred: ir.Value) -> None:
    """Take over the inferred type and sizes where `value` declares none."""
    import onnx_ir as ir

    if value.type is None:
        value.type = inferred.type
    if inferred.shape is None or (value.shape is not None and len(value.shape) != len(inferred.shape)):
        return
    declared = value.shape if value.shape is not None else [None] * len(inferred.shape)
    sizes = [_size(old) if _size(old) is not None else _size(new) for old, new in zip(declared, inferred.shape, strict=True)]
    value.shape = ir.Shape(sizes)


def _size(dim: Any) -> int | str | None:
    size = dim if isinstance(dim, int) or dim is None else dim.value
    # Names such as unk__3 are made up anew by every inference.
    return None if isinstance(size, str) and size.startswith("unk__") else size


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(problem).__name__
